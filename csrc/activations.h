// relu, sigmoid and tanh in both streams: values and secant slopes.
//
// The formulas and their derivation stand in deeplift_fast/ops/naive/secant.py.
#pragma once

#include <limits>
#include <type_traits>

#include "elementwise.h"

namespace deeplift_fast {

template <typename T>
DLF_INLINE T magnitude(T a) {
    return a < 0 ? -a : a;
}

// |a - b|, with inf - inf of one sign as 0.
template <typename T>
DLF_INLINE T difference(T a, T b) {
    return a == b ? T(0) : magnitude(a - b);
}

// The logarithmic mean of e^a and e^b, which are `at_a` and `at_b`.
template <typename T>
DLF_INLINE T log_mean(T a, T b, T at_a, T at_b) {
    const T delta = difference(a, b), larger = at_a > at_b ? at_a : at_b;
    return larger * (delta == 0 ? T(1) : -exponential(-delta).expm1 / delta);
}

// What one argument alone gives. `exp` is e^-|x| (sigmoid) or e^-2|x| (tanh), `inverse` is 1/(1 + exp).
template <typename T>
struct Point {
    T x, y, exp, inverse;
};

namespace detail {

// The k-th coefficient of g(u) = (1 - e^-u)/u as a power series around u = 1/2.
template <typename T, int k>
constexpr T decay_coefficient() {
    double sum = 0, power = 1, choose = 1, inverse = 1;  // (1/2)^(j-k), j over k, 1/(j + 1)!
    for (int j = 1; j <= k + 1; ++j) inverse /= j;
    for (int j = k; j < k + 25; ++j) {
        sum += (j % 2 ? -1 : 1) * choose * power * inverse;
        power /= 2, choose *= (j + 1.0) / (j + 1 - k), inverse /= j + 2;
    }
    return static_cast<T>(sum);
}

template <typename T, int degree, int k = 0>
DLF_INLINE T decay_series(T v) {
    if constexpr (k == degree)
        return decay_coefficient<T, k>();
    else
        return decay_coefficient<T, k>() + v * decay_series<T, degree, k + 1>(v);
}

}  // namespace detail

// E * g(u) / ((1 + p)(1 + q)): `u` is the distance of the two exponents. Up to 1 by the series of g; beyond, E * (1 -
// e^-u) is a difference of what is known already and does not cancel.
template <typename T>
DLF_INLINE T logistic_slope(Point<T> a, Point<T> b, T u) {
    constexpr int degree = std::is_same_v<T, float> ? 7 : 13;
    const T p = a.exp, q = b.exp;
    const bool same_sign = (a.x >= 0) == (b.x >= 0);
    const T rise = (same_sign ? magnitude(p - q) : T(1) - p * q) / u;
    const T scale = same_sign ? (p > q ? p : q) : T(1);
    const T near = scale * detail::decay_series<T, degree>(u - T(0.5));
    return (u > T(1) ? rise : near) * (a.inverse * b.inverse);
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
        // a/(a - b) as 1/(1 + |b|/a): no overflow, and right where one side is infinite.
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
        const T p = exponential(-magnitude(x)).exp, inverse = T(1) / (T(1) + p);
        return {x, (x >= 0 ? T(1) : p) * inverse, p, inverse};
    }
    template <typename T>
    static DLF_INLINE T rescale(Point<T> a, Point<T> b) {
        return logistic_slope(a, b, difference(a.x, b.x));
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
        const auto p = exponential(T(-2) * magnitude(x));
        const T inverse = T(1) / (T(1) + p.exp);
        return {x, signed_value(x, p, inverse), p.exp, inverse};
    }
    template <typename T>
    static DLF_INLINE T rescale(Point<T> a, Point<T> b) {
        return T(4) * logistic_slope(a, b, T(2) * difference(a.x, b.x));
    }
    template <typename T>
    static DLF_INLINE T derivative(T, T y) {
        // PyHealth rounds the square before it takes it from 1. The comparison, a second use, keeps the compiler from
        // fusing the two.
        const T square = y * y;
        return square < T(1) ? T(1) - square : T(0);
    }
    template <typename T>
    static DLF_INLINE T backward(T, T y) {
        return (T(1) - y) * (T(1) + y);
    }
    // tanh|a| = (1 - p)/(1 + p) with p = e^-2|a|. Far from 0 as 1 - 2p/(1 + p), rounded once: PyHealth's arithmetic
    // turns on whether 1 - y*y is 0, so where y becomes 1 must be right to the last bit.
    template <typename T>
    static DLF_INLINE T signed_value(T a, Exponential<T> p, T inverse) {
        const T size = p.exp < T(0.25) ? T(1) - T(2) * p.exp * inverse : -p.expm1 * inverse;
        return a < 0 ? -size : size;
    }
};

// PyHealth 2.1's `scale * derivative`, with its eps: it divides by a derivative of its own and multiplies by
// autograd's.
template <typename T, typename Function>
DLF_INLINE T pyhealth(Point<T> a, Point<T> b) {
    constexpr T eps = T(1e-7), largest = std::numeric_limits<T>::max();
    const T derivative = Function::derivative(a.x, a.y), delta = a.x - b.x;
    const T slope = magnitude(delta) > eps ? (a.y - b.y) / delta : derivative;
    const T quotient = magnitude(derivative) > eps ? slope / derivative : T(1);
    const T scale = magnitude(quotient) <= largest ? quotient : T(1);
    return a.x != a.x || b.x != b.x ? a.x + b.x : scale * Function::backward(a.x, a.y);
}

}  // namespace deeplift_fast
