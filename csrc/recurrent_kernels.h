// The arithmetic of a recurrent layer for one panel of units at one step, in both directions.
//
// Rows are ordered by step, and within a step by sample. Samples have falling lengths, so those of a step are the first
// of the step before. A panel has as many units as a vector, with all their gates; a thread's panels stay in its cache.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deeplift_fast {

using Index = std::int64_t;

// One stream: its inputs, its states and its master gates at the present step.
template <typename T>
struct Stream {
    const T* inputs;
    T *h, *cell, *log_p;
    std::vector<T> gates;  // of the present step: [sample][2][levels]
};

template <typename T>
struct Forward {
    Index input_size, units, levels, panels;
    const T *weight_u, *weight_h, *bias, *master_u, *master_h, *master_bias;
    Index master_width;
    const Index* where;
    Stream<T> actual, baseline;
    T* coefficients;
    T half;
};

// The places of one panel's numbers at one step.
template <typename T>
struct Panel {
    Index index, count, first, first_last;  // the step's samples, its first row, the last step's first row
    const T *z, *z0;                        // pre-activations, [sample][gates][lanes]
};

template <typename T>
struct Backward {
    Index input_width, units, levels, panels;
    const T *m_h, *m_master, *coefficients, *shares, *back_u, *back_h, *back_master_u, *back_master_h;
    T *m_u, *carried_h, *carried_c, *d, *d_master, *partial;
};

// A cell's kernels and the shape of its weights. A panel has `gates` vectors of pre-activations: the inputs move the
// first `from_input`, the states the last `from_state`. `coefficients` is their number per unit for the backward op,
// and `notes` the number of vectors that the forward kernel writes for each row of the baseline.
template <typename T>
struct Kernels {
    int gates, from_input, from_state, coefficients, notes;
    // The panel in both streams, the baseline's first row of the last step, and memory for notes.
    void (*forward)(const Forward<T>&, const Panel<T>&, const Panel<T>&, Index, T*);
    // A step's samples from one to another, in all panels, and the step's first row.
    void (*back)(const Backward<T>&, Index, Index, Index);
};

// The kernels of a cell ("stagenet", "lstm", "gru", "rnn_tanh", "rnn_relu") with an activation's multiplier ("secant",
// "derivative" or, for StageNet, "pyhealth").
template <typename T>
Kernels<T> kernels_for(const std::string& cell, const std::string& slope);

}  // namespace deeplift_fast
