// relu, sigmoid and tanh in both streams: values and secant slopes.
//
// deeplift_fast/ops/naive/secant.py has the formulas and their derivation.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "elementwise.h"

namespace deeplift_fast {

// |a - b|, with inf - inf of one sign as 0.
template <typename T>
DLF_INLINE T difference(T a, T b) {
    return a == b ? T(0) : std::fabs(a - b);
}

// The logarithmic mean of e^a and e^b, which are `at_a` and `at_b`.
template <typename T>
DLF_INLINE T log_mean(T a, T b, T at_a, T at_b) {
    const T delta = difference(a, b), larger = at_a > at_b ? at_a : at_b;
    return larger * (delta == 0 ? T(1) : -exponential(-delta).expm1 / delta);
}

// The parts of a slope that depend on one argument: `tail` is the distance of y from the nearer of its limits, and
// `root` is the square root of the derivative, 1/(2 cosh(x/2)) (sigmoid) or 1/cosh x (tanh).
template <typename T>
struct Point {
    T x, y, tail, root;
};

namespace detail {

// sinh(v)/v = 1 + v^2/3! + v^4/5! + ... from `square` = parts * v^2, for |v| <= 1/2; `scale` is parts^k.
template <typename T, int parts, int k = 0, int scale = 1>
DLF_INLINE T sinh_series(T square) {
    constexpr int degree = std::is_same_v<T, float> ? 3 : 6;
    constexpr T coefficient = inverse_factorial<T, 2 * k + 1>() / scale;
    if constexpr (k == degree)
        return coefficient;
    else
        return coefficient + square * sinh_series<T, parts, k + 1, scale * parts>(square);
}

}  // namespace detail

// (y_a - y_b)/(a - b). For close arguments it is 1/cosh * 1/cosh * sinh(v)/v, with v the distance (tanh) or half of it.
// For others it is a difference of y or, on the same side of 0, of the distances from their common limit, which does
// not cancel.
template <typename T, int parts>
DLF_INLINE T logistic_slope(Point<T> a, Point<T> b) {
    const T delta = a.x == b.x ? T(0) : a.x - b.x, square = delta * delta;
    const bool same_sign = a.x * b.x >= 0;
    const T rise = (same_sign ? a.tail : a.y) - (same_sign ? b.tail : b.y);
    const T near = a.root * b.root * detail::sinh_series<T, parts>(square);
    return square > T(parts) / 4 ? std::fabs(rise / delta) : near;
}

struct Relu {
    template <typename T>
    static DLF_INLINE Point<T> at(T x) {
        return {x, value(x), T(0), T(0)};
    }
    template <typename T>
    static DLF_INLINE T rescale(Point<T> at_a, Point<T> at_b) {
        constexpr T infinity = std::numeric_limits<T>::infinity();
        const T a = at_a.x, b = at_b.x;
        const T above = a > b ? a : b;
        const T below = a > b ? -b : -a;
        // a/(a - b) as 1/(1 + |b|/a): no overflow, and correct for an infinite a or b.
        const T ratio = (above == infinity && below == infinity) ? T(1) : below / above;
        const T crossing = T(1) / (T(1) + ratio);
        const T slope = above <= 0 ? T(0) : (below < 0 ? T(1) : crossing);
        return a != a || b != b ? a + b : slope;
    }
    template <typename T>
    static DLF_INLINE T value(T a) {
        return a <= 0 ? T(0) : a;
    }
    template <typename T>
    static DLF_INLINE T derivative(T a, T) {
        return a > 0 ? T(1) : T(0);
    }
    template <typename T>
    static DLF_INLINE T backward(T a, T y) {
        return derivative(a, y);
    }
};

struct Sigmoid {
    template <typename T>
    static DLF_INLINE Point<T> at(T x) {
        const T p = exponential(-std::fabs(x)).exp, inverse = T(1) / (T(1) + p);
        const T tail = p * inverse;
        return {x, x >= 0 ? inverse : tail, tail, std::sqrt(p) * inverse};
    }
    template <typename T>
    static DLF_INLINE T rescale(Point<T> a, Point<T> b) {
        return logistic_slope<T, 4>(a, b);
    }
    template <typename T>
    static DLF_INLINE T derivative(T, T y) {
        return y * (T(1) - y);
    }
    template <typename T>
    static DLF_INLINE T backward(T a, T y) {
        return derivative(a, y);
    }
};

struct Tanh {
    template <typename T>
    static DLF_INLINE Point<T> at(T x) {
        const auto p = exponential(T(-2) * std::fabs(x));
        const T inverse = T(1) / (T(1) + p.exp);
        return {x, signed_value(x, p, inverse), T(2) * p.exp * inverse, T(2) * std::sqrt(p.exp) * inverse};
    }
    template <typename T>
    static DLF_INLINE T rescale(Point<T> a, Point<T> b) {
        return logistic_slope<T, 1>(a, b);
    }
    template <typename T>
    static DLF_INLINE T derivative(T, T y) {
        // PyHealth rounds the square before it computes 1 - y*y. The comparison, a second use, keeps the compiler from
        // fusing the two.
        const T square = y * y;
        return square < T(1) ? T(1) - square : T(0);
    }
    template <typename T>
    static DLF_INLINE T backward(T, T y) {
        return (T(1) - y) * (T(1) + y);
    }
    // tanh|a| = (1 - p)/(1 + p) with p = e^-2|a|; far from 0 as 1 - 2p/(1 + p), rounded once. PyHealth's arithmetic
    // depends on whether 1 - y*y is 0, so y must become 1 at exactly the right a.
    template <typename T>
    static DLF_INLINE T signed_value(T a, Exponential<T> p, T inverse) {
        const T size = p.exp < T(0.25) ? T(1) - T(2) * p.exp * inverse : -p.expm1 * inverse;
        return std::copysign(size, a);
    }
};

// Multipliers of a softmax's arguments from those of its probabilities, in place: share * (m - sum(share * m) /
// sum(share)), which sums to zero. A remainder from rounding is subtracted in the same shares.
template <typename T>
DLF_INLINE void softmax_back(T* m, const T* share, std::int64_t size) {
    T total = 0, average = 0, rest = 0;
    for (std::int64_t i = 0; i < size; ++i) total += share[i], average += share[i] * m[i];
    average /= total;
    for (std::int64_t i = 0; i < size; ++i) m[i] -= average, rest += share[i] * m[i];
    rest /= total;
    for (std::int64_t i = 0; i < size; ++i) m[i] = share[i] * (m[i] - rest);
}

// PyHealth 2.1's `scale * derivative`, with its eps. It divides by its own derivative and multiplies by autograd's.
template <typename T, typename Function>
DLF_INLINE T pyhealth(Point<T> a, Point<T> b) {
    constexpr T eps = T(1e-7), largest = std::numeric_limits<T>::max();
    const T derivative = Function::derivative(a.x, a.y), delta = a.x - b.x;
    const T slope = std::fabs(delta) > eps ? (a.y - b.y) / delta : derivative;
    const T quotient = std::fabs(derivative) > eps ? slope / derivative : T(1);
    const T scale = std::fabs(quotient) <= largest ? quotient : T(1);
    return a.x != a.x || b.x != b.x ? a.x + b.x : scale * Function::backward(a.x, a.y);
}

}  // namespace deeplift_fast
