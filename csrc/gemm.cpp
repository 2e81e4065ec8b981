// A tile of rows × vectors of the product stays in registers.
#include "gemm.h"

#include "elementwise.h"

namespace deeplift_fast {
namespace {

template <typename T>
using Vector __attribute__((vector_size(vector_bytes))) = T;

template <typename T, int rows, int vectors>
DLF_INLINE void tile(const T* const* a, Runs runs, const T* weight, std::int64_t width, T* const* out) {
    Vector<T> sum[rows][vectors];
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) __builtin_memcpy(&sum[r][v], out[r] + v * lanes<T>, vector_bytes);
    const std::int64_t all = runs.blocks * runs.length, step = runs.falling ? -1 : 1;
    if (runs.falling && all > 0) weight += (all - 1) * width;
    for (std::int64_t block = 0; block < runs.blocks; ++block) {
        std::int64_t place =
            runs.falling ? (runs.blocks - 1 - block) * runs.stride + runs.length - 1 : block * runs.stride;
        for (std::int64_t k = 0; k < runs.length; ++k, weight += step * width, place += step) {
            Vector<T> w[vectors];
            for (int v = 0; v < vectors; ++v) __builtin_memcpy(&w[v], weight + v * lanes<T>, vector_bytes);
            for (int r = 0; r < rows; ++r) {
                const T scalar = a[r][place];
                for (int v = 0; v < vectors; ++v) sum[r][v] += scalar * w[v];
            }
        }
    }
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) __builtin_memcpy(out[r] + v * lanes<T>, &sum[r][v], vector_bytes);
}

template <typename T, int vectors>
DLF_INLINE void strip(const T* const* a, std::int64_t count, Runs runs, const T* weight, std::int64_t width,
                      T* const* out) {
    std::int64_t row = 0;
    for (; row + 6 <= count; row += 6) tile<T, 6, vectors>(a + row, runs, weight, width, out + row);
    switch (count - row) {
        case 5:
            return tile<T, 5, vectors>(a + row, runs, weight, width, out + row);
        case 4:
            return tile<T, 4, vectors>(a + row, runs, weight, width, out + row);
        case 3:
            return tile<T, 3, vectors>(a + row, runs, weight, width, out + row);
        case 2:
            return tile<T, 2, vectors>(a + row, runs, weight, width, out + row);
        case 1:
            return tile<T, 1, vectors>(a + row, runs, weight, width, out + row);
        default:
            return;
    }
}

// Four vectors at once take 24 registers of 64 bytes. Processors with smaller registers take one at a time.
template <typename T>
DLF_INLINE void product(const T* const* a, std::int64_t count, Runs runs, const T* weight, std::int64_t width,
                        int vectors, T** out, bool wide) {
    if (wide && vectors == 4) return strip<T, 4>(a, count, runs, weight, width, out);
    if (wide && vectors == 3) return strip<T, 3>(a, count, runs, weight, width, out);
    for (int v = 0; v < vectors; ++v) {
        strip<T, 1>(a, count, runs, weight + v * lanes<T>, width, out);
        for (std::int64_t row = 0; row < count; ++row) out[row] += lanes<T>;
    }
}

bool has_wide_registers() {
#if defined(__x86_64__) && defined(__GNUC__)
    static const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    return wide;
#else
    return false;
#endif
}

}  // namespace

DLF_CLONES void multiply(const float* const* a, std::int64_t count, Runs runs, const float* weight, std::int64_t width,
                         int vectors, float** out) {
    product(a, count, runs, weight, width, vectors, out, has_wide_registers());
}
DLF_CLONES void multiply(const double* const* a, std::int64_t count, Runs runs, const double* weight,
                         std::int64_t width, int vectors, double** out) {
    product(a, count, runs, weight, width, vectors, out, has_wide_registers());
}

}  // namespace deeplift_fast
