// Arithmetic that the compiler vectorises: a vector's sum, exp and expm1 of arguments <= 0, and the loop attributes.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

// One binary for every x86-64 level: the loader picks the widest clone that the processor supports.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DLF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DLF_CLONES
#endif

#if defined(__GNUC__)
#define DLF_INLINE inline __attribute__((always_inline))
#else
#define DLF_INLINE inline
#endif

namespace deeplift_fast {

// The sum of a vector's numbers, by halves. As vectors: from plain numbers the compiler makes one addition for each.
template <typename T, int count>
DLF_INLINE T total(const T* parts) {
    if constexpr (count <= 2) {
        return count == 1 ? parts[0] : parts[0] + parts[1];
    } else {
        typedef T Half __attribute__((vector_size(sizeof(T) * count / 2)));
        Half low, high;
        std::memcpy(&low, parts, sizeof(Half));
        std::memcpy(&high, parts + count / 2, sizeof(Half));
        low += high;
        T halves[count / 2];
        std::memcpy(halves, &low, sizeof(Half));
        return total<T, count / 2>(halves);
    }
}

template <typename T>
struct Exponential {
    T exp;    // e^t
    T expm1;  // e^t - 1, accurate near 0
};

namespace detail {

// t = n ln2 + r with |r| <= ln2/2; `shift` rounds by pushing the fraction out of the significand.
template <typename T>
struct Reduction;

template <>
struct Reduction<float> {
    using Bits = std::int32_t;
    static constexpr float shift = 12582912.0f;  // 1.5 * 2^23
    static constexpr float ln2_high = 0.693359375f;
    static constexpr float ln2_low = -2.12194440e-4f;
    static constexpr float lowest = -87.0f;  // below, e^t is subnormal: taken as 0
    static constexpr int bias = 127, significand = 23, degree = 7;
};

template <>
struct Reduction<double> {
    using Bits = std::int64_t;
    static constexpr double shift = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double ln2_high = 6.93147180369123816490e-01;
    static constexpr double ln2_low = 1.90821492927058770002e-10;
    static constexpr double lowest = -708.0;
    static constexpr int bias = 1023, significand = 52, degree = 13;
};

template <typename T, int k>
constexpr T inverse_factorial() {
    double product = 1.0;
    for (int i = 2; i <= k; ++i) product *= i;
    return static_cast<T>(1.0 / product);
}

// r + r^2/2! + ... + r^degree/degree!, by Horner.
template <typename T, int degree, int k = 1>
DLF_INLINE T series(T r) {
    if constexpr (k == degree)
        return inverse_factorial<T, k>() * r;
    else
        return r * (inverse_factorial<T, k>() + series<T, degree, k + 1>(r));
}

}  // namespace detail

// e^t and e^t - 1 for t <= 0 (NaN in, NaN out).
template <typename T>
DLF_INLINE Exponential<T> exponential(T t) {
    using R = detail::Reduction<T>;
    constexpr T log2e = static_cast<T>(1.44269504088896340736);
    const bool vanishes = t < R::lowest;
    const T bounded = vanishes ? R::lowest : t;
    const T shifted = bounded * log2e + R::shift;
    const T n = shifted - R::shift;
    const T r = (bounded - n * R::ln2_high) - n * R::ln2_low;
    const T m = detail::series<T, R::degree>(r);
    // 2^n from the low bits of `shifted`, which hold n as an integer.
    typename R::Bits bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    bits = static_cast<typename R::Bits>(static_cast<std::make_unsigned_t<typename R::Bits>>(bits + R::bias)
                                         << R::significand);
    T power;
    std::memcpy(&power, &bits, sizeof(power));
    return {vanishes ? T(0) : power + power * m, vanishes ? T(-1) : power * m + (power - T(1))};
}

}  // namespace deeplift_fast
