// relu, sigmoid and tanh in both streams: values and secant slopes.
//
// The formulas and their derivation stand in deeplift_fast/ops/naive/secant.py.
#pragma once

#include <limits>

#include "elementwise.h"

namespace deeplift_fast {

template <typename T>
struct Secant {
    T y, y0, multiplier;
};

template <typename T>
DLF_INLINE T magnitude(T a) {
    return a < 0 ? -a : a;
}

// |a - b|, with inf - inf of one sign as 0.
template <typename T>
DLF_INLINE T difference(T a, T b) {
    return a == b ? T(0) : magnitude(a - b);
}

// E * g(u) / ((1 + p)(1 + q)), given the reciprocals of the two factors below the line.
template <typename T>
DLF_INLINE T logistic_slope(T a, T b, T p, T q, T inverse_p, T inverse_q) {
    const T u = difference(a, b);
    const T scale = (a >= 0) == (b >= 0) ? (p > q ? p : q) : T(1);
    const T rise = -exponential(-u).expm1;
    const T decay = u == 0 ? T(1) : rise / u;
    return scale * decay * (inverse_p * inverse_q);
}

struct Relu {
    template <typename T>
    static DLF_INLINE Secant<T> rescale(T a, T b) {
        constexpr T infinity = std::numeric_limits<T>::infinity();
        const T above = a > b ? a : b;
        const T below = a > b ? -b : -a;
        // a/(a - b) as 1/(1 + |b|/a): no overflow, and right where one side is infinite.
        const T ratio = (above == infinity && below == infinity) ? T(1) : below / above;
        const T crossing = T(1) / (T(1) + ratio);
        const T slope = above <= 0 ? T(0) : (below < 0 ? T(1) : crossing);
        return {value(a), value(b), a != a || b != b ? a + b : slope};
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
    static DLF_INLINE Secant<T> rescale(T a, T b) {
        const T p = exponential(-magnitude(a)).exp, q = exponential(-magnitude(b)).exp;
        const T inverse_p = T(1) / (T(1) + p), inverse_q = T(1) / (T(1) + q);
        return {(a >= 0 ? T(1) : p) * inverse_p, (b >= 0 ? T(1) : q) * inverse_q,
                logistic_slope(a, b, p, q, inverse_p, inverse_q)};
    }
    template <typename T>
    static DLF_INLINE T value(T a) {
        const T p = exponential(-magnitude(a)).exp;
        return (a >= 0 ? T(1) : p) / (T(1) + p);
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
    static DLF_INLINE Secant<T> rescale(T a, T b) {
        const auto p = exponential(T(-2) * magnitude(a)), q = exponential(T(-2) * magnitude(b));
        const T inverse_p = T(1) / (T(1) + p.exp), inverse_q = T(1) / (T(1) + q.exp);
        return {signed_value(a, p, inverse_p), signed_value(b, q, inverse_q),
                T(4) * logistic_slope(T(2) * a, T(2) * b, p.exp, q.exp, inverse_p, inverse_q)};
    }
    template <typename T>
    static DLF_INLINE T value(T a) {
        const auto p = exponential(T(-2) * magnitude(a));
        return signed_value(a, p, T(1) / (T(1) + p.exp));
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
DLF_INLINE Secant<T> pyhealth(T a, T b) {
    constexpr T eps = T(1e-7), largest = std::numeric_limits<T>::max();
    const T y = Function::value(a), y0 = Function::value(b);
    const T derivative = Function::derivative(a, y), delta = a - b;
    const T slope = magnitude(delta) > eps ? (y - y0) / delta : derivative;
    const T quotient = magnitude(derivative) > eps ? slope / derivative : T(1);
    const T scale = magnitude(quotient) <= largest ? quotient : T(1);
    return {y, y0, a != a || b != b ? a + b : scale * Function::backward(a, y)};
}

}  // namespace deeplift_fast
