// StageNet's stages in the window of steps that each sample's convolution sees, and their multipliers.
//
// deeplift_fast/ops/naive/stage_window.py has the formulas.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "activations.h"
#include "allocate.h"
#include "checks.h"
#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::stable::Tensor;
using Index = std::int64_t;

struct Shape {
    Index samples, window, hidden, levels, units;  // `units` of a state, with the padding after each level's

    Index chunk() const { return hidden / levels; }
    Index wide() const { return units / levels; }
};

// One stream: its states, and the place of each window's states.
template <typename T>
struct States {
    const T* h;
    const Index* places;
};

// The logarithms of one window's stages.
template <typename T>
void stages(const Shape& shape, const T* log_p, const Index* rows, const bool* real, T* log_stage) {
    T so_far = 0, largest = -std::numeric_limits<T>::infinity(), total = 0;
    for (Index j = 0; j < shape.window; ++j) {
        if (real[j]) {
            const T* log = log_p + rows[j] * 2 * shape.levels;
            T gates = 0;  // of all levels: each is the sum of p up to it
            for (Index l = 0; l < shape.levels; ++l) gates += std::exp(log[l]) * (shape.levels - l);
            so_far += 1 - gates / shape.levels;
        }
        log_stage[j] = so_far;
        largest = std::max(largest, so_far);
    }
    for (Index j = 0; j < shape.window; ++j) total += std::exp(log_stage[j] - largest);
    for (Index j = 0; j < shape.window; ++j) log_stage[j] -= largest + std::log(total);
}

// local = seen * stage for one step of a window, added to the sum that becomes the mean.
template <typename T>
DLF_INLINE void weigh(const T* __restrict h, T stage, Index chunk, T* __restrict local, T* __restrict mean) {
    for (Index k = 0; k < chunk; ++k) {
        local[k] = stage * h[k];
        mean[k] += local[k];
    }
}
DLF_CLONES void weighted(const float* h, float stage, Index chunk, float* local, float* mean) {
    weigh(h, stage, chunk, local, mean);
}
DLF_CLONES void weighted(const double* h, double stage, Index chunk, double* local, double* mean) {
    weigh(h, stage, chunk, local, mean);
}

// Sum of (local + mean) * seen for one step of a window, `seen` being between the streams.
template <typename T>
DLF_INLINE T product(const T* __restrict local, const T* __restrict mean, const T* h, const T* h0, T half, T average,
                     Index chunk) {
    constexpr int n = 64 / sizeof(T);
    T sums[n] = {}, sum = 0;
    const auto term = [&](Index k) { return (local[k] + mean[k] * average) * (h[k] + half * (h0[k] - h[k])); };
    Index k = 0;
    for (; k + n <= chunk; k += n)
        for (int lane = 0; lane < n; ++lane) sums[lane] += term(k + lane);
    for (; k < chunk; ++k) sum += term(k);
    for (int lane = 0; lane < n; ++lane) sum += sums[lane];
    return sum;
}
DLF_CLONES float dot(const float* local, const float* mean, const float* h, const float* h0, float half, float average,
                     Index chunk) {
    return product(local, mean, h, h0, half, average, chunk);
}
DLF_CLONES double dot(const double* local, const double* mean, const double* h, const double* h0, double half,
                      double average, Index chunk) {
    return product(local, mean, h, h0, half, average, chunk);
}

template <typename T>
void window_forward(const Shape& s, const States<T>& states, const T* log_p, const Index* rows, const bool* real,
                    T* local, T* mean, T* last, T* log_stage) {
    std::fill_n(mean, s.hidden, T(0));
    std::fill_n(last, s.hidden, T(0));
    stages(s, log_p, rows, real, log_stage);
    for (Index j = 0; j < s.window; ++j) {
        T* out = local + j * s.hidden;
        if (!real[j]) {
            std::fill_n(out, s.hidden, T(0));
            continue;
        }
        const T stage = std::exp(log_stage[j]);
        for (Index l = 0; l < s.levels; ++l) {
            const T* h = states.h + states.places[j] * s.units + l * s.wide();
            weighted(h, stage, s.chunk(), out + l * s.chunk(), mean + l * s.chunk());
            if (j == s.window - 1) std::copy_n(h, s.chunk(), last + l * s.chunk());
        }
    }
    for (Index k = 0; k < s.hidden; ++k) mean[k] /= s.window;
}

template <typename T>
struct Multipliers {
    const T *local, *mean, *last;  // of one sample
};

template <typename T>
void window_backward(const Shape& s, const Multipliers<T>& m, const States<T>& states, const States<T>& states0,
                     const Index* rows, const bool* real, const T* log_stage, const T* log_stage0, T half, T* m_h,
                     T* m_master) {
    std::vector<T> g(s.window), share(s.window), stage(s.window);
    const T average = T(1) / s.window;
    for (Index j = 0; j < s.window; ++j) {
        const T at_input = std::exp(log_stage[j]), at_baseline = std::exp(log_stage0[j]);
        stage[j] = at_input + half * (at_baseline - at_input);
        share[j] = half == 0 ? at_input : log_mean(log_stage[j], log_stage0[j], at_input, at_baseline);
        for (Index l = 0; real[j] && l < s.levels; ++l) {
            const Index k = l * s.chunk(), unit = l * s.wide();
            const T* h = states.h + states.places[j] * s.units + unit;
            const T* h0 = half == 0 ? h : states0.h + states0.places[j] * s.units + unit;
            g[j] += dot(m.local + j * s.hidden + k, m.mean + k, h, h0, half, average, s.chunk());
        }
    }
    softmax_back(g.data(), share.data(), s.window);
    T m_distance = 0;
    for (Index j = s.window; j-- > 0;) {
        m_distance += g[j];
        if (!real[j]) continue;
        std::fill_n(m_master + rows[j] * s.levels, s.levels, m_distance / -s.levels);
        for (Index l = 0; l < s.levels; ++l) {
            T* out = m_h + states.places[j] * s.units + l * s.wide();
            const T *local = m.local + j * s.hidden + l * s.chunk(), *mean = m.mean + l * s.chunk();
            const T* last = m.last + l * s.chunk();
            for (Index k = 0; k < s.chunk(); ++k) out[k] = (local[k] + mean[k] * average) * stage[j];
            for (Index k = 0; j == s.window - 1 && k < s.chunk(); ++k) out[k] += last[k];
        }
    }
}

// The shapes that both directions share; `hidden` counts as a tensor's size or as an argument.
Shape shape_of(const char* op, const Checked& checked, const Tensor& h, const Tensor& h0, const Tensor& real,
               Index levels, Index hidden) {
    checked.numbers("h", h, {any, any});
    const Index units = h.size(1);
    checked.numbers("h0", h0, {any, units});
    checked.flags("real", real, {any, any});
    STD_TORCH_CHECK(real.size(1) > 0, op,
                    ": real has no column; accepted: [samples, window], with a window of 1 or more");
    STD_TORCH_CHECK(levels > 0 && levels <= units && units % levels == 0, op, ": levels is ", levels,
                    "; accepted: a divisor of the ", units, " units of h");
    STD_TORCH_CHECK(hidden >= 0 && hidden <= units && hidden % levels == 0, op, ": hidden is ", hidden,
                    "; accepted: a multiple of levels, 0 to the ", units, " units of h");
    return {real.size(0), real.size(1), hidden, levels, units};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> stage_window(Tensor h, Tensor h0, Tensor log_p, Tensor log_p0, Tensor places,
                                                        Tensor places0, Tensor rows, Tensor rows0, Tensor real,
                                                        Index levels, Index hidden) {
    const Checked checked("stage_window", "h", h, /*strided=*/true);
    const Shape s = shape_of("stage_window", checked, h, h0, real, levels, hidden);
    checked.numbers("log_p", log_p, {any, 2 * levels});
    checked.numbers("log_p0", log_p0, {any, 2 * levels});
    checked.indices("places", places, {s.samples, s.window});
    checked.indices("places0", places0, {s.samples, s.window});
    checked.indices("rows", rows, {s.samples, s.window});
    checked.indices("rows0", rows0, {s.samples, s.window});
    for (Tensor* each : {&h, &h0, &log_p, &log_p0, &places, &places0, &rows, &rows0, &real}) *each = dense(*each);
    const bool* there = read<bool>(real);
    checked.within("places", places, h.size(0), there);
    checked.within("places0", places0, h0.size(0), there);
    checked.within("rows", rows, log_p.size(0), there);
    checked.within("rows0", rows0, log_p0.size(0), there);
    Tensor local = allocate(h, {2, s.samples, s.window, hidden});
    Tensor mean = torch::stable::new_empty(h, {2, s.samples, hidden}), last = torch::stable::empty_like(mean);
    Tensor log_stage = torch::stable::new_empty(h, {2, s.samples, s.window});
    const auto run = [&]<typename T>(T) {
        T *to_local = write<T>(local), *to_mean = write<T>(mean), *to_last = write<T>(last);
        T* to_stage = write<T>(log_stage);
        torch::stable::parallel_for(0, 2 * s.samples, 4, [&](Index begin, Index end) {
            for (Index i = begin; i < end; ++i) {
                const bool input = i < s.samples;
                const Index sample = input ? i : i - s.samples, first = sample * s.window;
                window_forward<T>(s, {read<T>(input ? h : h0), integers(input ? places : places0) + first},
                                  read<T>(input ? log_p : log_p0), integers(input ? rows : rows0) + first,
                                  there + first, to_local + i * s.window * hidden, to_mean + i * hidden,
                                  to_last + i * hidden, to_stage + i * s.window);
            }
        });
    };
    checked.is_float() ? run(float()) : run(double());
    return {local, mean, last, log_stage};
}

std::tuple<Tensor, Tensor> stage_window_backward(Tensor m_local, Tensor m_mean, Tensor m_last, Tensor h, Tensor h0,
                                                 Tensor places, Tensor places0, Tensor rows, Tensor real,
                                                 Tensor log_stage, Tensor log_p, Index levels, double half) {
    const char* op = "stage_window_backward";
    const Checked checked(op, "h", h, /*strided=*/true);
    checked.numbers("m_local", m_local, {any, any, any});
    const Shape s = shape_of(op, checked, h, h0, real, levels, m_local.size(2));
    checked.numbers("m_local", m_local, {s.samples, s.window, s.hidden});
    checked.numbers("m_mean", m_mean, {s.samples, s.hidden});
    checked.numbers("m_last", m_last, {s.samples, s.hidden});
    checked.numbers("log_stage", log_stage, {2, s.samples, s.window});
    checked.indices("places", places, {s.samples, s.window});
    checked.indices("places0", places0, {s.samples, s.window});
    checked.indices("rows", rows, {s.samples, s.window});
    checked.numbers("log_p", log_p, {any, 2 * levels});
    const Index total = log_p.size(0);
    for (Tensor* each : {&m_local, &m_mean, &m_last, &h, &h0, &places, &places0, &rows, &real, &log_stage})
        *each = dense(*each);
    const bool* there = read<bool>(real);
    checked.within("places", places, h.size(0), there);
    checked.within("places0", places0, h0.size(0), there);
    checked.within("rows", rows, total, there);
    Tensor m_h = allocate_zeros(h, {h.size(0), h.size(1)}), m_master = allocate_zeros(h, {total, levels});
    const auto run = [&]<typename T>(T) {
        T *to_h = write<T>(m_h), *to_master = write<T>(m_master);
        torch::stable::parallel_for(0, s.samples, 4, [&](Index begin, Index end) {
            for (Index i = begin; i < end; ++i) {
                const Index first = i * s.window;
                const T* stage = read<T>(log_stage) + first;
                window_backward<T>(s,
                                   {read<T>(m_local) + first * s.hidden, read<T>(m_mean) + i * s.hidden,
                                    read<T>(m_last) + i * s.hidden},
                                   {read<T>(h), integers(places) + first}, {read<T>(h0), integers(places0) + first},
                                   integers(rows) + first, there + first, stage, stage + s.samples * s.window,
                                   static_cast<T>(half), to_h, to_master);
            }
        });
    };
    checked.is_float() ? run(float()) : run(double());
    return {m_h, m_master};
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("stage_window", TORCH_BOX(&deeplift_fast::stage_window));
    m.impl("stage_window_backward", TORCH_BOX(&deeplift_fast::stage_window_backward));
}
