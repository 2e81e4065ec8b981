// Attention over ragged rows that are keys and values in one, and its multipliers.
//
// A sample's scores are [row][query]. Loops run along the queries of all heads, padded to whole vectors unless there
// are few. gemm.h computes both products of a stream.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "allocate.h"
#include "attention_kernels.h"
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

// For few (head, query) pairs of a sample, dot products cost less than columns padded to whole vectors.
template <typename T>
constexpr bool are_few(Index groups) {
    return 4 * groups <= lanes<T>;
}

// The distance between a sample's rows of scores.
template <typename T>
constexpr Index across(Index groups) {
    return are_few<T>(groups) ? groups : padded<T>(groups);
}

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
};

// One stream's numbers: queries [head][query][width], and rows [row][width].
template <typename T>
struct Side {
    const T *asked, *rows;
    Spans spans;
    const bool *looks, *seen;
    Index heads, total, width;

    Side(const Tensor& asked_, const Tensor& rows_, Spans spans_, const Tensor& looks_, const Tensor& seen_)
        : asked(static_cast<const T*>(asked_.const_data_ptr())),
          rows(static_cast<const T*>(rows_.const_data_ptr())),
          spans(spans_),
          looks(read<bool>(looks_)),
          seen(read<bool>(seen_)),
          heads(asked_.size(0)),
          total(asked_.size(1)),
          width(asked_.size(2)) {}
    Index groups(Index s) const { return heads * spans.asking(s); }
    bool looking(Index s, Index g) const { return looks[spans.queries[s] + g % spans.asking(s)]; }
    bool any_seen(Index s) const {
        const bool* end = seen + spans.starts[s + 1];
        return std::find(seen + spans.starts[s], end, true) != end;
    }
    // The start of a sample's g-th (head, query) in a tensor of the shape of `asked`.
    Index place(Index s, Index g) const {
        const Index q = spans.asking(s);
        return (g / q * total + spans.queries[s] + g % q) * width;
    }
};

// A thread's memory, kept from sample to sample.
template <typename T>
struct Scratch {
    std::vector<T> rows, rows0, mean, queries, columns, scores, p, share, sums, out;
    std::vector<const T*> from;
    std::vector<T*> to, moved;

    static Scratch& own() {
        static thread_local Scratch scratch;
        return scratch;
    }
};

// to[i] = from[i] · weight, [inner][wide], for `count` rows.
template <typename T>
void times(Scratch<T>& own, Index count, Runs runs, const T* weight, Index wide) {
    for (Index i = 0; i < count; ++i) std::fill_n(own.to[i], wide, T(0));
    own.moved.resize(count);
    for (Index column = 0; column < wide; column += 4 * lanes<T>) {
        for (Index i = 0; i < count; ++i) own.moved[i] = own.to[i] + column;
        const int vectors = static_cast<int>(std::min<Index>(4, (wide - column) / lanes<T>));
        multiply(own.from.data(), count, runs, weight + column, wide, vectors, own.moved.data());
    }
}

// The same for rows of `width` numbers at the places that `place` returns; the weight is padded.
template <typename T, typename Place>
void times(Scratch<T>& own, Index count, Runs runs, const T* weight, Index width, Place place) {
    const Index wide = padded<T>(width);
    const bool direct = wide == width;
    if (!direct) own.out.resize(count * wide);
    own.to.resize(count);
    for (Index i = 0; i < count; ++i) own.to[i] = direct ? place(i) : own.out.data() + i * wide;
    times(own, count, runs, weight, wide);
    for (Index i = 0; !direct && i < count; ++i) std::copy_n(own.to[i], width, place(i));
}

// A sample's consecutive rows, [row][padded width]: in place if they are consecutive already, else copied to `scratch`.
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

// A sample's vectors of every (head, query), [group][padded width].
template <typename T>
void lined_up(const Side<T>& side, Index s, const T* numbers, T* out) {
    const Index wide = padded<T>(side.width);
    for (Index g = 0; g < side.groups(s); ++g, out += wide) {
        std::copy_n(numbers + side.place(s, g), side.width, out);
        std::fill(out + side.width, out + wide, T(0));
    }
}

// scores[row][across] = rows · queries, of [count][padded width] and [groups][padded width].
template <typename T>
void meet(Scratch<T>& own, const T* rows, Index count, const T* queries, Index groups, Index width, T* scores) {
    const Index wide = padded<T>(width), apart = across<T>(groups);
    if (are_few<T>(groups)) return dots(rows, count, queries, groups, wide, scores);
    own.columns.assign(width * apart, T(0));
    for (Index g = 0; g < groups; ++g)
        for (Index i = 0; i < width; ++i) own.columns[i * apart + g] = queries[g * wide + i];
    own.from.resize(count), own.to.resize(count);
    for (Index r = 0; r < count; ++r) own.from[r] = rows + r * wide, own.to[r] = scores + r * apart;
    times(own, count, {1, width, 0}, own.columns.data(), apart);  // the rows' padding meets no column
}

// Runs `body` for every sample. Each thread gets long and short samples if they are sorted by length.
template <typename Body>
void for_samples(Index samples, Body body) {
    torch::stable::parallel_for(0, samples, 1, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) body(i % 2 ? samples - 1 - i / 2 : i / 2);
    });
}

// A sample's scores, [row][across]. A query that does not look, or has no visible row, weighs all rows alike.
template <typename T>
void score(Scratch<T>& own, const Side<T>& side, Index s, const T* rows, const T* queries, T* scores) {
    const Spans& spans = side.spans;
    const bool* seen = side.seen + spans.starts[s];
    const Index n = spans.rows(s), groups = side.groups(s), apart = across<T>(groups);
    const bool any = side.any_seen(s);
    meet(own, rows, n, queries, groups, side.width, scores);
    for (Index g = 0; g < groups; ++g)
        if (!any || !side.looking(s, g))
            for (Index r = 0; r < n; ++r) scores[r * apart + g] = 0;
        else
            for (Index r = 0; r < n; ++r)
                if (!seen[r]) scores[r * apart + g] = -std::numeric_limits<T>::infinity();
}

// Runs of the probabilities of one (head, query) among a sample's [row][across].
template <typename T>
Runs by_query(Scratch<T>& own, const T* numbers, Index rows, Index groups) {
    own.from.resize(groups);
    for (Index g = 0; g < groups; ++g) own.from[g] = numbers + g;
    return {rows, 1, across<T>(groups)};
}

template <typename T>
void forward(const Side<T>& side, T* mixed, T* log_sums) {
    for_samples(side.spans.samples, [&](Index s) {
        const Index n = side.spans.rows(s), groups = side.groups(s), apart = across<T>(groups), width = side.width;
        Scratch<T>& own = Scratch<T>::own();
        const T* rows = gathered(side, s, own.rows);
        own.queries.resize(groups * padded<T>(width));
        lined_up(side, s, side.asked, own.queries.data());
        own.p.resize(n * apart), own.sums.resize(2 * apart);
        score(own, side, s, rows, own.queries.data(), own.p.data());
        softmax(own.p.data(), n, apart, own.sums.data());
        for (Index g = 0; g < groups; ++g) log_sums[side.place(s, g) / width] = own.sums[g];
        const Runs runs = by_query(own, own.p.data(), n, groups);
        times(own, groups, runs, rows, width, [&](Index g) { return mixed + side.place(s, g); });
    });
}

template <typename T>
struct BackwardOf {
    Side<T> x, x0;
    const Index* where;
    const T *m, *log_sums, *log_sums0;
    T half;
    T *m_asked, *m_rows;
};

// The logarithms of a sample's weights, [row][across], from its queries and the results of the forward op.
template <typename T>
void log_weights(Scratch<T>& own, const Side<T>& side, Index s, const T* rows, const T* queries, const T* log_sums,
                 T* out) {
    const Index n = side.spans.rows(s), groups = side.groups(s), apart = across<T>(groups);
    score(own, side, s, rows, queries, out);
    own.sums.assign(apart, T(0));
    for (Index g = 0; g < groups; ++g) own.sums[g] = log_sums[side.place(s, g) / side.width];
    for (Index r = 0; r < n; ++r)
        for (Index g = 0; g < apart; ++g) out[r * apart + g] -= own.sums[g];
}

template <typename T>
void backward_of(const BackwardOf<T>& b, Index s) {
    const Index n = b.x.spans.rows(s), groups = b.x.groups(s), width = b.x.width;
    const Index wide = padded<T>(width), apart = across<T>(groups), size = n * apart, s0 = b.where[s];
    Scratch<T>& own = Scratch<T>::own();
    // Arriving multipliers, then queries; rows and the logarithms of weights.
    own.queries.resize(3 * groups * wide), own.scores.resize(2 * size);
    T *arriving = own.queries.data(), *asked = arriving + groups * wide, *asked0 = asked + groups * wide;
    T *log_p = own.scores.data(), *log_p0 = log_p;
    lined_up(b.x, s, b.m, arriving);
    lined_up(b.x, s, b.x.asked, asked);
    const T* rows = gathered(b.x, s, own.rows);
    log_weights(own, b.x, s, rows, asked, b.log_sums, log_p);
    if (b.half != 0) {
        const T* rows0 = gathered(b.x0, s0, own.rows0);
        lined_up(b.x0, s0, b.x0.asked, asked0);
        log_p0 = log_p + size;
        log_weights(own, b.x0, s0, rows0, asked0, b.log_sums0, log_p0);
        mean_of(asked, asked0, b.half, groups * wide, asked);
        own.mean.resize(n * wide);
        mean_of(rows, rows0, b.half, n * wide, own.mean.data());
        rows = own.mean.data();
    }

    // Probabilities, then the scores' multipliers.
    own.p.resize(2 * size), own.share.resize(size), own.sums.resize(3 * apart);
    T *p = own.p.data(), *m = p + size, *share = own.share.data();
    meet(own, rows, n, arriving, groups, width, m);
    pairs(log_p, log_p0, p, share, size, b.half);
    const bool any = b.x.any_seen(s);
    for (Index g = 0; g < groups; ++g)
        if (!any || !b.x.looking(s, g))
            for (Index r = 0; r < n; ++r) share[r * apart + g] = 0;
    softmax_back(m, share, n, apart, own.sums.data());

    // m_rows = p · arriving + m · asked, as one product.
    own.from.resize(n);
    for (Index r = 0; r < n; ++r) own.from[r] = p + r * apart;
    const Index* index = b.x.spans.index + b.x.spans.starts[s];
    times(own, n, {2, groups, size}, arriving, width, [&](Index r) { return b.m_rows + index[r] * width; });
    const Runs runs = by_query<T>(own, m, n, groups);
    times(own, groups, runs, rows, width, [&](Index g) { return b.m_asked + b.x.place(s, g); });
}

// Whether samples take every row, in order.
bool takes_all(const Tensor& index, Index rows) {
    const Index* numbers = integers(index);
    bool found = index.numel() == rows;
    for (Index i = 0; found && i < rows; ++i) found = numbers[i] == i;
    return found;
}

// The name of a stream's argument in errors.
struct Names {
    const char *asked, *rows, *index, *starts, *queries, *looks, *seen;
};
constexpr Names at_input{"asked", "rows", "index", "starts", "queries", "looks", "seen"};
constexpr Names at_baseline{"asked0", "rows0", "index0", "starts0", "queries0", "looks0", "seen0"};

// One stream's queries and rows, with the number of heads and the width of a row.
void check_stream(const Checked& checked, const Names& names, Index heads, Index width, const Tensor& asked,
                  const Tensor& rows, const Tensor& index, const Tensor& starts, const Tensor& queries,
                  const Tensor& looks, const Tensor& seen) {
    checked.numbers(names.asked, asked, {heads, any, width});
    checked.numbers(names.rows, rows, {any, width});
    checked.indices(names.index, index, {any});
    checked.indices(names.starts, starts, {any});
    checked.indices(names.queries, queries, {starts.size(0)});
    checked.flags(names.looks, looks, {asked.size(1)});
    checked.flags(names.seen, seen, {index.size(0)});
    checked.within(names.index, index, rows.size(0));
    checked.ends(names.starts, starts, index.numel());
    checked.ends(names.queries, queries, asked.size(1));
}

void require_width(const char* op, Index width) {
    STD_TORCH_CHECK(width > 0, op, ": asked has rows of no numbers; accepted: [heads, queries, 1 or more]");
}

std::tuple<Tensor, Tensor> attention(Tensor asked, Tensor rows, Tensor index, Tensor starts, Tensor queries,
                                     Tensor looks, Tensor seen) {
    const Checked checked("attention", "asked", asked);
    checked.numbers("asked", asked, {any, any, any});
    const Index heads = asked.size(0), width = asked.size(2);
    require_width("attention", width);
    check_stream(checked, at_input, heads, width, asked, rows, index, starts, queries, looks, seen);
    const Spans spans(index, starts, queries);
    Tensor mixed = allocate_like(asked), log_sums = allocate(asked, {heads, asked.size(1)});
    const auto run = [&]<typename T>(T) {
        forward<T>(Side<T>(asked, rows, spans, looks, seen), write<T>(mixed), write<T>(log_sums));
    };
    checked.is_float() ? run(float()) : run(double());
    return {mixed, log_sums};
}

std::tuple<Tensor, Tensor> attention_backward(Tensor m, Tensor asked, Tensor asked0, Tensor rows, Tensor rows0,
                                              Tensor index, Tensor index0, Tensor starts, Tensor starts0,
                                              Tensor queries, Tensor queries0, Tensor where, Tensor looks,
                                              Tensor looks0, Tensor seen, Tensor seen0, Tensor log_sums,
                                              Tensor log_sums0, double half) {
    const Checked checked("attention_backward", "m", m);
    checked.numbers("m", m, {any, any, any});
    const Index heads = m.size(0), width = m.size(2);
    require_width("attention_backward", width);
    check_stream(checked, at_input, heads, width, asked, rows, index, starts, queries, looks, seen);
    check_stream(checked, at_baseline, heads, width, asked0, rows0, index0, starts0, queries0, looks0, seen0);
    checked.numbers("m", m, {heads, asked.size(1), width});
    checked.indices("where", where, {starts.size(0) - 1});
    checked.within("where", where, starts0.size(0) - 1);
    const Spans spans(index, starts, queries), spans0(index0, starts0, queries0);
    const Index* other = integers(where);
    for (Index s = 0; s < spans.samples; ++s)
        STD_TORCH_CHECK(spans.rows(s) == spans0.rows(other[s]) && spans.asking(s) == spans0.asking(other[s]),
                        "attention_backward: a sample and its baseline differ in rows or queries");
    checked.numbers("log_sums", log_sums, {heads, asked.size(1)});
    checked.numbers("log_sums0", log_sums0, {heads, asked0.size(1)});
    Tensor m_asked = allocate_like(asked);
    Tensor m_rows =
        takes_all(index, rows.size(0)) ? allocate_like(rows) : allocate_zeros(rows, {rows.size(0), rows.size(1)});
    const auto run = [&]<typename T>(T) {
        const BackwardOf<T> b{Side<T>(asked, rows, spans, looks, seen),
                              Side<T>(asked0, rows0, spans0, looks0, seen0),
                              other,
                              read<T>(m),
                              read<T>(log_sums),
                              read<T>(log_sums0),
                              static_cast<T>(half),
                              write<T>(m_asked),
                              write<T>(m_rows)};
        for_samples(spans.samples, [&](Index s) { backward_of(b, s); });
    };
    checked.is_float() ? run(float()) : run(double());
    return {m_asked, m_rows};
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("attention", TORCH_BOX(&deeplift_fast::attention));
    m.impl("attention_backward", TORCH_BOX(&deeplift_fast::attention_backward));
}
