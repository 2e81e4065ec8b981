// Contributions of pooled tokens: dot products of embedding differences with the multiplier of their sum.
#include "token_contributions.h"

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
        T rest = 0;                                                                                            \
        for (; i < size; ++i) rest += (x[i] - x0[i]) * m[i];                                                   \
        return rest + total<T, lanes>(sums);                                                                   \
    }
DLF_DOT(difference_dot, float)
DLF_DOT(difference_dot_double, double)
inline double dot(const double* x, const double* x0, const double* m, Index size) {
    return difference_dot_double(x, x0, m, size);
}
inline float dot(const float* x, const float* x0, const float* m, Index size) { return difference_dot(x, x0, m, size); }

template <typename T>
void run(const T* table, TokenRows given, const T* m, Index size, T* out) {
    const Index *token = given.tokens, *token0 = given.baseline, slots = given.slots;
    torch::stable::parallel_for(0, given.rows, 64, [&](Index begin, Index end) {
        for (Index row = begin; row < end; ++row)
            for (Index i = row * slots; i < (row + 1) * slots; ++i) {
                const Index a = token[i], b = token0[i];
                const bool again = i > row * slots && a == token[i - 1] && b == token0[i - 1];  // padding, mostly
                out[i] = again    ? out[i - 1]
                         : a == b ? T(0)
                                  : dot(table + a * size, table + b * size, m + row * size, size);
            }
    });
}

Tensor contributions(Tensor weight, Tensor tokens, Tensor baseline, Tensor multipliers) {
    const Checked checked("token_contributions", "weight", weight);
    checked.numbers("weight", weight, {any, any});
    checked.indices("tokens", tokens, {any, any});
    checked.indices("baseline", baseline, {tokens.size(0), tokens.size(1)});
    checked.numbers("multipliers", multipliers, {tokens.size(0), weight.size(1)});
    checked.within("tokens", tokens, weight.size(0));
    checked.within("baseline", baseline, weight.size(0));
    Tensor out = torch::stable::new_empty(weight, {tokens.size(0), tokens.size(1)});
    if (tokens.numel() == 0) return out;  // rows without slots may be any number, and take no memory
    const TokenRows rows{integers(tokens), integers(baseline), tokens.size(0), tokens.size(1)};
    if (checked.is_float())
        run(read<float>(weight), rows, read<float>(multipliers), weight.size(1), write<float>(out));
    else
        run(read<double>(weight), rows, read<double>(multipliers), weight.size(1), write<double>(out));
    return out;
}

}  // namespace

void token_contributions(const float* table, TokenRows rows, const float* m, Index size, float* out) {
    run(table, rows, m, size, out);
}
void token_contributions(const double* table, TokenRows rows, const double* m, Index size, double* out) {
    run(table, rows, m, size, out);
}

}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("token_contributions", TORCH_BOX(&deeplift_fast::contributions));
}
