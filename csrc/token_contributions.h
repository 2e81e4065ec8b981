// Contributions of pooled tokens, on plain arrays.
#pragma once

#include <cstdint>

namespace deeplift_fast {

// The tokens of `rows` rows with `slots` tokens each, at the input and at the baseline.
struct TokenRows {
    const std::int64_t *tokens, *baseline;
    std::int64_t rows, slots;
};

// out[row, slot] = (table[token] - table[baseline token]) . m[row], for embeddings of `size` numbers.
void token_contributions(const float* table, TokenRows rows, const float* m, std::int64_t size, float* out);
void token_contributions(const double* table, TokenRows rows, const double* m, std::int64_t size, double* out);

}  // namespace deeplift_fast
