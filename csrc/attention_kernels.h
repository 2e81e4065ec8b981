// What attention does with one sample's numbers.
//
// Scores and probabilities lie as [row][column]; a column is a query of one head.
#pragma once

#include <cstdint>

namespace deeplift_fast {

// softmax: scores to log-probabilities over the rows, and the probabilities; `sums` has room for a number per column.
// pairs: from both streams' log-probabilities, the weights of the values (`p`), and what stands for the probabilities
//   in the softmax's Jacobian (`share`): their logarithmic means, or the probabilities at the input where `half` is 0.
// softmax_back: multipliers of the scores from those of the probabilities, in place: share * (m - sum(share * m) /
//   sum(share)), without what rounding leaves of their sum, which is zero; `sums` has room for three numbers per
//   column.
// mean_of: a + half * (b - a).
// dots: scores = rows · queries, of [rows][wide] and [columns][wide], `wide` being whole vectors.
#define DLF_KERNELS(T)                                                                         \
    void softmax(T* scores, T* p, std::int64_t rows, std::int64_t columns, T* sums);           \
    void pairs(const T* log_p, const T* log_p0, T* p, T* share, std::int64_t size, T half);    \
    void softmax_back(T* m, const T* share, std::int64_t rows, std::int64_t columns, T* sums); \
    void mean_of(const T* a, const T* b, T half, std::int64_t size, T* out);                   \
    void dots(const T* rows, std::int64_t count, const T* queries, std::int64_t columns, std::int64_t wide, T* scores);
DLF_KERNELS(float)
DLF_KERNELS(double)
#undef DLF_KERNELS

}  // namespace deeplift_fast
