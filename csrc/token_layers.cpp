// The mean of a sample's embeddings, a linear layer, an activation and a linear layer, for both streams of few samples,
// whose calls of one operation after the other would cost more than the arithmetic.
//
// deeplift_fast/ops/naive/token_layers.py has the formulas.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "activations.h"
#include "checks.h"
#include "tensors.h"
#include "token_contributions.h"

namespace deeplift_fast {
namespace {

using torch::stable::Tensor;
using Index = std::int64_t;

// Templates that the clones below hold. A layer's weights are [size, inputs]: y = bias + weight . x for each row.
template <typename T>
DLF_INLINE void linear_loop(const T* x, Index rows, const T* weight, const T* bias, Index size, Index inputs, T* y) {
    constexpr int lanes = 64 / sizeof(T);
    for (Index j = 0; j < size; ++j)
        for (Index row = 0; row < rows; ++row) {
            const T *a = x + row * inputs, *b = weight + j * inputs;
            T sums[lanes] = {}, rest = bias[j];
            Index i = 0;
            for (; i + lanes <= inputs; i += lanes)
                for (int lane = 0; lane < lanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
            for (; i < inputs; ++i) rest += a[i] * b[i];
            y[row * size + j] = rest + total<T, lanes>(sums);
        }
}

// The multipliers of a layer's inputs: m_x = m . weight for each row.
template <typename T>
DLF_INLINE void back_loop(const T* m, Index rows, const T* weight, Index size, Index inputs, T* m_x) {
    std::fill(m_x, m_x + rows * inputs, T(0));
    for (Index j = 0; j < size; ++j)
        for (Index row = 0; row < rows; ++row) {
            const T by = m[row * size + j];
            for (Index i = 0; i < inputs; ++i) m_x[row * inputs + i] += by * weight[j * inputs + i];
        }
}

// The sum of a row's embeddings, divided by the number of real tokens.
template <typename T>
DLF_INLINE void mean_loop(const T* table, const Index* tokens, Index slots, T count, Index size, T* to) {
    std::fill(to, to + size, T(0));
    for (Index slot = 0; slot < slots; ++slot)
        for (Index i = 0; i < size; ++i) to[i] += table[tokens[slot] * size + i];
    for (Index i = 0; i < size; ++i) to[i] /= count;
}

// An activation in both streams, in place, and its multiplier.
template <typename Function, typename T>
DLF_INLINE void secant_loop(T* x, T* x0, T* slope, Index count, bool rescale) {
    for (Index i = 0; i < count; ++i) {
        const Point<T> a = Function::at(x[i]), b = Function::at(x0[i]);
        x[i] = a.y, x0[i] = b.y;
        slope[i] = rescale ? Function::rescale(a, b) : pyhealth<T, Function>(a, b);
    }
}

// Not templates: a function template cannot carry target_clones.
#define DLF_LOOPS(T)                                                                                                 \
    DLF_CLONES void linear(const T* x, Index rows, const T* weight, const T* bias, Index size, Index inputs, T* y) { \
        linear_loop(x, rows, weight, bias, size, inputs, y);                                                         \
    }                                                                                                                \
    DLF_CLONES void back(const T* m, Index rows, const T* weight, Index size, Index inputs, T* m_x) {                \
        back_loop(m, rows, weight, size, inputs, m_x);                                                               \
    }                                                                                                                \
    DLF_CLONES void mean(const T* table, const Index* tokens, Index slots, T count, Index size, T* to) {             \
        mean_loop(table, tokens, slots, count, size, to);                                                            \
    }                                                                                                                \
    DLF_CLONES void relu(T* x, T* x0, T* slope, Index count, bool rescale) {                                         \
        secant_loop<Relu>(x, x0, slope, count, rescale);                                                             \
    }                                                                                                                \
    DLF_CLONES void sigmoid(T* x, T* x0, T* slope, Index count, bool rescale) {                                      \
        secant_loop<Sigmoid>(x, x0, slope, count, rescale);                                                          \
    }                                                                                                                \
    DLF_CLONES void tanh(T* x, T* x0, T* slope, Index count, bool rescale) {                                         \
        secant_loop<Tanh>(x, x0, slope, count, rescale);                                                             \
    }

DLF_LOOPS(float)
DLF_LOOPS(double)

// A batch's tokens and embeddings.
struct Tokens {
    Tensor table, tokens, baseline, real;

    Index rows() const { return tokens.size(0); }
    Index slots() const { return tokens.size(1); }
    Index size() const { return table.size(1); }

    void require(const Checked& checked) const {
        checked.numbers("table", table, {any, any});
        checked.indices("tokens", tokens, {any, any});
        checked.indices("baseline", baseline, {rows(), slots()});
        checked.flags("real", real, {rows(), slots()});
        checked.within("tokens", tokens, table.size(0));
        checked.within("baseline", baseline, table.size(0));
    }

    // The number of a row's real tokens.
    Index count(Index row) const {
        const bool* first = read<bool>(real) + row * slots();
        return std::count(first, first + slots(), true);
    }
};

// The points at `end` (first) and at `begin` of the line from the baseline's mean, 0, to the input's, 1.
template <typename T>
void means(const Tokens& given, double begin, double end, T* to) {
    const Index rows = given.rows(), slots = given.slots(), size = given.size();
    T *x = to, *x0 = to + rows * size;
    for (Index row = 0; row < rows; ++row, x += size, x0 += size) {
        const T count = static_cast<T>(given.count(row));
        mean(read<T>(given.table), integers(given.tokens) + row * slots, slots, count, size, x);
        mean(read<T>(given.table), integers(given.baseline) + row * slots, slots, count, size, x0);
        if (begin == 0 && end == 1) continue;
        for (Index i = 0; i < size; ++i) {
            const T from = x0[i], step = x[i] - from;
            x[i] = from + static_cast<T>(end) * step;
            x0[i] = from + static_cast<T>(begin) * step;
        }
    }
}

template <typename T>
void run(const Tokens& given, const Tensor& weight, const Tensor& bias, const Tensor& weight2, const Tensor& bias2,
         double begin, double end, const std::string& function, bool rescale, Tensor& out, Tensor& slope) {
    const Index rows = given.rows(), size = given.size(), hidden = weight.size(0);
    std::vector<T> pooled(2 * rows * size), inner(2 * rows * hidden);
    means(given, begin, end, pooled.data());
    linear(pooled.data(), 2 * rows, read<T>(weight), read<T>(bias), hidden, size, inner.data());
    using Secant = void (*)(T*, T*, T*, Index, bool);
    const Secant secant = function == "relu" ? Secant(relu) : function == "sigmoid" ? Secant(sigmoid) : Secant(tanh);
    secant(inner.data(), inner.data() + rows * hidden, write<T>(slope), rows * hidden, rescale);
    linear(inner.data(), 2 * rows, read<T>(weight2), read<T>(bias2), weight2.size(0), hidden, write<T>(out));
}

std::tuple<Tensor, Tensor> token_layers(Tensor table, Tensor tokens, Tensor baseline, Tensor real, Tensor weight,
                                        Tensor bias, Tensor weight2, Tensor bias2, double begin, double end,
                                        std::string function, std::string variant) {
    const Checked checked("token_layers", "table", table);
    const Tokens given{table, tokens, baseline, real};
    given.require(checked);
    checked.numbers("weight", weight, {any, given.size()});
    checked.numbers("bias", bias, {weight.size(0)});
    checked.numbers("weight2", weight2, {any, weight.size(0)});
    checked.numbers("bias2", bias2, {weight2.size(0)});
    STD_TORCH_CHECK(function == "relu" || function == "sigmoid" || function == "tanh", "token_layers: function is '",
                    function, "'; accepted: relu, sigmoid, tanh");
    STD_TORCH_CHECK(variant == "rescale" || variant == "pyhealth", "token_layers: variant is '", variant,
                    "'; accepted: rescale, pyhealth");
    Tensor out = torch::stable::new_empty(table, {2 * given.rows(), weight2.size(0)});
    Tensor slope = torch::stable::new_empty(table, {given.rows(), weight.size(0)});
    if (out.numel() + slope.numel() == 0) return {out, slope};  // rows without numbers may be any number
    (checked.is_float() ? run<float> : run<double>)(given, weight, bias, weight2, bias2, begin, end, function,
                                                    variant == "rescale", out, slope);
    return {out, slope};
}

template <typename T>
void run_back(const Tensor& m, const Tensor& weight2, const Tensor& slope, const Tensor& weight, const Tokens& given,
              Tensor& out) {
    const Index rows = given.rows(), size = given.size(), hidden = weight.size(0), seeds = m.size(0);
    std::vector<T> inner(seeds * hidden), by_row(rows * hidden), pooled(rows * size);
    back(read<T>(m), seeds, read<T>(weight2), weight2.size(0), hidden, inner.data());
    const T* slopes = read<T>(slope);
    for (Index row = 0; row < rows; ++row)
        for (Index i = 0; i < hidden; ++i)
            by_row[row * hidden + i] = inner[(seeds == 1 ? 0 : row) * hidden + i] * slopes[row * hidden + i];
    back(by_row.data(), rows, read<T>(weight), hidden, size, pooled.data());
    for (Index row = 0; row < rows; ++row)
        for (Index i = 0; i < size; ++i) pooled[row * size + i] /= static_cast<T>(given.count(row));
    token_contributions(read<T>(given.table), {integers(given.tokens), integers(given.baseline), rows, given.slots()},
                        pooled.data(), size, write<T>(out));
}

Tensor token_layers_backward(Tensor m, Tensor weight2, Tensor slope, Tensor weight, Tensor table, Tensor tokens,
                             Tensor baseline, Tensor real) {
    const Checked checked("token_layers_backward", "m", m);
    const Tokens given{table, tokens, baseline, real};
    given.require(checked);
    checked.numbers("weight", weight, {any, given.size()});
    checked.numbers("weight2", weight2, {any, weight.size(0)});
    checked.numbers("slope", slope, {given.rows(), weight.size(0)});
    checked.numbers("m", m, {m.size(0) == 1 ? 1 : given.rows(), weight2.size(0)});
    Tensor out = torch::stable::new_empty(table, {given.rows(), given.slots()});
    if (tokens.numel() == 0) return out;
    (checked.is_float() ? run_back<float> : run_back<double>)(m, weight2, slope, weight, given, out);
    return out;
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("token_layers", TORCH_BOX(&deeplift_fast::token_layers));
    m.impl("token_layers_backward", TORCH_BOX(&deeplift_fast::token_layers_backward));
}
