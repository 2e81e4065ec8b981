// The arithmetic of attention for one sample.
//
// Scores and probabilities are [row][column]; a column is a query of one head.
#pragma once

#include <cstdint>

namespace deeplift_fast {

// softmax: turns scores into probabilities over the rows; `sums` gets, for each column, the logarithm of the sum of the
//   scores' exponentials, and holds two numbers per column.
// pairs: from both streams' log-probabilities, the weights of the values (`p`) and the shares of the softmax's
//   Jacobian (`share`): logarithmic means, or the probabilities at the input if `half` is 0.
// softmax_back: multipliers of the scores from those of the probabilities, in place: share * (m - sum(share * m) /
//   sum(share)), corrected so that they sum to zero; `sums` holds three numbers per column.
// mean_of: a + half * (b - a).
// dots: scores = rows · queries, of [rows][wide] and [columns][wide], `wide` being whole vectors.
#define DLF_KERNELS(T)                                                                         \
    void softmax(T* scores, std::int64_t rows, std::int64_t columns, T* sums);                 \
    void pairs(const T* log_p, const T* log_p0, T* p, T* share, std::int64_t size, T half);    \
    void softmax_back(T* m, const T* share, std::int64_t rows, std::int64_t columns, T* sums); \
    void mean_of(const T* a, const T* b, T half, std::int64_t size, T* out);                   \
    void dots(const T* rows, std::int64_t count, const T* queries, std::int64_t columns, std::int64_t wide, T* scores);
DLF_KERNELS(float)
DLF_KERNELS(double)
#undef DLF_KERNELS

}  // namespace deeplift_fast
