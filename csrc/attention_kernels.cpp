#include "attention_kernels.h"

#include <cmath>
#include <limits>

#include "activations.h"
#include "gemm.h"

namespace deeplift_fast {
namespace {

using Index = std::int64_t;

template <typename T>
DLF_INLINE void normalise(T* __restrict scores, Index rows, Index width, T* __restrict sums) {
    T* largest = sums + width;
    for (Index g = 0; g < width; ++g) largest[g] = -std::numeric_limits<T>::infinity();
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) {
            const T score = scores[r * width + g];
            largest[g] = score > largest[g] ? score : largest[g];
        }
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) scores[r * width + g] -= largest[g];
    for (Index i = 0; i < rows * width; ++i) scores[i] = exponential(scores[i]).exp;
    for (Index g = 0; g < width; ++g) sums[g] = 0;
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) sums[g] += scores[r * width + g];
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) scores[r * width + g] /= sums[g];
    for (Index g = 0; g < width; ++g) sums[g] = largest[g] + std::log(sums[g]);
}

template <typename T>
DLF_INLINE void pair_up(const T* __restrict log_p, const T* __restrict log_p0, T* __restrict p, T* __restrict share,
                        Index size, T half) {
    const bool midpoint = half != 0;
    for (Index i = 0; i < size; ++i) {
        const T a = log_p[i], b = log_p0[i], at_input = exponential(a).exp;
        const T at_baseline = exponential(b).exp;
        p[i] = at_input + half * (at_baseline - at_input);
        share[i] = midpoint ? log_mean(a, b, at_input, at_baseline) : at_input;
    }
}

template <typename T>
DLF_INLINE void scores_back(T* __restrict m, const T* __restrict share, Index rows, Index width, T* __restrict sums) {
    T *totals = sums + width, *rest = totals + width;
    for (Index g = 0; g < 3 * width; ++g) sums[g] = 0;
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) {
            sums[g] += share[r * width + g] * m[r * width + g];
            totals[g] += share[r * width + g];
        }
    for (Index g = 0; g < width; ++g) totals[g] = totals[g] > 0 ? T(1) / totals[g] : T(0);
    for (Index g = 0; g < width; ++g) sums[g] *= totals[g];
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) {
            m[r * width + g] -= sums[g];
            rest[g] += share[r * width + g] * m[r * width + g];
        }
    for (Index g = 0; g < width; ++g) rest[g] *= totals[g];
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) m[r * width + g] = share[r * width + g] * (m[r * width + g] - rest[g]);
}

template <typename T>
DLF_INLINE void dot_products(const T* __restrict rows, Index count, const T* __restrict queries, Index groups,
                             Index wide, T* __restrict scores) {
    for (Index r = 0; r < count; ++r, rows += wide)
        for (Index g = 0; g < groups; ++g) {
            const T* query = queries + g * wide;
            T parts[lanes<T>] = {};
            for (Index i = 0; i < wide; i += lanes<T>)
                for (int lane = 0; lane < lanes<T>; ++lane) parts[lane] += rows[i + lane] * query[i + lane];
            *scores++ = total<T, lanes<T>>(parts);
        }
}

}  // namespace

// Not templates: a function template cannot carry target_clones.
#define DLF_KERNELS(T)                                                                                                \
    DLF_CLONES void softmax(T* scores, Index rows, Index width, T* sums) { normalise<T>(scores, rows, width, sums); } \
    DLF_CLONES void pairs(const T* log_p, const T* log_p0, T* p, T* share, Index size, T half) {                      \
        pair_up<T>(log_p, log_p0, p, share, size, half);                                                              \
    }                                                                                                                 \
    DLF_CLONES void softmax_back(T* m, const T* share, Index rows, Index width, T* sums) {                            \
        scores_back<T>(m, share, rows, width, sums);                                                                  \
    }                                                                                                                 \
    DLF_CLONES void mean_of(const T* a, const T* __restrict b, T half, Index size, T* out) {                          \
        for (Index i = 0; i < size; ++i) out[i] = a[i] + half * (b[i] - a[i]);                                        \
    }                                                                                                                 \
    DLF_CLONES void dots(const T* rows, Index count, const T* queries, Index groups, Index wide, T* scores) {         \
        dot_products<T>(rows, count, queries, groups, wide, scores);                                                  \
    }
DLF_KERNELS(float)
DLF_KERNELS(double)

}  // namespace deeplift_fast
