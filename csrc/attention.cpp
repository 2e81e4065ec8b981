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
    // The start of each sample's [row][head · query] in the log-probabilities.
    std::vector<Index> offsets(Index heads) const {
        std::vector<Index> found(samples + 1, 0);
        for (Index s = 0; s < samples; ++s) found[s + 1] = found[s] + rows(s) * heads * asking(s);
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
    // The start of a sample's g-th (head, query) in a tensor of the shape of `asked`.
    Index place(Index s, Index g) const {
        const Index q = spans.asking(s);
        return (g / q * total + spans.queries[s] + g % q) * width;
    }
};

// A thread's memory, kept from sample to sample.
template <typename T>
struct Scratch {
    std::vector<T> rows, rows0, mean, queries, columns, scores, p, log_p, log_p0, share, sums, out;
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

// [row][groups] as [row][across]; not copied if the two are the same.
template <typename T>
const T* spread(const T* from, Index rows, Index groups, std::vector<T>& to) {
    const Index apart = across<T>(groups);
    if (apart == groups) return from;
    to.assign(rows * apart, T(0));
    for (Index r = 0; r < rows; ++r) std::copy_n(from + r * groups, groups, to.data() + r * apart);
    return to.data();
}

// Runs `body` for every sample. Each thread gets long and short samples if they are sorted by length.
template <typename Body>
void for_samples(Index samples, Body body) {
    torch::stable::parallel_for(0, samples, 1, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) body(i % 2 ? samples - 1 - i / 2 : i / 2);
    });
}

template <typename T>
struct Masks {
    const bool *looks, *seen;

    // A query that does not look, or has no visible row, weighs all rows alike.
    void apply(const Side<T>& side, Index s, T* scores) const {
        const Spans& spans = side.spans;
        const bool* row_seen = seen + spans.starts[s];
        const Index n = spans.rows(s), q = spans.asking(s), groups = side.groups(s), apart = across<T>(groups);
        const bool any = std::find(row_seen, row_seen + n, true) != row_seen + n;
        for (Index g = 0; g < groups; ++g)
            if (!any || !looks[spans.queries[s] + g % q])
                for (Index r = 0; r < n; ++r) scores[r * apart + g] = 0;
            else
                for (Index r = 0; r < n; ++r)
                    if (!row_seen[r]) scores[r * apart + g] = -std::numeric_limits<T>::infinity();
    }
};

// Runs of the probabilities of one (head, query) among a sample's [row][across].
template <typename T>
Runs by_query(Scratch<T>& own, const T* numbers, Index rows, Index groups) {
    own.from.resize(groups);
    for (Index g = 0; g < groups; ++g) own.from[g] = numbers + g;
    return {rows, 1, across<T>(groups)};
}

template <typename T>
void forward(const Side<T>& side, const Masks<T>& masks, T* mixed, T* log_p) {
    const std::vector<Index> offsets = side.spans.offsets(side.heads);
    for_samples(side.spans.samples, [&](Index s) {
        const Index n = side.spans.rows(s), groups = side.groups(s), apart = across<T>(groups), width = side.width;
        Scratch<T>& own = Scratch<T>::own();
        const T* rows = gathered(side, s, own.rows);
        own.queries.resize(groups * padded<T>(width));
        lined_up(side, s, side.asked, own.queries.data());
        own.scores.resize(n * apart), own.p.resize(n * apart), own.sums.resize(apart);
        T* scores = own.scores.data();
        meet(own, rows, n, own.queries.data(), groups, width, scores);
        masks.apply(side, s, scores);
        softmax(scores, own.p.data(), n, apart, own.sums.data());
        for (Index r = 0; r < n; ++r)
            for (Index g = 0; g < groups; ++g) log_p[offsets[s] + r * groups + g] = scores[r * apart + g];
        const Runs runs = by_query(own, own.p.data(), n, groups);
        times(own, groups, runs, rows, width, [&](Index g) { return mixed + side.place(s, g); });
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

// The keys and values for a sample's multipliers, [row][padded width].
template <typename T>
const T* mean_rows(const BackwardOf<T>& b, Index s, Scratch<T>& own) {
    const T* rows = gathered(b.x, s, own.rows);
    if (b.half == 0) return rows;
    own.mean.resize(b.x.spans.rows(s) * padded<T>(b.x.width));
    mean_of(rows, gathered(b.x0, b.where[s], own.rows0), b.half, own.mean.size(), own.mean.data());
    return own.mean.data();
}

template <typename T>
void backward_of(const BackwardOf<T>& b, Index s, Index offset, Index offset0) {
    const Index n = b.x.spans.rows(s), groups = b.x.groups(s), width = b.x.width, q = b.x.spans.asking(s);
    const Index wide = padded<T>(width), apart = across<T>(groups), size = n * apart;
    Scratch<T>& own = Scratch<T>::own();
    const T* rows = mean_rows(b, s, own);
    // Arriving multipliers, then queries.
    own.queries.resize(2 * groups * wide);
    T *arriving = own.queries.data(), *asked = arriving + groups * wide;
    lined_up(b.x, s, b.m, arriving);
    lined_up(b.x, s, b.x.asked, asked);
    for (Index g = 0; b.half != 0 && g < groups; ++g)
        mean_of(b.x.asked + b.x.place(s, g), b.x0.asked + b.x0.place(b.where[s], g), b.half, width, asked + g * wide);

    // Probabilities, then the scores' multipliers.
    own.p.resize(2 * size), own.share.resize(size), own.sums.resize(3 * apart);
    T *p = own.p.data(), *m = p + size, *share = own.share.data();
    meet(own, rows, n, arriving, groups, width, m);
    pairs(spread(b.log_p + offset, n, groups, own.log_p), spread(b.log_p0 + offset0, n, groups, own.log_p0), p, share,
          size, b.half);
    for (Index g = 0; g < groups; ++g)
        if (!b.looks[b.x.spans.queries[s] + g % q])
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
    const char *asked, *rows, *index, *starts, *queries;
};
constexpr Names at_input{"asked", "rows", "index", "starts", "queries"};
constexpr Names at_baseline{"asked0", "rows0", "index0", "starts0", "queries0"};

// One stream's queries and rows, with the number of heads and the width of a row.
void check_stream(const Checked& checked, const Names& names, Index heads, Index width, const Tensor& asked,
                  const Tensor& rows, const Tensor& index, const Tensor& starts, const Tensor& queries) {
    checked.numbers(names.asked, asked, {heads, any, width});
    checked.numbers(names.rows, rows, {any, width});
    checked.indices(names.index, index, {any});
    checked.indices(names.starts, starts, {any});
    checked.indices(names.queries, queries, {starts.size(0)});
    checked.within(names.index, index, rows.size(0));
    checked.ends(names.starts, starts, index.numel());
    checked.ends(names.queries, queries, asked.size(1));
}

void require_width(const char* op, Index width) {
    STD_TORCH_CHECK(width > 0, op, ": asked has rows of no numbers; accepted: [heads, queries, 1 or more]");
}

std::tuple<Tensor, Tensor> attention(Tensor asked, Tensor rows, Tensor index, Tensor starts, Tensor queries,
                                     Tensor looks, Tensor seen, Index pairs) {
    const Checked checked("attention", "asked", asked);
    checked.numbers("asked", asked, {any, any, any});
    const Index heads = asked.size(0), width = asked.size(2);
    require_width("attention", width);
    check_stream(checked, at_input, heads, width, asked, rows, index, starts, queries);
    checked.flags("looks", looks, {asked.size(1)});
    checked.flags("seen", seen, {index.size(0)});
    const Spans spans(index, starts, queries);
    STD_TORCH_CHECK(spans.offsets(1).back() == pairs, "attention: pairs is ", pairs, "; the samples have ",
                    spans.offsets(1).back());
    Tensor mixed = allocate_like(asked);
    Tensor log_p = allocate(asked, {heads * pairs});
    const auto run = [&]<typename T>(T) {
        forward<T>(Side<T>(asked, rows, spans), {read<bool>(looks), read<bool>(seen)}, write<T>(mixed),
                   write<T>(log_p));
    };
    checked.is_float() ? run(float()) : run(double());
    return {mixed, log_p};
}

std::tuple<Tensor, Tensor> attention_backward(Tensor m, Tensor asked, Tensor asked0, Tensor rows, Tensor rows0,
                                              Tensor index, Tensor index0, Tensor starts, Tensor starts0,
                                              Tensor queries, Tensor queries0, Tensor where, Tensor looks, Tensor log_p,
                                              Tensor log_p0, double half) {
    const Checked checked("attention_backward", "m", m);
    checked.numbers("m", m, {any, any, any});
    const Index heads = m.size(0), width = m.size(2);
    require_width("attention_backward", width);
    check_stream(checked, at_input, heads, width, asked, rows, index, starts, queries);
    check_stream(checked, at_baseline, heads, width, asked0, rows0, index0, starts0, queries0);
    checked.numbers("m", m, {heads, asked.size(1), width});
    checked.flags("looks", looks, {asked.size(1)});
    checked.indices("where", where, {starts.size(0) - 1});
    checked.within("where", where, starts0.size(0) - 1);
    const Spans spans(index, starts, queries), spans0(index0, starts0, queries0);
    const std::vector<Index> offsets = spans.offsets(heads), offsets0 = spans0.offsets(heads);
    const Index* other = integers(where);
    for (Index s = 0; s < spans.samples; ++s)
        STD_TORCH_CHECK(spans.rows(s) == spans0.rows(other[s]) && spans.asking(s) == spans0.asking(other[s]),
                        "attention_backward: a sample and its baseline differ in rows or queries");
    checked.numbers("log_p", log_p, {offsets.back()});
    checked.numbers("log_p0", log_p0, {offsets0.back()});
    Tensor m_asked = allocate_like(asked);
    Tensor m_rows =
        takes_all(index, rows.size(0)) ? allocate_like(rows) : allocate_zeros(rows, {rows.size(0), rows.size(1)});
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
    checked.is_float() ? run(float()) : run(double());
    return {m_asked, m_rows};
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("attention", TORCH_BOX(&deeplift_fast::attention));
    m.impl("attention_backward", TORCH_BOX(&deeplift_fast::attention_backward));
}
