// Multipliers of a layer norm's argument: centre, square, mean, rsqrt, product, in one pass over the rows.
//
// The formulas stand in deeplift_fast/ops/naive/layer_norm.py.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "allocate.h"
#include "checks.h"
#include "elementwise.h"
#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::stable::Tensor;
using Index = std::int64_t;

// One row: its numbers in both streams, and their averages and scales.
template <typename T>
struct Row {
    const T *m, *x, *x0, *weight;
    T average, scale, scale0, half;
    T* out;
};

template <typename T>
DLF_INLINE void normalised_back(const Row<T>& row, Index size) {
    constexpr int lanes = 64 / sizeof(T);
    // Copies, which the compiler knows that the result does not overlap.
    const T* __restrict m = row.m, * __restrict x = row.x, * __restrict x0 = row.x0, * __restrict weight = row.weight;
    T* __restrict out = row.out;
    const T half = row.half, centre = row.average;
    const auto centred = [=](Index i) { return x[i] + half * (x0[i] - x[i]) - centre; };
    T dots[lanes] = {}, sums[lanes] = {}, offsets[lanes] = {};
    Index i = 0;
    for (; i + lanes <= size; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) {
            const T each = m[i + lane] * weight[i + lane], c = centred(i + lane);
            dots[lane] += each * c, sums[lane] += each, offsets[lane] += c;
        }
    T dot = 0, sum = 0, offset = 0;
    for (; i < size; ++i) {
        const T each = m[i] * weight[i], c = centred(i);
        dot += each * c, sum += each, offset += c;
    }
    for (int lane = 0; lane < lanes; ++lane) dot += dots[lane], sum += sums[lane], offset += offsets[lane];
    const T r = row.scale, r0 = half == 0 ? r : row.scale0, mean = r + half * (r0 - r);
    const T through = -(r * r0) * (r * r0) / (r + r0) * (T(2) / size) * dot;
    const T average = (mean * sum + through * offset) / size;
    for (Index k = 0; k < size; ++k) out[k] = m[k] * weight[k] * mean + centred(k) * through - average;
}

DLF_CLONES void row_back(const Row<float>& row, Index size) { normalised_back(row, size); }
DLF_CLONES void row_back(const Row<double>& row, Index size) { normalised_back(row, size); }

Tensor layer_norm_backward(Tensor m, Tensor x, Tensor x0, Tensor where, Tensor average, Tensor average0, Tensor scale,
                           Tensor scale0, Tensor weight, double half) {
    const Index size = x.size(1);
    require_within("layer_norm_backward: where", where, x0.size(0));
    Tensor out = allocate_like(x);
    const auto run = [&]<typename T>(T) {
        const Index* facing = integers(where);
        const T near = static_cast<T>(half);
        T* result = write<T>(out);
        torch::stable::parallel_for(0, x.size(0), 64, [&](Index begin, Index end) {
            for (Index i = begin; i < end; ++i) {
                const Index other = facing[i];
                const T a = read<T>(average)[i], a0 = read<T>(average0)[other];
                row_back({read<T>(m) + i * size, read<T>(x) + i * size, read<T>(x0) + other * size, read<T>(weight),
                          a + near * (a0 - a), read<T>(scale)[i], read<T>(scale0)[other], near, result + i * size},
                         size);
            }
        });
    };
    is_float(x, "layer_norm_backward") ? run(float()) : run(double());
    return out;
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("layer_norm_backward", TORCH_BOX(&deeplift_fast::layer_norm_backward));
}
