// Small matrix products for loops over steps: a few rows times a panel of weights in the cache.
//
// out += a · weight. A panel holds, for each k, a few vectors of 64 bytes side by side; a tile of rows × vectors stays
// in registers.
#pragma once

#include <cstdint>

namespace deeplift_fast {

constexpr int vector_bytes = 64;

template <typename T>
constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

// Rows of the left operand: `blocks` runs of `length` numbers, `stride` apart. With `falling`, the last number comes
// first: a product in the opposite direction begins with the weights that the one before it used last.
struct Runs {
    std::int64_t blocks, length, stride;
    bool falling = false;
};

// out[row] += a[row] · weight, for `vectors` vectors of a panel whose rows are `width` numbers apart. The pointers in
// `out` may be moved.
void multiply(const float* const* a, std::int64_t count, Runs runs, const float* weight, std::int64_t width,
              int vectors, float** out);
void multiply(const double* const* a, std::int64_t count, Runs runs, const double* weight, std::int64_t width,
              int vectors, double** out);

}  // namespace deeplift_fast
