// The log-mean rule of softmax: probabilities at the input, logarithmic means of both streams, and the way back.
//
// deeplift_fast/ops/naive/log_mean_softmax.py has the formulas.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "allocate.h"
#include "checks.h"
#include "elementwise.h"
#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Index = std::int64_t;

// A row's largest logit, and the sum of e^(z - largest); NaN if the row has no softmax.
template <typename T>
struct Scale {
    T high, sum;
};

// Also writes the numbers e^(z - largest). Loops along the row come apart, so that the compiler vectorises each.
template <typename T>
DLF_INLINE Scale<T> scale_of(const T* __restrict z, T* __restrict powers, Index n) {
    constexpr int lanes = 64 / sizeof(T);
    T highest[lanes], sums[lanes] = {};
    std::fill_n(highest, lanes, -std::numeric_limits<T>::infinity());
    Index i = 0;
    for (; i + lanes <= n; i += lanes)
        for (int lane = 0; lane < lanes; ++lane)
            highest[lane] = z[i + lane] > highest[lane] ? z[i + lane] : highest[lane];
    T high = *std::max_element(highest, highest + lanes);
    for (; i < n; ++i) high = z[i] > high ? z[i] : high;
    for (Index k = 0; k < n; ++k) powers[k] = exponential(z[k] - high).exp;
    for (i = 0; i + lanes <= n; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) sums[lane] += powers[i + lane];
    T sum = total<T, lanes>(sums);
    for (; i < n; ++i) sum += powers[i];
    return {high, sum};
}

template <typename T>
DLF_INLINE void means_of(const T* __restrict z, const T* __restrict z0, T* __restrict y, T* __restrict mean, Index n,
                         bool log) {
    const Scale<T> b = scale_of(z0, mean, n), a = scale_of(z, y, n);
    const T log_sum = std::log(a.sum), log_sum0 = std::log(b.sum), inverse = 1 / a.sum;
    if (log)
        for (Index i = 0; i < n; ++i) y[i] = (z[i] - a.high) - log_sum;
    else
        for (Index i = 0; i < n; ++i) y[i] *= inverse;
    for (Index i = 0; i < n; ++i) {
        const T log_p = (z[i] - a.high) - log_sum, log_p0 = (z0[i] - b.high) - log_sum0;
        const T high = log_p > log_p0 ? log_p : log_p0, low = log_p > log_p0 ? log_p0 : log_p;
        const T fall = high == low ? T(0) : low - high;
        const T ratio = fall == 0 ? T(1) : exponential(fall).expm1 / fall;
        mean[i] = exponential(high).exp * ratio;
    }
    if (std::isnan(a.sum) || std::isnan(b.sum)) std::fill_n(mean, n, T(0));
}

template <typename T>
DLF_INLINE void multipliers_of(const T* __restrict g, const T* __restrict mean, T* __restrict out, Index n) {
    constexpr int lanes = 64 / sizeof(T);
    T sums[lanes] = {}, dots[lanes] = {}, rests[lanes] = {};
    Index i = 0;
    for (; i + lanes <= n; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) sums[lane] += mean[i + lane];
    T sum = total<T, lanes>(sums);
    for (; i < n; ++i) sum += mean[i];
    const T divisor = sum > 0 ? sum : T(1);
    for (i = 0; i + lanes <= n; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) dots[lane] += mean[i + lane] / divisor * g[i + lane];
    T dot = total<T, lanes>(dots);
    for (; i < n; ++i) dot += mean[i] / divisor * g[i];
    for (i = 0; i + lanes <= n; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) {
            out[i + lane] = mean[i + lane] * (g[i + lane] - dot);
            rests[lane] += out[i + lane];
        }
    T rest = total<T, lanes>(rests);
    for (; i < n; ++i) {
        out[i] = mean[i] * (g[i] - dot);
        rest += out[i];
    }
    for (i = 0; i < n; ++i) out[i] -= mean[i] / divisor * rest;
}

// Not templates: a function template cannot carry target_clones.
#define DLF_ROWS(T)                                                                        \
    DLF_CLONES void row_means(const T* z, const T* z0, T* y, T* mean, Index n, bool log) { \
        means_of<T>(z, z0, y, mean, n, log);                                               \
    }                                                                                      \
    DLF_CLONES void row_multipliers(const T* g, const T* mean, T* out, Index n) { multipliers_of<T>(g, mean, out, n); }
DLF_ROWS(float)
DLF_ROWS(double)

// The rows of a contiguous tensor along one dimension: the numbers of a row are `step` apart.
struct Rows {
    Index count, size, step;

    Rows(const Tensor& tensor, Index dim) : count(1), size(1), step(1) {
        const auto sizes = tensor.sizes();
        const Index dims = static_cast<Index>(sizes.size());
        STD_TORCH_CHECK(dim >= -std::max<Index>(dims, 1) && dim < std::max<Index>(dims, 1), "dim is ", dim,
                        "; the tensor has ", dims, " dimensions");
        if (dims == 0) return;
        size = sizes[dim < 0 ? dim + dims : dim];
        for (Index d = (dim < 0 ? dim + dims : dim) + 1; d < dims; ++d) step *= sizes[d];
        count = size == 0 ? 0 : tensor.numel() / size;
    }
    Index start(Index row) const { return row / step * size * step + row % step; }
};

// Calls `row(in, out)` with two arguments and `results` results per row, as contiguous rows of the computing type.
template <typename T, typename C, int results, typename Row>
void each_row(const Rows& rows, const T* const (&in)[2], T* const (&out)[results], Row row) {
    const bool direct = std::is_same_v<T, C> && rows.step == 1;
    torch::stable::parallel_for(
        0, rows.count, std::max<Index>(1, 4096 / std::max<Index>(rows.size, 1)), [&](Index begin, Index end) {
            std::vector<C> scratch(direct ? 0 : (2 + results) * rows.size);
            for (Index r = begin; r < end; ++r) {
                const Index start = rows.start(r);
                const C* given[2];
                C* made[results];
                for (int k = 0; k < 2; ++k) {
                    C* copy = scratch.data() + k * rows.size;
                    for (Index i = 0; !direct && i < rows.size; ++i)
                        copy[i] = static_cast<C>(in[k][start + i * rows.step]);
                    given[k] = direct ? reinterpret_cast<const C*>(in[k] + start) : copy;
                }
                for (int k = 0; k < results; ++k)
                    made[k] = direct ? reinterpret_cast<C*>(out[k] + start) : scratch.data() + (2 + k) * rows.size;
                row(given, made);
                for (int k = 0; !direct && k < results; ++k)
                    for (Index i = 0; i < rows.size; ++i) out[k][start + i * rows.step] = static_cast<T>(made[k][i]);
            }
        });
}

// Calls `run` with a value of the tensors' dtype and one of the type that the op computes in.
template <typename Run>
void by_dtype(const char* op, const Tensor& tensor, Run run) {
    switch (tensor.scalar_type()) {
        case ScalarType::Float:
            return run(float(), float());
        case ScalarType::Double:
            return run(double(), double());
        case ScalarType::Half:
            return run(torch::headeronly::Half(), float());
        case ScalarType::BFloat16:
            return run(torch::headeronly::BFloat16(), float());
        default:
            STD_TORCH_CHECK(false, op, ": accepted dtypes are float32, float64, float16 and bfloat16");
    }
}

void require_alike(const char* op, const Tensor& a, const Tensor& b) {
    require_memory(op, "its first argument", a);
    require_memory(op, "its second argument", b);
    const auto sizes = a.sizes(), others = b.sizes();
    STD_TORCH_CHECK(sizes.size() == others.size() && std::equal(sizes.begin(), sizes.end(), others.begin()), op,
                    ": its arguments differ in shape");
    STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), op, ": its arguments differ in dtype");
}

std::tuple<Tensor, Tensor> log_mean_softmax(Tensor z, Tensor z0, Index dim, bool log) {
    require_alike("log_mean_softmax", z, z0);
    z = dense(z), z0 = dense(z0);
    const Rows rows(z, dim);
    Tensor y = allocate_like(z), mean = allocate_like(z);
    by_dtype("log_mean_softmax", z, [&]<typename T, typename C>(T, C) {
        const T* const in[] = {read<T>(z), read<T>(z0)};
        T* const out[] = {write<T>(y), write<T>(mean)};
        each_row<T, C, 2>(rows, in, out, [&](const C* const* given, C* const* made) {
            row_means(given[0], given[1], made[0], made[1], rows.size, log);
        });
    });
    return {y, mean};
}

Tensor log_mean_softmax_backward(Tensor g, Tensor mean, Index dim) {
    require_alike("log_mean_softmax_backward", g, mean);
    g = dense(g), mean = dense(mean);
    const Rows rows(g, dim);
    Tensor found = allocate_like(g);
    by_dtype("log_mean_softmax_backward", g, [&]<typename T, typename C>(T, C) {
        const T* const in[] = {read<T>(g), read<T>(mean)};
        T* const out[] = {write<T>(found)};
        each_row<T, C, 1>(rows, in, out, [&](const C* const* given, C* const* made) {
            row_multipliers(given[0], given[1], made[0], rows.size);
        });
    });
    return found;
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("log_mean_softmax", TORCH_BOX(&deeplift_fast::log_mean_softmax));
    m.impl("log_mean_softmax_backward", TORCH_BOX(&deeplift_fast::log_mean_softmax_backward));
}
