// Recurrent layers over ragged sequences in both streams, step by step, and their multipliers.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "activations.h"
#include "allocate.h"
#include "checks.h"
#include "gemm.h"
#include "recurrent_kernels.h"
#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::stable::Tensor;

// The start of each step's rows in one stream.
struct Rows {
    const Index* counts;
    std::vector<Index> offsets;

    // Raises unless they fall from step to step, and sum to `all`.
    Rows(const Checked& checked, const char* op, const char* name, const Tensor& counts_, Index all)
        : counts(integers(counts_)), offsets(1, 0) {
        checked.indices(name, counts_, {any});
        Index left = all, last = all;
        bool falling = true;
        for (Index t = 0; falling && t < counts_.numel(); ++t) {
            falling = counts[t] > 0 && counts[t] <= last && counts[t] <= left;
            offsets.push_back(offsets.back() + counts[t]);
            left -= last = counts[t];
        }
        STD_TORCH_CHECK(falling && left == 0, op, ": ", name,
                        " must fall from step to step, hold 1 or more each, and sum to the rows (", all, ")");
    }
    Index steps() const { return static_cast<Index>(offsets.size()) - 1; }
    Index total() const { return offsets.back(); }
    Index largest() const { return steps() ? counts[0] : 0; }
};

// The inputs and the last states of a step's rows in both streams; no states at the first step.
template <typename T>
struct Operands {
    std::vector<const T*> u, h;
};

template <typename T>
void append(Operands<T>& operands, const Stream<T>& stream, const Rows& rows, Index t, const Forward<T>& f) {
    for (Index i = 0; i < rows.counts[t]; ++i) {
        operands.u.push_back(stream.inputs + (rows.offsets[t] + i) * f.input_size);
        if (t > 0) operands.h.push_back(stream.h + (rows.offsets[t - 1] + i) * f.units);
    }
}

// log softmax of the master gates of one row, and their cumulative sums: forget from the first level up, input from
// the last one down.
template <typename T>
void master_gates(const T* z, Index levels, T* log_p, T* gates) {
    for (int kind = 0; kind < 2; ++kind) {
        const T* from = z + kind * levels;
        const T largest = *std::max_element(from, from + levels);
        T total = 0, sum = 0;
        for (Index l = 0; l < levels; ++l) total += std::exp(from[l] - largest);
        const T log_total = largest + std::log(total);
        for (Index l = 0; l < levels; ++l) log_p[kind * levels + l] = from[l] - log_total;
        for (Index k = 0; k < levels; ++k) {
            const Index l = kind == 0 ? k : levels - 1 - k;
            gates[kind * levels + l] = sum += std::exp(log_p[kind * levels + l]);
        }
    }
}

// Memory of the steps, allocated once: pre-activations of the master gates and their places, and for each thread those
// of a panel, their places and the notes on the baseline.
template <typename T>
struct Scratch {
    Index rows, pre_activations, notes;
    std::vector<T> masters, panels;
    std::vector<T*> places;

    Scratch(const Forward<T>& f, const Kernels<T>& kernels, Index threads, Index actual, Index baseline)
        : rows(actual + baseline),
          pre_activations(rows * kernels.gates * lanes<T>),
          notes(baseline * kernels.notes * lanes<T>),
          masters(rows * f.master_width),
          panels(threads * (pre_activations + notes)),
          places((threads + 1) * rows) {}
    T* of(Index thread) { return panels.data() + thread * (pre_activations + notes); }
    T** places_of(Index thread) { return places.data() + (thread + 1) * rows; }
};

template <typename T>
void step_masters(Forward<T>& f, const Operands<T>& rows, Index count, Index first, Index first0, Scratch<T>& scratch) {
    const Index total = static_cast<Index>(rows.u.size());
    const int vectors = static_cast<int>(f.master_width / lanes<T>);
    torch::stable::parallel_for(0, total, 24, [&](Index begin, Index end) {
        T *z = scratch.masters.data(), **out = scratch.places.data() + begin;
        const auto add = [&](const T* const* from, Index length, const T* weight) {
            for (Index i = begin; i < end; ++i) out[i - begin] = z + i * f.master_width;
            multiply(from + begin, end - begin, {1, length, 0}, weight, f.master_width, vectors, out);
        };
        for (Index i = begin; i < end; ++i) std::copy_n(f.master_bias, f.master_width, z + i * f.master_width);
        add(rows.u.data(), f.input_size, f.master_u);
        if (!rows.h.empty()) add(rows.h.data(), f.units, f.master_h);
        for (Index i = begin; i < end; ++i) {
            Stream<T>& stream = i < count ? f.actual : f.baseline;
            const Index sample = i < count ? i : i - count, row = (i < count ? first : first0) + sample;
            master_gates(z + i * f.master_width, f.levels, stream.log_p + row * 2 * f.levels,
                         stream.gates.data() + sample * 2 * f.levels);
        }
    });
}

// The products and activations of one panel at step `t`.
template <typename T>
void step_panel(const Forward<T>& f, const Kernels<T>& kernels, const Rows& rows, const Rows& rows0, Index t,
                Index panel, const Operands<T>& operands, T* z, T* notes, T** out) {
    const int n = lanes<T>, size = kernels.gates * n, skipped = (kernels.gates - kernels.from_state) * n;
    const Index count = rows.counts[t], count0 = rows0.counts[t], total = count + count0;
    for (Index i = 0; i < total; ++i) {
        out[i] = z + i * size;
        std::copy_n(f.bias + panel * size, size, out[i]);
    }
    multiply(operands.u.data(), total, {1, f.input_size, 0}, f.weight_u + panel * f.input_size * kernels.from_input * n,
             kernels.from_input * n, kernels.from_input, out);
    for (Index i = 0; i < total; ++i) out[i] = z + i * size + skipped;
    if (t > 0)
        multiply(operands.h.data(), total, {1, f.units, 0}, f.weight_h + panel * f.units * kernels.from_state * n,
                 kernels.from_state * n, kernels.from_state, out);
    const T* z0 = z + count * size;
    const Index last = t ? rows.offsets[t - 1] : 0, last0 = t ? rows0.offsets[t - 1] : 0;
    kernels.forward(f, {panel, count, rows.offsets[t], last, z, z0}, {panel, count0, rows0.offsets[t], last0, z, z0},
                    last0, notes);
}

// Each thread takes some panels. Every other step takes them in the opposite order: it begins with the weights that the
// step before it used last, which are still in a cache.
template <typename T>
void run_forward(Forward<T>& f, const Kernels<T>& kernels, const Rows& rows, const Rows& rows0) {
    const Index threads = std::min<Index>(f.panels, torch::stable::get_num_threads());
    Scratch<T> scratch(f, kernels, threads, rows.largest(), rows0.largest());
    Operands<T> operands;
    for (Index t = 0; t < rows.steps(); ++t) {
        operands.u.clear(), operands.h.clear();
        append(operands, f.actual, rows, t, f);
        append(operands, f.baseline, rows0, t, f);
        if (f.levels) step_masters(f, operands, rows.counts[t], rows.offsets[t], rows0.offsets[t], scratch);
        torch::stable::parallel_for(0, threads, 1, [&](Index from, Index to) {
            for (Index thread = from; thread < to; ++thread) {
                const Index begin = thread * f.panels / threads, end = (thread + 1) * f.panels / threads;
                T* z = scratch.of(thread);
                for (Index i = begin; i < end; ++i)
                    step_panel(f, kernels, rows, rows0, t, t % 2 ? begin + end - 1 - i : i, operands, z,
                               z + scratch.pre_activations, scratch.places_of(thread));
            }
        });
    }
}

// The multipliers of the master gates' pre-activations at one row: the cumulative sums' and the log-mean softmax's.
template <typename T>
void masters_back(const Backward<T>& b, Index i, Index row) {
    const Index levels = b.levels, per = b.panels / levels;
    const T* partial = b.partial + i * b.panels * 2;
    std::vector<T> m(2 * levels, T(0));
    for (Index l = 0; l < levels; ++l) {
        for (Index p = l * per; p < (l + 1) * per; ++p) m[l] += partial[2 * p], m[levels + l] += partial[2 * p + 1];
        m[l] += b.m_master[row * levels + l];
    }
    for (Index l = levels - 1; l-- > 0;) m[l] += m[l + 1];
    for (Index l = 1; l < levels; ++l) m[levels + l] += m[levels + l - 1];
    for (int kind = 0; kind < 2; ++kind) {
        softmax_back(m.data() + kind * levels, b.shares + (row * 2 + kind) * levels, levels);
        std::copy_n(m.data() + kind * levels, levels, b.d_master + (i * 2 + kind) * levels);
    }
}

// A range of samples of a step, or of vectors of columns: those of the states, then those of the inputs.
struct Range {
    Index begin, end;
};

// Adds to the multipliers of the states before the step, and of its inputs, what its pre-activations' give. With
// `falling`, columns and weights are taken from the last to the first, as in run_forward.
template <typename T>
void products_back(Backward<T>& b, const Kernels<T>& kernels, Index first, Range samples, Range columns, bool falling) {
    const int n = lanes<T>, size = kernels.gates * n, four = 4 * n;
    const Index vectors_h = b.units / n, masters = 2 * b.levels, count = samples.end - samples.begin;
    std::vector<const T*> d(count);
    std::vector<T*> out(count);
    const auto group = [&](Index vector) {
        const bool to_state = vector < vectors_h;
        const Index place = to_state ? vector : vector - vectors_h;
        return Range{std::max(columns.begin, vector - place % 4),
                     std::min({columns.end, vector + 4 - place % 4, to_state ? vectors_h : columns.end})};
    };
    for (Index done = columns.begin; done < columns.end;) {
        const auto [vector, next] = group(falling ? columns.begin + columns.end - 1 - done : done);
        done += next - vector;
        const bool to_state = vector < vectors_h;
        const Index place = to_state ? vector : vector - vectors_h, index = place / 4, inside = place % 4 * n;
        const int vectors = static_cast<int>(next - vector), from = to_state ? kernels.from_state : kernels.from_input;
        const Index width = to_state ? b.units : b.input_width, skipped = to_state ? (kernels.gates - from) * n : 0;
        T* base = (to_state ? b.carried_h : b.m_u + first * width) + place * n;
        const auto add = [&](const T* rows, Index stride, Runs runs, const T* weight) {
            for (Index i = 0; i < count; ++i) {
                d[i] = rows + (samples.begin + i) * stride;
                out[i] = base + (samples.begin + i) * width;
            }
            multiply(d.data(), count, runs, weight + inside, four, vectors, out.data());
        };
        add(b.d + skipped, b.panels * size, {b.panels, from * n, size, falling},
            (to_state ? b.back_h : b.back_u) + index * b.panels * from * n * four);
        if (b.levels)
            add(b.d_master, masters, {1, masters, 0},
                (to_state ? b.back_master_h : b.back_master_u) + index * masters * four);
    }
}

// The samples of a step are independent. If there are many, each thread takes a few at a time through the whole step,
// so that the multipliers of their pre-activations stay in a cache. If there are few, the threads share the columns.
template <typename T>
void run_backward(Backward<T>& b, const Kernels<T>& kernels, const Rows& rows) {
    constexpr Index few = 48;
    const Index vectors_h = b.units / lanes<T>, vectors = vectors_h + b.input_width / lanes<T>;
    for (Index t = rows.steps() - 1; t >= 0; --t) {
        const Index count = rows.counts[t], first = rows.offsets[t], from = t > 0 ? 0 : vectors_h;
        const auto cells = [&](Index begin, Index end) {
            kernels.back(b, begin, end, first);
            for (Index i = begin; b.levels && i < end; ++i) masters_back(b, i, first + i);
        };
        if (count >= few / 2 * torch::stable::get_num_threads()) {
            torch::stable::parallel_for(0, count, 1, [&](Index begin, Index end) {
                for (Index next; begin < end; begin = next) {
                    next = std::min(end, begin + few);
                    cells(begin, next);
                    products_back(b, kernels, first, {begin, next}, {from, vectors}, false);
                }
            });
        } else {
            torch::stable::parallel_for(0, count, 8, cells);
            torch::stable::parallel_for(from, vectors, 1, [&](Index begin, Index end) {
                products_back(b, kernels, first, {0, count}, {begin, end}, t % 2);
            });
        }
    }
}

template <typename T>
void forward(const Tensor& u, const Tensor& u0, const Tensor& where, const Rows& rows, const Rows& rows0,
             const Tensor& weight_u, const Tensor& weight_h, const Tensor& bias, const Tensor& master_u,
             const Tensor& master_h, const Tensor& master_bias, Index levels, const std::string& cell,
             const std::string& slope, double half, Tensor& h, Tensor& h0, Tensor& coefficients, Tensor& log_p,
             Tensor& log_p0) {
    const Kernels<T> kernels = kernels_for<T>(cell, slope);
    const Index panels = bias.size(0), units = panels * lanes<T>;
    std::vector<T> cells((rows.largest() + rows0.largest()) * units);
    const Index gates = 2 * levels;
    Forward<T> f{u.size(1),
                 units,
                 levels,
                 panels,
                 read<T>(weight_u),
                 read<T>(weight_h),
                 read<T>(bias),
                 read<T>(master_u),
                 read<T>(master_h),
                 read<T>(master_bias),
                 master_bias.numel(),
                 read<Index>(where),
                 {read<T>(u), write<T>(h), cells.data(), write<T>(log_p), std::vector<T>(rows.largest() * gates)},
                 {read<T>(u0), write<T>(h0), cells.data() + rows.largest() * units, write<T>(log_p0),
                  std::vector<T>(rows0.largest() * gates)},
                 write<T>(coefficients),
                 static_cast<T>(half)};
    run_forward(f, kernels, rows, rows0);
}

template <typename T>
void backward(const Tensor& m_h, const Tensor& m_master, const Tensor& coefficients, const Tensor& shares,
              const Rows& rows, const Tensor& back_u, const Tensor& back_h, const Tensor& back_master_u,
              const Tensor& back_master_h, Index levels, const std::string& cell, Tensor& m_u) {
    const Kernels<T> kernels = kernels_for<T>(cell, "secant");
    const Index units = m_h.size(1), panels = units / lanes<T>, samples = rows.largest();
    std::vector<T> carried(samples * units * 2), d(samples * panels * kernels.gates * lanes<T>),
        d_master(samples * 2 * levels), partial(levels ? samples * panels * 2 : 0);
    Backward<T> b{m_u.size(1),
                  units,
                  levels,
                  panels,
                  read<T>(m_h),
                  read<T>(m_master),
                  read<T>(coefficients),
                  read<T>(shares),
                  read<T>(back_u),
                  read<T>(back_h),
                  read<T>(back_master_u),
                  read<T>(back_master_h),
                  write<T>(m_u),
                  carried.data(),
                  carried.data() + samples * units,
                  d.data(),
                  d_master.data(),
                  partial.data()};
    run_backward(b, kernels, rows);
}

Index lanes_of(const Checked& checked) { return checked.is_float() ? lanes<float> : lanes<double>; }

// The shape of a cell's weights; it is the same for both dtypes, and for all slopes.
Kernels<float> shape_of(const std::string& cell) { return kernels_for<float>(cell, "secant"); }

void require_levels(const char* op, Index levels, const std::string& cell, Index panels) {
    const bool divides = levels > 0 && levels <= panels && panels % levels == 0;
    STD_TORCH_CHECK(
        cell == "stagenet" ? divides : levels == 0, op, ": levels is ", levels, "; accepted: ",
        cell == "stagenet" ? "a divisor of the panels of units, which are " : "0 for cells without levels; panels are ",
        panels);
}

// A sample's baseline is at least as long as the sample, so it has a row at each of the sample's steps.
void require_baselines(const Tensor& where, const Rows& rows, const Rows& rows0) {
    const Index* other = integers(where);
    bool inside = true;
    for (Index t = rows.steps() - 1, i = 0; t >= 0; --t)
        for (; i < rows.counts[t]; ++i) inside &= other[i] >= 0 && other[i] < rows0.counts[t];
    STD_TORCH_CHECK(inside, "recurrent: where names a baseline that does not exist or is shorter than the sample");
}

std::tuple<Tensor, Tensor, Tensor, Tensor> recurrent(Tensor u, Tensor u0, Tensor where, Tensor counts, Tensor counts0,
                                                     Tensor weight_u, Tensor weight_h, Tensor bias, Tensor master_u,
                                                     Tensor master_h, Tensor master_bias, Tensor coefficients,
                                                     Index levels, std::string cell, std::string slope, double half) {
    const Checked checked("recurrent", "u", u);
    const Kernels<float> shape = shape_of(cell);
    const Index n = lanes_of(checked);
    checked.numbers("u", u, {any, any});
    const Index inputs = u.size(1);
    STD_TORCH_CHECK(inputs > 0, "recurrent: u has rows of no numbers; accepted: [rows, 1 or more]");
    checked.numbers("u0", u0, {any, inputs});
    checked.numbers("bias", bias, {any, shape.gates, n});
    const Index panels = bias.size(0), units = panels * n;
    require_levels("recurrent", levels, cell, panels);
    checked.numbers("weight_u", weight_u, {panels, inputs, shape.from_input, n});
    checked.numbers("weight_h", weight_h, {panels, units, shape.from_state, n});
    checked.numbers("master_bias", master_bias, {any});
    const Index width = master_bias.size(0);
    STD_TORCH_CHECK(width >= 2 * levels && width % n == 0, "recurrent: master_bias has ", width,
                    " numbers; accepted: ", 2 * levels, " or more, a multiple of ", n);
    checked.numbers("master_u", master_u, {inputs, width});
    checked.numbers("master_h", master_h, {units, width});
    checked.numbers("coefficients", coefficients, {u.size(0), shape.coefficients, units});
    const Rows rows(checked, "recurrent", "counts", counts, u.size(0));
    const Rows rows0(checked, "recurrent", "counts0", counts0, u0.size(0));
    checked.indices("counts0", counts0, {counts.size(0)});
    checked.indices("where", where, {rows.largest()});
    require_baselines(where, rows, rows0);
    Tensor h = allocate(u, {rows.total(), units}), h0 = allocate(u, {rows0.total(), units});
    Tensor log_p = torch::stable::new_empty(u, {rows.total(), 2 * levels});
    Tensor log_p0 = torch::stable::new_empty(u, {rows0.total(), 2 * levels});
    STD_TORCH_CHECK(reinterpret_cast<std::uintptr_t>(coefficients.const_data_ptr()) % 16 == 0,
                    "recurrent: coefficients must begin at a multiple of 16 bytes; pass a tensor of their own");
    use_huge_pages(coefficients.data_ptr(), coefficients.numel() * coefficients.element_size());
    const auto run = checked.is_float() ? forward<float> : forward<double>;
    run(u, u0, where, rows, rows0, weight_u, weight_h, bias, master_u, master_h, master_bias, levels, cell, slope, half,
        h, h0, coefficients, log_p, log_p0);
    return {h, h0, log_p, log_p0};
}

Tensor recurrent_backward(Tensor m_h, Tensor m_master, Tensor coefficients, Tensor shares, Tensor counts, Tensor back_u,
                          Tensor back_h, Tensor back_master_u, Tensor back_master_h, Index levels, std::string cell,
                          Index inputs) {
    const char* op = "recurrent_backward";
    const Checked checked(op, "m_h", m_h);
    const Kernels<float> shape = shape_of(cell);
    checked.numbers("m_h", m_h, {any, any});
    const Index n = lanes_of(checked), wide = 4 * n, total = m_h.size(0), units = m_h.size(1), panels = units / n;
    STD_TORCH_CHECK(panels > 0 && units % n == 0, op, ": m_h has ", units, " units; accepted: a multiple of ", n);
    STD_TORCH_CHECK(inputs >= 0, op, ": inputs is ", inputs, "; accepted: 0 or more");
    require_levels(op, levels, cell, panels);
    const Index across_u = inputs / wide + (inputs % wide != 0), across_h = (units + wide - 1) / wide;
    checked.numbers("back_u", back_u, {across_u, panels, n * shape.from_input, wide});
    checked.numbers("back_h", back_h, {across_h, panels, n * shape.from_state, wide});
    checked.numbers("back_master_u", back_master_u, {across_u, 2 * levels, wide});
    checked.numbers("back_master_h", back_master_h, {across_h, 2 * levels, wide});
    checked.numbers("m_master", m_master, {total, levels});
    checked.numbers("coefficients", coefficients, {total, shape.coefficients, units});
    checked.numbers("shares", shares, {total, 2 * levels});
    const Rows rows(checked, op, "counts", counts, total);
    const Index width = (inputs + n - 1) / n * n;
    Tensor m_u = allocate_zeros(m_h, {rows.total(), width});
    const auto run = checked.is_float() ? backward<float> : backward<double>;
    run(m_h, m_master, coefficients, shares, rows, back_u, back_h, back_master_u, back_master_h, levels, cell, m_u);
    return m_u;
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("recurrent", TORCH_BOX(&deeplift_fast::recurrent));
    m.impl("recurrent_backward", TORCH_BOX(&deeplift_fast::recurrent_backward));
}
