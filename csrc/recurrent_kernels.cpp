#include "recurrent_kernels.h"

#include <torch/headeronly/util/Exception.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "cells.h"
#include "gemm.h"

namespace deeplift_fast {
namespace {

// Stores one vector without loading its cache line first, since only the backward op reads it. `to` is aligned to 16
// bytes; another thread may read it after `settle`.
template <typename T>
DLF_INLINE void past_caches(T* to, const T* from) {
#if defined(__SSE2__)
    for (int i = 0; i < vector_bytes / 16; ++i)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i,
                         _mm_load_si128(reinterpret_cast<const __m128i*>(from) + i));
#else
    __builtin_memcpy(to, from, vector_bytes);
#endif
}

DLF_INLINE void settle() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

template <typename T>
DLF_INLINE Masters<T> masters_of(const Stream<T>& stream, Index sample, Index level, Index levels) {
    if (levels == 0) return {T(0), T(0)};
    const T* gates = stream.gates.data() + sample * 2 * levels;
    return {gates[level], gates[levels + level]};
}

// The vectors that a row of the baseline gives to the rows that use it: its activations and the last c.
template <typename Cell>
constexpr int notes_of = Cell::activations * 4 + 1;
template <typename T, typename Cell>
constexpr Index noted = notes_of<Cell> * lanes<T>;

template <typename T, typename Cell>
DLF_INLINE void step_baseline(const Forward<T>& f, const Panel<T>& p, T* notes) {
    constexpr int n = lanes<T>, size = Cell::gates * n;
    const Index start = p.index * n, level = f.levels ? p.index / (f.panels / f.levels) : 0;
    static const T nothing[n] = {};
    for (Index i = 0; i < p.count; ++i, notes += noted<T, Cell>) {
        const T* z = p.z0 + i * size;
        const T* h = p.first > 0 ? f.baseline.h + (p.first_last + i) * f.units + start : nothing;
        T* c = f.baseline.cell + i * f.units + start;
        T* out = f.baseline.h + (p.first + i) * f.units + start;
        T* last = notes + Cell::activations * 4 * n;
        const Masters<T> m = masters_of(f.baseline, i, level, f.levels);
#pragma GCC ivdep
        for (int lane = 0; lane < n; ++lane) {
            last[lane] = c[lane];
            const State<T> now = Cell::baseline(z, lane, {h[lane], c[lane]}, m, Points<T>{notes});
            out[lane] = now.h;
            c[lane] = now.c;
        }
    }
}

template <typename T, typename Cell, Slope slope>
DLF_INLINE void step_actual(const Forward<T>& f, const Panel<T>& p, Index baseline_last, T* notes) {
    constexpr int n = lanes<T>, size = Cell::gates * n;
    const Index start = p.index * n, level = f.levels ? p.index / (f.panels / f.levels) : 0;
    constexpr Index ahead = 6;
    // Few rows leave room for the coefficients in a cache, and `settle` would wait for memory at every panel.
    const bool begun = p.first > 0, many = p.count >= 16;
    static const T nothing[n] = {};
    for (Index i = 0; i < p.count; ++i) {
        const Index row = p.first + i, other = f.where[i];
        const T* z = p.z + i * size;
        const T* z0 = p.z0 + other * size;
        const T* h = begun ? f.actual.h + (p.first_last + i) * f.units + start : nothing;
        const T* h0 = begun ? f.baseline.h + (baseline_last + other) * f.units + start : nothing;
        T* c = f.actual.cell + i * f.units + start;
        T* facing = notes + other * noted<T, Cell>;
        const T* c0 = facing + Cell::activations * 4 * n;
        T* out = f.actual.h + row * f.units + start;
        T* k = f.coefficients + row * Cell::coefficients * f.units + start;
        // A store that waits for its cache line delays those behind it.
        __builtin_prefetch(out + ahead * f.units, 1);
        const Masters<T> m = masters_of(f.actual, i, level, f.levels);
        const Masters<T> m0 = masters_of(f.baseline, other, level, f.levels);
        const Index units = f.units;
        const T half = f.half;
        alignas(vector_bytes) T found[Cell::coefficients * n];
#pragma GCC ivdep
        for (int lane = 0; lane < n; ++lane) {
            State<T> now;
            Cell::template forward<slope>(z, z0, Points<T>{facing}, lane, {h[lane], c[lane]}, {h0[lane], c0[lane]}, m,
                                          m0, half, now, found + lane, n);
            out[lane] = now.h;
            c[lane] = now.c;
        }
        for (int j = 0; j < Cell::coefficients; ++j) {
            if (many)
                past_caches(k + j * units, found + j * n);
            else
                __builtin_memcpy(k + j * units, found + j * n, vector_bytes);
        }
    }
    if (many) settle();
}

// Row by row, so that the coefficients are read in their order in memory.
template <typename T, typename Cell>
DLF_INLINE void step_back(const Backward<T>& b, Index begin, Index end, Index first) {
    constexpr int n = lanes<T>, size = Cell::gates * n;
    const Index units = b.units;
    for (Index i = begin; i < end; ++i) {
        for (Index panel = 0; panel < b.panels; ++panel) {
            const Index start = panel * n;
            const T* m_h = b.m_h + (first + i) * units + start;
            const T* k = b.coefficients + (first + i) * Cell::coefficients * units + start;
            T* h = b.carried_h + i * units + start;
            T* c = b.carried_c + i * units + start;
            T* d = b.d + (i * b.panels + panel) * size;
            T forget[n] = {}, input[n] = {};
#pragma GCC ivdep
            for (int lane = 0; lane < n; ++lane) {
                T m_c = c[lane], direct = 0, m_forget = 0, m_input = 0;
                Cell::backward(k + lane, units, lane, m_h[lane] + h[lane], m_c, d, direct, m_forget, m_input);
                c[lane] = m_c;
                h[lane] = direct;
                forget[lane] = m_forget;
                input[lane] = m_input;
            }
            if constexpr (Cell::has_masters) {
                T sums[2] = {};
                for (int lane = 0; lane < n; ++lane) sums[0] += forget[lane], sums[1] += input[lane];
                T* partial = b.partial + (i * b.panels + panel) * 2;
                partial[0] = sums[0], partial[1] = sums[1];
            }
        }
    }
}

// Not templates: a function template cannot carry target_clones.
#define DLF_FORWARD(NAME, T, SLOPE, ...)                                                                      \
    DLF_CLONES void NAME(const Forward<T>& f, const Panel<T>& p, const Panel<T>& p0, Index last0, T* notes) { \
        step_baseline<T, __VA_ARGS__>(f, p0, notes);                                                          \
        step_actual<T, __VA_ARGS__, Slope::SLOPE>(f, p, last0, notes);                                        \
    }
#define DLF_BACK(NAME, T, ...)                                                        \
    DLF_CLONES void NAME(const Backward<T>& b, Index begin, Index end, Index first) { \
        step_back<T, __VA_ARGS__>(b, begin, end, first);                              \
    }
#define DLF_KERNELS(T)                                          \
    DLF_FORWARD(stagenet_secant, T, secant, StageNet<T>)        \
    DLF_FORWARD(stagenet_pyhealth, T, pyhealth, StageNet<T>)    \
    DLF_FORWARD(lstm_secant, T, secant, Lstm<T>)                \
    DLF_FORWARD(lstm_derivative, T, derivative, Lstm<T>)        \
    DLF_FORWARD(gru_secant, T, secant, Gru<T>)                  \
    DLF_FORWARD(gru_derivative, T, derivative, Gru<T>)          \
    DLF_FORWARD(tanh_secant, T, secant, Elman<T, Tanh>)         \
    DLF_FORWARD(tanh_derivative, T, derivative, Elman<T, Tanh>) \
    DLF_FORWARD(relu_secant, T, secant, Elman<T, Relu>)         \
    DLF_FORWARD(relu_derivative, T, derivative, Elman<T, Relu>) \
    DLF_BACK(stagenet_back, T, StageNet<T>)                     \
    DLF_BACK(lstm_back, T, Lstm<T>)                             \
    DLF_BACK(gru_back, T, Gru<T>)                               \
    DLF_BACK(elman_back, T, Elman<T, Tanh>)
DLF_KERNELS(float)
DLF_KERNELS(double)

}  // namespace

template <typename T>
Kernels<T> kernels_for(const std::string& cell, const std::string& slope) {
    const bool secant = slope == "secant";
    STD_TORCH_CHECK(secant || slope == (cell == "stagenet" ? "pyhealth" : "derivative"), "recurrent: slope is '", slope,
                    "', which cell '", cell, "' does not have");
    Kernels<T> found{};
    if (cell == "stagenet")
        found = {4, 4, 4, 8, notes_of<StageNet<T>>, stagenet_secant, stagenet_back};
    else if (cell == "lstm")
        found = {4, 4, 4, 6, notes_of<Lstm<T>>, lstm_secant, lstm_back};
    else if (cell == "gru")
        found = {4, 3, 3, 5, notes_of<Gru<T>>, gru_secant, gru_back};
    else if (cell == "rnn_tanh")
        found = {1, 1, 1, 1, notes_of<Elman<T, Tanh>>, tanh_secant, elman_back};
    else if (cell == "rnn_relu")
        found = {1, 1, 1, 1, notes_of<Elman<T, Relu>>, relu_secant, elman_back};
    else
        STD_TORCH_CHECK(false, "recurrent: cell is '", cell, "'; accepted: stagenet, lstm, gru, rnn_tanh, rnn_relu");
    if (secant) return found;
    if (cell == "stagenet") found.forward = stagenet_pyhealth;
    if (cell == "lstm") found.forward = lstm_derivative;
    if (cell == "gru") found.forward = gru_derivative;
    if (cell == "rnn_tanh") found.forward = tanh_derivative;
    if (cell == "rnn_relu") found.forward = relu_derivative;
    return found;
}

template Kernels<float> kernels_for(const std::string&, const std::string&);
template Kernels<double> kernels_for(const std::string&, const std::string&);

}  // namespace deeplift_fast
