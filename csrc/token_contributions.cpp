// Contributions of pooled tokens: dot products of embedding differences with the multiplier of their sum.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "checks.h"
#include "elementwise.h"
#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::stable::Tensor;
using Index = std::int64_t;

#define DLF_DOT(NAME, T)                                                                                       \
    DLF_CLONES T NAME(const T* __restrict x, const T* __restrict x0, const T* __restrict m, Index size) {      \
        constexpr int lanes = 64 / sizeof(T);                                                                  \
        T sums[lanes] = {};                                                                                    \
        Index i = 0;                                                                                           \
        for (; i + lanes <= size; i += lanes)                                                                  \
            for (int lane = 0; lane < lanes; ++lane) sums[lane] += (x[i + lane] - x0[i + lane]) * m[i + lane]; \
        T total = 0;                                                                                           \
        for (; i < size; ++i) total += (x[i] - x0[i]) * m[i];                                                  \
        for (int half = lanes / 2; half > 0; half /= 2) /* a tree: shorter than one sum after the other */     \
            for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];                           \
        return total + sums[0];                                                                                \
    }
DLF_DOT(difference_dot, float)
DLF_DOT(difference_dot_double, double)
inline double dot(const double* x, const double* x0, const double* m, Index size) {
    return difference_dot_double(x, x0, m, size);
}
inline float dot(const float* x, const float* x0, const float* m, Index size) { return difference_dot(x, x0, m, size); }

template <typename T>
void run(const Tensor& weight, const Tensor& tokens, const Tensor& baseline, const Tensor& multipliers, Tensor& out) {
    const T* table = static_cast<const T*>(weight.const_data_ptr());
    const Index* token = static_cast<const Index*>(tokens.const_data_ptr());
    const Index* token0 = static_cast<const Index*>(baseline.const_data_ptr());
    const T* m = static_cast<const T*>(multipliers.const_data_ptr());
    T* result = static_cast<T*>(out.mutable_data_ptr());
    const Index slots = tokens.size(1), size = weight.size(1);
    torch::stable::parallel_for(0, tokens.size(0), 64, [&](Index begin, Index end) {
        for (Index row = begin; row < end; ++row)
            for (Index i = row * slots; i < (row + 1) * slots; ++i) {
                const Index a = token[i], b = token0[i];
                const bool again = i > row * slots && a == token[i - 1] && b == token0[i - 1];  // padding, mostly
                result[i] = again    ? result[i - 1]
                            : a == b ? T(0)
                                     : dot(table + a * size, table + b * size, m + row * size, size);
            }
    });
}

Tensor token_contributions(Tensor weight, Tensor tokens, Tensor baseline, Tensor multipliers) {
    const Checked checked("token_contributions", "weight", weight);
    checked.numbers("weight", weight, {any, any});
    checked.indices("tokens", tokens, {any, any});
    checked.indices("baseline", baseline, {tokens.size(0), tokens.size(1)});
    checked.numbers("multipliers", multipliers, {tokens.size(0), weight.size(1)});
    checked.within("tokens", tokens, weight.size(0));
    checked.within("baseline", baseline, weight.size(0));
    Tensor out = torch::stable::new_empty(weight, {tokens.size(0), tokens.size(1)});
    if (tokens.numel() == 0) return out;  // rows without slots may be any number, and take no memory
    (checked.is_float() ? run<float> : run<double>)(weight, tokens, baseline, multipliers, out);
    return out;
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("token_contributions", TORCH_BOX(&deeplift_fast::token_contributions));
}
