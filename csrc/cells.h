// One step of a recurrent layer for a panel of units, in both streams, and its multipliers.
//
// The operations follow the order of PyTorch's and PyHealth's own code. deeplift_fast/ops/naive/recurrent.py has the
// formulas of the coefficients.
#pragma once

#include "activations.h"
#include "gemm.h"

namespace deeplift_fast {

// The kind of the activations' own multipliers.
enum class Slope { secant, derivative, pyhealth };

// An activation in both streams.
template <typename T>
struct Secant {
    T y, y0, multiplier;
};

template <typename T, typename Function, Slope slope>
DLF_INLINE Secant<T> activation(T x, Point<T> b) {
    const Point<T> a = Function::at(x);
    if constexpr (slope == Slope::secant)
        return {a.y, b.y, Function::rescale(a, b)};
    else if constexpr (slope == Slope::pyhealth)
        return {a.y, b.y, pyhealth<T, Function>(a, b)};
    else
        return {a.y, b.y, Function::backward(x, a.y)};
}

// The activations of a row of the baseline, computed once for all rows of the input that use it:
// `[activation][field][lane]`.
template <typename T>
struct Points {
    T* numbers;

    template <typename Function>
    DLF_INLINE T set(int activation, int lane, T x) const {
        const Point<T> point = Function::at(x);
        T* to = numbers + activation * 4 * lanes<T> + lane;
        to[0] = point.x, to[lanes<T>] = point.y, to[2 * lanes<T>] = point.tail, to[3 * lanes<T>] = point.root;
        return point.y;
    }
    DLF_INLINE Point<T> get(int activation, int lane) const {
        const T* from = numbers + activation * 4 * lanes<T> + lane;
        return {from[0], from[lanes<T>], from[2 * lanes<T>], from[3 * lanes<T>]};
    }
};

// The operand in the multiplier of a product's other factor: half-way between the streams, or the input's.
template <typename T>
DLF_INLINE T between(T a, T b, T half) {
    return a + half * (b - a);
}

// A state that one stream carries from step to step.
template <typename T>
struct State {
    T h, c;
};

// The master gates of StageNet at one row: forget and input.
template <typename T>
struct Masters {
    T forget, input;
};

// Forget, input, output and new gate, as StageNet and LSTM have them, with the multipliers of h and c that reach them.
template <typename T>
struct FourGates {
    Secant<T> f, i, o, g;

    struct Values {
        T f, i, o, g;
    };
    static DLF_INLINE Values values(const T* z, int lane, Points<T> points) {
        constexpr int n = lanes<T>;
        return {points.template set<Sigmoid>(0, lane, z[lane]), points.template set<Sigmoid>(1, lane, z[n + lane]),
                points.template set<Sigmoid>(2, lane, z[2 * n + lane]),
                points.template set<Tanh>(3, lane, z[3 * n + lane])};
    }

    template <Slope slope>
    static DLF_INLINE FourGates both(const T* z, Points<T> baseline, int lane) {
        constexpr int n = lanes<T>;
        return {activation<T, Sigmoid, slope>(z[lane], baseline.get(0, lane)),
                activation<T, Sigmoid, slope>(z[n + lane], baseline.get(1, lane)),
                activation<T, Sigmoid, slope>(z[2 * n + lane], baseline.get(2, lane)),
                activation<T, Tanh, slope>(z[3 * n + lane], baseline.get(3, lane))};
    }

    // Writes the multipliers of the pre-activations; returns that of c.
    static DLF_INLINE T back(const T* k, std::int64_t stride, int lane, T m_h, T m_c, T* d) {
        constexpr int n = lanes<T>;
        const T c = m_c + m_h * k[stride];
        d[lane] = c * k[3 * stride];
        d[n + lane] = c * k[4 * stride];
        d[2 * n + lane] = m_h * k[0];
        d[3 * n + lane] = c * k[5 * stride];
        return c;
    }
};

template <typename T>
struct StageNet {
    static constexpr int gates = 4, activations = 5, coefficients = 8;
    static constexpr bool has_masters = true;

    template <Slope slope>
    static DLF_INLINE void forward(const T* z, const T* z0, Points<T> baseline, int lane, State<T> old, State<T> old0,
                                   Masters<T> m, Masters<T> m0, T half, State<T>& now, T* k, std::int64_t stride) {
        const auto [f, i, o, g] = FourGates<T>::template both<slope>(z, baseline, lane);
        const T overlap = m.forget * m.input, overlap0 = m0.forget * m0.input;
        const T mixed = f.y * old.c + i.y * g.y, mixed0 = f.y0 * old0.c + i.y0 * g.y0;
        const T c = overlap * mixed + (m.forget - overlap) * old.c + (m.input - overlap) * g.y;
        const auto t = activation<T, Tanh, slope>(c, baseline.get(4, lane));
        now = {o.y * t.y, c};
        const T both = between(overlap, overlap0, half), forget = between(m.forget, m0.forget, half);
        const T input = between(m.input, m0.input, half), last = between(old.c, old0.c, half);
        const T fresh = between(g.y, g.y0, half), rest = between(mixed, mixed0, half) - last - fresh;
        k[0] = between(t.y, t.y0, half) * o.multiplier;
        k[stride] = between(o.y, o.y0, half) * t.multiplier;
        k[2 * stride] = both * between(f.y, f.y0, half) + forget - both;
        k[3 * stride] = both * last * f.multiplier;
        k[4 * stride] = both * fresh * i.multiplier;
        k[5 * stride] = (both * between(i.y, i.y0, half) + input - both) * g.multiplier;
        k[6 * stride] = last + rest * input;
        k[7 * stride] = fresh + rest * forget;
    }

    static DLF_INLINE State<T> baseline(const T* z, int lane, State<T> old, Masters<T> m, Points<T> points) {
        const auto [f, i, o, g] = FourGates<T>::values(z, lane, points);
        const T overlap = m.forget * m.input;
        const T c = overlap * (f * old.c + i * g) + (m.forget - overlap) * old.c + (m.input - overlap) * g;
        return {o * points.template set<Tanh>(4, lane, c), c};
    }

    // Multipliers of the pre-activations, of the last c and of the master gates, from those of h and c.
    static DLF_INLINE void backward(const T* k, std::int64_t stride, int lane, T m_h, T& m_c, T* d, T&, T& m_forget,
                                    T& m_input) {
        const T c = FourGates<T>::back(k, stride, lane, m_h, m_c, d);
        m_forget += c * k[6 * stride];
        m_input += c * k[7 * stride];
        m_c = c * k[2 * stride];
    }
};

template <typename T>
struct Lstm {
    static constexpr int gates = 4, activations = 5, coefficients = 6;
    static constexpr bool has_masters = false;

    template <Slope slope>
    static DLF_INLINE void forward(const T* z, const T* z0, Points<T> baseline, int lane, State<T> old, State<T> old0,
                                   Masters<T>, Masters<T>, T half, State<T>& now, T* k, std::int64_t stride) {
        const auto [f, i, o, g] = FourGates<T>::template both<slope>(z, baseline, lane);
        const T c = f.y * old.c + i.y * g.y;
        const auto t = activation<T, Tanh, slope>(c, baseline.get(4, lane));
        now = {o.y * t.y, c};
        k[0] = between(t.y, t.y0, half) * o.multiplier;
        k[stride] = between(o.y, o.y0, half) * t.multiplier;
        k[2 * stride] = between(f.y, f.y0, half);
        k[3 * stride] = between(old.c, old0.c, half) * f.multiplier;
        k[4 * stride] = between(g.y, g.y0, half) * i.multiplier;
        k[5 * stride] = between(i.y, i.y0, half) * g.multiplier;
    }

    static DLF_INLINE State<T> baseline(const T* z, int lane, State<T> old, Masters<T>, Points<T> points) {
        const auto [f, i, o, g] = FourGates<T>::values(z, lane, points);
        const T c = f * old.c + i * g;
        return {o * points.template set<Tanh>(4, lane, c), c};
    }

    static DLF_INLINE void backward(const T* k, std::int64_t stride, int lane, T m_h, T& m_c, T* d, T&, T&, T&) {
        const T c = FourGates<T>::back(k, stride, lane, m_h, m_c, d);
        m_c = c * k[2 * stride];
    }
};

// Gates: new (from the input), reset, update, new (from the state).
template <typename T>
struct Gru {
    static constexpr int gates = 4, activations = 3, coefficients = 5;
    static constexpr bool has_masters = false;

    template <Slope slope>
    static DLF_INLINE void forward(const T* z, const T* z0, Points<T> baseline, int lane, State<T> old, State<T> old0,
                                   Masters<T>, Masters<T>, T half, State<T>& now, T* k, std::int64_t stride) {
        constexpr int n = lanes<T>;
        const auto r = activation<T, Sigmoid, slope>(z[n + lane], baseline.get(0, lane));
        const auto u = activation<T, Sigmoid, slope>(z[2 * n + lane], baseline.get(1, lane));
        const T kept = z[3 * n + lane], kept0 = z0[3 * n + lane];
        const auto fresh = activation<T, Tanh, slope>(z[lane] + r.y * kept, baseline.get(2, lane));
        now = {fresh.y + u.y * (old.h - fresh.y), T(0)};
        const T update = between(u.y, u.y0, half), slope_of_new = (T(1) - update) * fresh.multiplier;
        k[0] = slope_of_new;
        k[stride] = slope_of_new * between(kept, kept0, half) * r.multiplier;
        k[2 * stride] = between(old.h - fresh.y, old0.h - fresh.y0, half) * u.multiplier;
        k[3 * stride] = slope_of_new * between(r.y, r.y0, half);
        k[4 * stride] = update;
    }

    static DLF_INLINE State<T> baseline(const T* z, int lane, State<T> old, Masters<T>, Points<T> points) {
        constexpr int n = lanes<T>;
        const T r = points.template set<Sigmoid>(0, lane, z[n + lane]);
        const T u = points.template set<Sigmoid>(1, lane, z[2 * n + lane]);
        const T fresh = points.template set<Tanh>(2, lane, z[lane] + r * z[3 * n + lane]);
        return {fresh + u * (old.h - fresh), T(0)};
    }

    static DLF_INLINE void backward(const T* k, std::int64_t stride, int lane, T m_h, T&, T* d, T& direct, T&, T&) {
        constexpr int n = lanes<T>;
        for (int gate = 0; gate < 4; ++gate) d[gate * n + lane] = m_h * k[gate * stride];
        direct = m_h * k[4 * stride];
    }
};

template <typename T, typename Function>
struct Elman {
    static constexpr int gates = 1, activations = 1, coefficients = 1;
    static constexpr bool has_masters = false;

    template <Slope slope>
    static DLF_INLINE void forward(const T* z, const T*, Points<T> baseline, int lane, State<T>, State<T>, Masters<T>,
                                   Masters<T>, T, State<T>& now, T* k, std::int64_t) {
        const auto y = activation<T, Function, slope>(z[lane], baseline.get(0, lane));
        now = {y.y, T(0)};
        k[0] = y.multiplier;
    }

    static DLF_INLINE State<T> baseline(const T* z, int lane, State<T>, Masters<T>, Points<T> points) {
        return {points.template set<Function>(0, lane, z[lane]), T(0)};
    }

    static DLF_INLINE void backward(const T* k, std::int64_t, int lane, T m_h, T&, T* d, T&, T&, T&) {
        d[lane] = m_h * k[0];
    }
};

}  // namespace deeplift_fast
