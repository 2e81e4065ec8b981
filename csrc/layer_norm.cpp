// Multipliers of a layer norm's argument, by the quotient rule, in one pass over the rows.
//
// deeplift_fast/ops/naive/layer_norm.py has the formulas.
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

// A row of one stream: its numbers, their average and scale.
template <typename T>
struct Stream {
    const T* x;
    T average, scale;
};

// One row in both streams (the input's twice if `half` is 0), its multipliers, and the place of the result.
template <typename T>
struct Row {
    Stream<T> input, baseline;
    const T *m, *weight;
    T half;
    T* out;
};

template <typename T>
DLF_INLINE void normalised_back(const Row<T>& row, Index size) {
    constexpr int lanes = 64 / sizeof(T);
    // Copies: the compiler knows that the result does not overlap them.
    const T* __restrict m = row.m, * __restrict weight = row.weight;
    const T* __restrict x = row.input.x, * __restrict x0 = row.baseline.x;
    T* __restrict out = row.out;
    const T half = row.half, a = row.input.average, a0 = row.baseline.average;
    const T r = row.input.scale, r0 = row.baseline.scale;
    const auto mean = [half](T at_input, T at_baseline) { return at_input + half * (at_baseline - at_input); };
    // Σ m·c and Σ c in each stream, and Σ m.
    T dots[lanes] = {}, dots0[lanes] = {}, offsets[lanes] = {}, offsets0[lanes] = {}, sums[lanes] = {};
    Index i = 0;
    for (; i + lanes <= size; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) {
            const T each = m[i + lane] * weight[i + lane], c = x[i + lane] - a, c0 = x0[i + lane] - a0;
            dots[lane] += each * c, dots0[lane] += each * c0, sums[lane] += each;
            offsets[lane] += c, offsets0[lane] += c0;
        }
    for (int lane = 0; lane < lanes; ++lane) {
        dots[lane] = mean(r * dots[lane], r0 * dots0[lane]);
        offsets[lane] = mean(offsets[lane], offsets0[lane]);
    }
    T dot = total<T, lanes>(dots), offset = total<T, lanes>(offsets), sum = total<T, lanes>(sums);  // Σ m·ȳ, Σ c̄, Σ m
    for (; i < size; ++i) {
        const T each = m[i] * weight[i], c = x[i] - a, c0 = x0[i] - a0;
        dot += each * mean(r * c, r0 * c0), offset += mean(c, c0), sum += each;
    }
    const T inverse = r * (r0 / mean(r0, r)), through = dot * inverse / size, average = (sum - through * offset) / size;
    const T near = (1 - half) * through, far = half * through;  // c̄·through, a part from each stream
    for (Index k = 0; k < size; ++k)
        out[k] = (m[k] * weight[k] - average - near * (x[k] - a) - far * (x0[k] - a0)) * inverse;
}

DLF_CLONES void row_back(const Row<float>& row, Index size) { normalised_back(row, size); }
DLF_CLONES void row_back(const Row<double>& row, Index size) { normalised_back(row, size); }

Tensor layer_norm_backward(Tensor m, Tensor x, Tensor x0, Tensor where, Tensor average, Tensor average0, Tensor scale,
                           Tensor scale0, Tensor weight, double half) {
    const Checked checked("layer_norm_backward", "x", x);
    checked.numbers("x", x, {any, any});
    const Index rows = x.size(0), size = x.size(1);
    checked.numbers("x0", x0, {any, size});
    checked.numbers("m", m, {rows, size});
    checked.numbers("average", average, {rows, 1});
    checked.numbers("average0", average0, {x0.size(0), 1});
    checked.numbers("scale", scale, {rows, 1});
    checked.numbers("scale0", scale0, {x0.size(0), 1});
    checked.numbers("weight", weight, {size});
    checked.indices("where", where, {rows});
    checked.within("where", where, x0.size(0));
    Tensor out = allocate_like(x);
    const auto run = [&]<typename T>(T) {
        const Index* facing = integers(where);
        const T part = static_cast<T>(half);
        T* result = write<T>(out);
        torch::stable::parallel_for(0, rows, 64, [&](Index begin, Index end) {
            for (Index i = begin; i < end; ++i) {
                const Index other = facing[i];
                const Stream<T> input{read<T>(x) + i * size, read<T>(average)[i], read<T>(scale)[i]};
                const Stream<T> baseline{read<T>(x0) + other * size, read<T>(average0)[other], read<T>(scale0)[other]};
                row_back({input, part == 0 ? input : baseline, read<T>(m) + i * size, read<T>(weight), part,
                          result + i * size},
                         size);
            }
        });
    };
    checked.is_float() ? run(float()) : run(double());
    return out;
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("layer_norm_backward", TORCH_BOX(&deeplift_fast::layer_norm_backward));
}
