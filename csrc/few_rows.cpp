// A few rows times a layer's weights. Each thread reads a part of the weights, once for every two rows.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>

#include "checks.h"
#include "elementwise.h"
#include "gemm.h"
#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::stable::Tensor;
using Index = std::int64_t;

template <typename T>
using Vector __attribute__((vector_size(vector_bytes))) = T;

constexpr Index together = 4;     // rows of weights that are read side by side
constexpr Index least = 1 << 14;  // numbers of weights for one thread

// A matrix whose rows are `stride` numbers apart.
template <typename T>
struct Matrix {
    T* start;
    Index rows, columns, stride;

    T* row(Index i) const { return start + i * stride; }
};

template <typename T>
DLF_INLINE Vector<T> load(const T* from) {
    Vector<T> found;
    __builtin_memcpy(&found, from, vector_bytes);
    return found;
}

// out[row][first + i] = x[row] · weight[first + i] + bias[first + i], for `count` rows of x and of weights.
template <typename T, int rows, int count>
DLF_INLINE void dots(const T* const* x, const Matrix<const T>& weight, const T* bias, Index first, T* const* out) {
    constexpr int n = lanes<T>;
    Vector<T> sum[rows][count] = {};
    const T* w[count];
    for (int i = 0; i < count; ++i) w[i] = weight.row(first + i);
    const Index whole = weight.columns / n * n;
    for (Index k = 0; k < whole; k += n) {
        Vector<T> column[count];
        for (int i = 0; i < count; ++i) column[i] = load(w[i] + k);
        for (int r = 0; r < rows; ++r) {
            const Vector<T> value = load(x[r] + k);
            for (int i = 0; i < count; ++i) sum[r][i] += value * column[i];
        }
    }
    for (int r = 0; r < rows; ++r)
        for (int i = 0; i < count; ++i) {
            T found = total<T, n>(reinterpret_cast<const T*>(&sum[r][i]));
            for (Index k = whole; k < weight.columns; ++k) found += x[r][k] * w[i][k];
            out[r][first + i] = found + bias[first + i];
        }
}

template <typename T, int rows>
DLF_INLINE void dots_of(const T* const* x, const Matrix<const T>& weight, const T* bias, Index begin, Index end,
                        T* const* out) {
    Index i = begin;
    for (; i + together <= end; i += together) dots<T, rows, together>(x, weight, bias, i, out);
    for (; i < end; ++i) dots<T, rows, 1>(x, weight, bias, i, out);
}

template <typename T>
DLF_INLINE void forward_range(const Matrix<const T>& x, const Matrix<const T>& weight, const T* bias, Index begin,
                              Index end, const Matrix<T>& out) {
    for (Index i = 0; i < x.rows; i += 2) {
        const bool two = i + 1 < x.rows;
        const T* from[] = {x.row(i), x.row(two ? i + 1 : i)};
        T* to[] = {out.row(i), out.row(two ? i + 1 : i)};
        if (two)
            dots_of<T, 2>(from, weight, bias, begin, end, to);
        else
            dots_of<T, 1>(from, weight, bias, begin, end, to);
    }
}

// out[row][begin … end] = Σ m[row][i] · weight[i][begin … end], for `rows` rows.
template <typename T, int rows>
DLF_INLINE void sums_of(const T* const* m, const Matrix<const T>& weight, Index begin, Index end, T* const* out) {
    for (int r = 0; r < rows; ++r) std::fill(out[r] + begin, out[r] + end, T(0));
    Index i = 0;
    for (; i + together <= weight.rows; i += together) {
        const T *a = weight.row(i), *b = weight.row(i + 1), *c = weight.row(i + 2), *d = weight.row(i + 3);
#pragma GCC ivdep
        for (Index k = begin; k < end; ++k)
            for (int r = 0; r < rows; ++r)
                out[r][k] += m[r][i] * a[k] + m[r][i + 1] * b[k] + m[r][i + 2] * c[k] + m[r][i + 3] * d[k];
    }
    for (; i < weight.rows; ++i) {
        const T* a = weight.row(i);
#pragma GCC ivdep
        for (Index k = begin; k < end; ++k)
            for (int r = 0; r < rows; ++r) out[r][k] += m[r][i] * a[k];
    }
}

template <typename T>
DLF_INLINE void backward_range(const Matrix<const T>& m, const Matrix<const T>& weight, Index begin, Index end,
                               const Matrix<T>& out) {
    for (Index i = 0; i < m.rows; i += 2) {
        const bool two = i + 1 < m.rows;
        const T* from[] = {m.row(i), m.row(two ? i + 1 : i)};
        T* to[] = {out.row(i), out.row(two ? i + 1 : i)};
        if (two)
            sums_of<T, 2>(from, weight, begin, end, to);
        else
            sums_of<T, 1>(from, weight, begin, end, to);
    }
}

#define DLF_RANGES(T)                                                                                               \
    DLF_CLONES void forward_of(const Matrix<const T>& x, const Matrix<const T>& weight, const T* bias, Index begin, \
                               Index end, const Matrix<T>& out) {                                                   \
        forward_range<T>(x, weight, bias, begin, end, out);                                                         \
    }                                                                                                               \
    DLF_CLONES void backward_of(const Matrix<const T>& m, const Matrix<const T>& weight, Index begin, Index end,    \
                                const Matrix<T>& out) {                                                             \
        backward_range<T>(m, weight, begin, end, out);                                                              \
    }
DLF_RANGES(float)
DLF_RANGES(double)

template <typename T>
Matrix<const T> reading(const Tensor& tensor) {
    return {read<T>(tensor), tensor.size(0), tensor.size(1), tensor.stride(0)};
}

template <typename T>
Matrix<T> writing(Tensor& tensor) {
    return {write<T>(tensor), tensor.size(0), tensor.size(1), tensor.stride(0)};
}

// Rows may be apart, as in a part of a matrix's columns; the numbers of a row are neighbours.
Tensor lined_up(const Tensor& tensor) { return tensor.stride(1) == 1 ? tensor : torch::stable::contiguous(tensor); }

template <typename T>
void forward(const Tensor& x, const Tensor& weight, const Tensor& bias, Tensor& out) {
    const auto rows = reading<T>(x), weights = reading<T>(weight);
    const auto to = writing<T>(out);
    const Index grain = std::max<Index>(together, least / std::max<Index>(1, weights.columns));
    torch::stable::parallel_for(0, weights.rows, grain, [&](Index begin, Index end) {
        forward_of(rows, weights, read<T>(bias), begin, end, to);
    });
}

template <typename T>
void backward(const Tensor& m, const Tensor& weight, Tensor& out) {
    const auto rows = reading<T>(m), weights = reading<T>(weight);
    const auto to = writing<T>(out);
    const Index grain = std::max<Index>(2 * lanes<T>, least / std::max<Index>(1, weights.rows));
    torch::stable::parallel_for(0, weights.columns, grain,
                                [&](Index begin, Index end) { backward_of(rows, weights, begin, end, to); });
}

Tensor few_rows(Tensor x, Tensor weight, Tensor bias) {
    const Checked checked("few_rows", "x", x, /*strided=*/true);
    checked.numbers("x", x, {any, any});
    checked.numbers("weight", weight, {any, x.size(1)});
    checked.numbers("bias", bias, {weight.size(0)});
    x = lined_up(x), weight = lined_up(weight), bias = dense(bias);
    Tensor out = torch::stable::new_empty(x, {x.size(0), weight.size(0)});
    (checked.is_float() ? forward<float> : forward<double>)(x, weight, bias, out);
    return out;
}

Tensor few_rows_backward(Tensor m, Tensor weight) {
    const Checked checked("few_rows_backward", "m", m, /*strided=*/true);
    checked.numbers("m", m, {any, any});
    checked.numbers("weight", weight, {m.size(1), any});
    m = lined_up(m), weight = lined_up(weight);
    Tensor out = torch::stable::new_empty(m, {m.size(0), weight.size(1)});
    (checked.is_float() ? backward<float> : backward<double>)(m, weight, out);
    return out;
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("few_rows", TORCH_BOX(&deeplift_fast::few_rows));
    m.impl("few_rows_backward", TORCH_BOX(&deeplift_fast::few_rows_backward));
}
