// Attention over ragged rows that are keys and values in one, and its multipliers.
//
// A sample's scores lie as [row][query]: every loop over them runs along the queries of all heads, padded to whole
// vectors, and both products of a stream are those of gemm.h.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "activations.h"
#include "allocate.h"
#include "checks.h"
#include "gemm.h"
#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Index = std::int64_t;

template <typename T>
constexpr Index padded(Index size) {
    return (size + lanes<T> - 1) / lanes<T> * lanes<T>;
}

// Scores [rows][width] to log-probabilities over the rows, and the probabilities.
template <typename T>
DLF_INLINE void normalise(T* __restrict scores, T* __restrict p, Index rows, Index width, T* __restrict sums) {
    for (Index g = 0; g < width; ++g) sums[g] = -std::numeric_limits<T>::infinity();
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) {
            const T score = scores[r * width + g];
            sums[g] = score > sums[g] ? score : sums[g];
        }
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) scores[r * width + g] -= sums[g];
    for (Index g = 0; g < width; ++g) sums[g] = 0;
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) sums[g] += p[r * width + g] = exponential(scores[r * width + g]).exp;
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) p[r * width + g] /= sums[g];
    for (Index g = 0; g < width; ++g) sums[g] = std::log(sums[g]);
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) scores[r * width + g] -= sums[g];
}

// From both streams' log-probabilities: the weights of the values (`p`), and what stands for the probabilities in the
// softmax's Jacobian (`share`): their logarithmic means, or the probabilities at the input.
template <typename T>
DLF_INLINE void pair_up(const T* __restrict log_p, const T* __restrict log_p0, T* __restrict p, T* __restrict share,
                        Index size, T half) {
    const bool midpoint = half != 0;
    for (Index i = 0; i < size; ++i) {
        const T a = log_p[i], b = log_p0[i], at_input = exponential(a).exp;
        const T at_baseline = exponential(b).exp;
        p[i] = at_input + half * (at_baseline - at_input);
        share[i] = midpoint ? log_mean(a, b, at_input, at_baseline) : at_input;
    }
}

// Multipliers of the scores from those of the probabilities, in place: share * (m - sum(share * m) / sum(share)).
template <typename T>
DLF_INLINE void scores_back(T* __restrict m, const T* __restrict share, Index rows, Index width, T* __restrict sums) {
    T* totals = sums + width;
    for (Index g = 0; g < 2 * width; ++g) sums[g] = 0;
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) {
            sums[g] += share[r * width + g] * m[r * width + g];
            totals[g] += share[r * width + g];
        }
    for (Index g = 0; g < width; ++g) sums[g] = totals[g] > 0 ? sums[g] / totals[g] : T(0);
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < width; ++g) m[r * width + g] = share[r * width + g] * (m[r * width + g] - sums[g]);
}

// Not templates: a function template cannot carry target_clones.
#define DLF_SOFTMAX(T)                                                                                             \
    DLF_CLONES void softmax(T* scores, T* p, Index rows, Index width, T* sums) {                                   \
        normalise<T>(scores, p, rows, width, sums);                                                                \
    }                                                                                                              \
    DLF_CLONES void pairs(const T* log_p, const T* log_p0, T* p, T* share, Index size, T half) {                   \
        pair_up<T>(log_p, log_p0, p, share, size, half);                                                           \
    }                                                                                                              \
    DLF_CLONES void softmax_back(T* m, const T* share, Index rows, Index width, T* sums) {                         \
        scores_back<T>(m, share, rows, width, sums);                                                               \
    }                                                                                                              \
    DLF_CLONES void mean_of(const T* __restrict a, const T* __restrict b, T half, Index size, T* __restrict out) { \
        for (Index i = 0; i < size; ++i) out[i] = a[i] + half * (b[i] - a[i]);                                     \
    }
DLF_SOFTMAX(float)
DLF_SOFTMAX(double)

// The rows and queries of every sample, in one stream.
struct Spans {
    const Index *index, *starts, *queries;
    Index samples;

    Spans(const Tensor& index_, const Tensor& starts_, const Tensor& queries_)
        : index(integers(index_)),
          starts(integers(starts_)),
          queries(integers(queries_)),
          samples(starts_.numel() - 1) {}
    Index rows(Index s) const { return starts[s + 1] - starts[s]; }
    Index asking(Index s) const { return queries[s + 1] - queries[s]; }
    // Where each sample's [row][head · query] begins in the log-probabilities.
    std::vector<Index> offsets(Index heads) const {
        std::vector<Index> found(1, 0);
        for (Index s = 0; s < samples; ++s) found.push_back(found.back() + rows(s) * heads * asking(s));
        return found;
    }
};

// One stream's numbers: queries [head][query][width], and rows [row][width].
template <typename T>
struct Side {
    const T *asked, *rows;
    Spans spans;
    Index heads, total, width;

    Side(const Tensor& asked_, const Tensor& rows_, Spans spans_)
        : asked(static_cast<const T*>(asked_.const_data_ptr())),
          rows(static_cast<const T*>(rows_.const_data_ptr())),
          spans(spans_),
          heads(asked_.size(0)),
          total(asked_.size(1)),
          width(asked_.size(2)) {}
    Index groups(Index s) const { return heads * spans.asking(s); }
    // Where the numbers of a sample's g-th (head, query) begin in a tensor of `asked`'s shape.
    Index place(Index s, Index g) const {
        const Index q = spans.asking(s);
        return (g / q * total + spans.queries[s] + g % q) * width;
    }
};

// out[i] += a[i] · weight: `count` rows of `inner` numbers times [inner][width], whose width is whole vectors.
template <typename T>
void times(const T* a, Index count, Index inner, const T* weight, Index width, T* out) {
    std::vector<const T*> from(count);
    std::vector<T*> to(count);
    for (Index i = 0; i < count; ++i) from[i] = a + i * inner;
    for (Index column = 0; column < width; column += 4 * lanes<T>) {
        for (Index i = 0; i < count; ++i) to[i] = out + i * width + column;
        const int vectors = static_cast<int>(std::min<Index>(4, (width - column) / lanes<T>));
        multiply(from.data(), count, {1, inner, 0}, weight + column, width, vectors, to.data());
    }
}

// A sample's rows one after the other, [row][padded width]: in place where they lie so, else copied to `scratch`.
template <typename T>
const T* gathered(const Side<T>& side, Index s, std::vector<T>& scratch) {
    const Index *index = side.spans.index + side.spans.starts[s], n = side.spans.rows(s), wide = padded<T>(side.width);
    bool in_place = wide == side.width;
    for (Index r = 1; r < n && in_place; ++r) in_place = index[r] == index[0] + r;
    if (in_place) return side.rows + (n ? index[0] : 0) * side.width;
    scratch.resize(n * wide);
    for (Index r = 0; r < n; ++r) {
        T* row = scratch.data() + r * wide;
        std::copy_n(side.rows + index[r] * side.width, side.width, row);
        std::fill(row + side.width, row + wide, T(0));
    }
    return scratch.data();
}

// A sample's vectors of every (head, query) as columns, [width][padded groups].
template <typename T>
void as_columns(const Side<T>& side, Index s, const T* numbers, std::vector<T>& columns) {
    const Index groups = side.groups(s), across = padded<T>(groups);
    columns.assign(side.width * across, T(0));
    std::vector<const T*> from(groups);
    for (Index g = 0; g < groups; ++g) from[g] = numbers + side.place(s, g);
    for (Index i = 0; i < side.width; ++i)
        for (Index g = 0; g < groups; ++g) columns[i * across + g] = from[g][i];
}

// scores[row][group] = rows · columns. The rows' padding meets no column.
template <typename T>
void meet(const T* rows, Index count, Index width, Index wide, const std::vector<T>& columns, Index across,
          std::vector<T>& scores) {
    scores.assign(count * across, T(0));
    std::vector<const T*> from(count);
    std::vector<T*> to(count);
    for (Index r = 0; r < count; ++r) from[r] = rows + r * wide;
    for (Index column = 0; column < across; column += 4 * lanes<T>) {
        for (Index r = 0; r < count; ++r) to[r] = scores.data() + r * across + column;
        const int vectors = static_cast<int>(std::min<Index>(4, (across - column) / lanes<T>));
        multiply(from.data(), count, {1, width, 0}, columns.data() + column, across, vectors, to.data());
    }
}

// [row][across] as [group][row].
template <typename T>
void turned(const std::vector<T>& from, Index rows, Index groups, Index across, std::vector<T>& to) {
    to.resize(groups * rows);
    for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < groups; ++g) to[g * rows + r] = from[r * across + g];
}

// Runs `body` for every sample; each thread gets long and short ones alike where they come sorted by length.
template <typename Body>
void for_samples(Index samples, Body body) {
    torch::stable::parallel_for(0, samples, 1, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) body(i % 2 ? samples - 1 - i / 2 : i / 2);
    });
}

template <typename T>
struct Masks {
    const bool *looks, *seen;

    // A query that looks at nothing in particular, or has nothing to look at, looks at all rows alike.
    void apply(const Side<T>& side, Index s, std::vector<T>& scores, Index across) const {
        const Spans& spans = side.spans;
        const bool* row_seen = seen + spans.starts[s];
        const Index n = spans.rows(s), q = spans.asking(s);
        const bool any = std::find(row_seen, row_seen + n, true) != row_seen + n;
        for (Index g = 0; g < side.groups(s); ++g)
            if (!any || !looks[spans.queries[s] + g % q])
                for (Index r = 0; r < n; ++r) scores[r * across + g] = 0;
            else
                for (Index r = 0; r < n; ++r)
                    if (!row_seen[r]) scores[r * across + g] = -std::numeric_limits<T>::infinity();
    }
};

template <typename T>
void forward(const Side<T>& side, const Masks<T>& masks, T* mixed, T* log_p) {
    const std::vector<Index> offsets = side.spans.offsets(side.heads);
    const Index wide = padded<T>(side.width);
    for_samples(side.spans.samples, [&](Index s) {
        const Index n = side.spans.rows(s), groups = side.groups(s), across = padded<T>(groups);
        static thread_local std::vector<T> scratch, columns, scores, p, by_query, out, sums;
        const T* rows = gathered(side, s, scratch);
        as_columns(side, s, side.asked, columns);
        meet(rows, n, side.width, wide, columns, across, scores);
        masks.apply(side, s, scores, across);
        p.resize(scores.size());
        sums.resize(across);
        softmax(scores.data(), p.data(), n, across, sums.data());
        for (Index r = 0; r < n; ++r) std::copy_n(scores.data() + r * across, groups, log_p + offsets[s] + r * groups);
        turned(p, n, groups, across, by_query);
        out.assign(groups * wide, T(0));
        times(by_query.data(), groups, n, rows, wide, out.data());
        for (Index g = 0; g < groups; ++g) std::copy_n(out.data() + g * wide, side.width, mixed + side.place(s, g));
    });
}

template <typename T>
struct BackwardOf {
    Side<T> x, x0;
    const Index* where;
    const bool* looks;
    const T *m, *log_p, *log_p0;
    T half;
    T *m_asked, *m_rows;
};

template <typename T>
void backward_of(const BackwardOf<T>& b, Index s, Index offset, Index offset0) {
    const Index n = b.x.spans.rows(s), groups = b.x.groups(s), width = b.x.width, other = b.where[s];
    const Index wide = padded<T>(width), across = padded<T>(groups), q = b.x.spans.asking(s);
    static thread_local std::vector<T> scratch, scratch0, mean, columns, m, log_p, log_p0, p, share, sums, left, right,
        out;
    const T *rows = gathered(b.x, s, scratch), *rows0 = gathered(b.x0, other, scratch0);
    mean.resize(n * wide);
    mean_of(rows, rows0, b.half, n * wide, mean.data());
    as_columns(b.x, s, b.m, columns);
    meet(mean.data(), n, width, wide, columns, across, m);
    log_p.assign(n * across, T(0)), log_p0.assign(n * across, T(0)), p.resize(n * across), share.resize(n * across);
    for (Index r = 0; r < n; ++r) {
        std::copy_n(b.log_p + offset + r * groups, groups, log_p.data() + r * across);
        std::copy_n(b.log_p0 + offset0 + r * groups, groups, log_p0.data() + r * across);
    }
    pairs(log_p.data(), log_p0.data(), p.data(), share.data(), n * across, b.half);
    for (Index g = 0; g < groups; ++g)
        if (!b.looks[b.x.spans.queries[s] + g % q])
            for (Index r = 0; r < n; ++r) share[r * across + g] = 0;
    sums.resize(2 * across);
    softmax_back(m.data(), share.data(), n, across, sums.data());

    // m_rows = p · m + m_scores · asked, as one product.
    left.resize(n * 2 * groups), right.assign(2 * groups * wide, T(0));
    for (Index r = 0; r < n; ++r) {
        std::copy_n(p.data() + r * across, groups, left.data() + r * 2 * groups);
        std::copy_n(m.data() + r * across, groups, left.data() + (r * 2 + 1) * groups);
    }
    for (Index g = 0; g < groups; ++g) {
        std::copy_n(b.m + b.x.place(s, g), width, right.data() + g * wide);
        mean_of(b.x.asked + b.x.place(s, g), b.x0.asked + b.x0.place(other, g), b.half, width,
                right.data() + (groups + g) * wide);
    }
    out.assign(n * wide, T(0));
    times(left.data(), n, 2 * groups, right.data(), wide, out.data());
    const Index* index = b.x.spans.index + b.x.spans.starts[s];
    for (Index r = 0; r < n; ++r) std::copy_n(out.data() + r * wide, width, b.m_rows + index[r] * width);

    turned(m, n, groups, across, left);
    out.assign(groups * wide, T(0));
    times(left.data(), groups, n, mean.data(), wide, out.data());
    for (Index g = 0; g < groups; ++g) std::copy_n(out.data() + g * wide, width, b.m_asked + b.x.place(s, g));
}

void check_spans(const char* op, const Tensor& asked, const Tensor& rows, const Tensor& index, const Tensor& starts,
                 const Tensor& queries) {
    const std::string name(op);
    require_within((name + ": index").c_str(), index, rows.size(0));
    require_ends((name + ": starts").c_str(), starts, index.numel());
    require_ends((name + ": queries").c_str(), queries, asked.size(1));
}

std::tuple<Tensor, Tensor> attention(Tensor asked, Tensor rows, Tensor index, Tensor starts, Tensor queries,
                                     Tensor looks, Tensor seen, Index pairs) {
    check_spans("attention", asked, rows, index, starts, queries);
    const Spans spans(index, starts, queries);
    const Index heads = asked.size(0);
    STD_TORCH_CHECK(spans.offsets(1).back() == pairs, "attention: pairs is ", pairs, "; the samples have ",
                    spans.offsets(1).back());
    Tensor mixed = allocate_like(asked);
    Tensor log_p = allocate(asked, {heads * pairs});
    const auto run = [&]<typename T>(T) {
        forward<T>(Side<T>(asked, rows, spans), {read<bool>(looks), read<bool>(seen)}, write<T>(mixed),
                   write<T>(log_p));
    };
    is_float(asked, "attention") ? run(float()) : run(double());
    return {mixed, log_p};
}

std::tuple<Tensor, Tensor> attention_backward(Tensor m, Tensor asked, Tensor asked0, Tensor rows, Tensor rows0,
                                              Tensor index, Tensor index0, Tensor starts, Tensor starts0,
                                              Tensor queries, Tensor queries0, Tensor where, Tensor looks, Tensor log_p,
                                              Tensor log_p0, double half) {
    check_spans("attention_backward", asked, rows, index, starts, queries);
    check_spans("attention_backward", asked0, rows0, index0, starts0, queries0);
    require_within("attention_backward: where", where, starts0.numel() - 1);
    const Spans spans(index, starts, queries), spans0(index0, starts0, queries0);
    const std::vector<Index> offsets = spans.offsets(asked.size(0)), offsets0 = spans0.offsets(asked.size(0));
    const Index* other = integers(where);
    for (Index s = 0; s < spans.samples; ++s)
        STD_TORCH_CHECK(spans.rows(s) == spans0.rows(other[s]) && spans.asking(s) == spans0.asking(other[s]),
                        "attention_backward: a sample and its baseline differ in rows or queries");
    STD_TORCH_CHECK(log_p.numel() == offsets.back() && log_p0.numel() == offsets0.back(),
                    "attention_backward: log_p does not fit the samples");
    Tensor m_asked = allocate_like(asked), m_rows = allocate_zeros(rows, {rows.size(0), rows.size(1)});
    const auto run = [&]<typename T>(T) {
        const BackwardOf<T> b{Side<T>(asked, rows, spans),
                              Side<T>(asked0, rows0, spans0),
                              other,
                              read<bool>(looks),
                              read<T>(m),
                              read<T>(log_p),
                              read<T>(log_p0),
                              static_cast<T>(half),
                              write<T>(m_asked),
                              write<T>(m_rows)};
        for_samples(spans.samples, [&](Index s) { backward_of(b, s, offsets[s], offsets0[other[s]]); });
    };
    is_float(asked, "attention_backward") ? run(float()) : run(double());
    return {m_asked, m_rows};
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("attention", TORCH_BOX(&deeplift_fast::attention));
    m.impl("attention_backward", TORCH_BOX(&deeplift_fast::attention_backward));
}
