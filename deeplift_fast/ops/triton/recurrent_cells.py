"""One step of a recurrent layer as one Triton kernel: the product of states and weights, the cell, its coefficients.

Both streams are in one tile. `naive/recurrent.py` has the formulas of the coefficients. The columns of the weights are
all units gate by gate, then StageNet's forget master gates of all levels and its input master gates.
"""

import triton
import triton.language as tl

from deeplift_fast.ops.triton.activations import activation, exponential, midpoint
from deeplift_fast.ops.triton.tiles import computed_in, read

STEP = ("count", "first", "step", "columns", "slots", "stride")  # numbers that are not worth a kernel of their own


@triton.jit(do_not_specialize=(*STEP, "count0", "rows", "first0", "before", "before0"))
def forward_kernel(
    projected,  # inputs times weights, [rows + rows0, gates of the input · units + masters]
    weight,  # of the states, [units, gates of the state · units + masters]
    bias, master_bias, where, order, lengths,  # see :func:`placed`
    c_old, c_new,  # in slots: the baselines, then the samples from `slots0` on
    h, h0, coefficients, log_p, log_p0, count, count0, rows, first, first0,
    before, before0,  # the first rows of the step before
    step, columns, across, known,  # units that have states: all, or none at the first step
    units, chunk,  # units of a level
    levels, width, weight_k, weight_n, weight_layer, bias_layer,  # strides
    slots, slots0, stride,  # rows from one layer to the next
    CELL: tl.constexpr, SLOPE: tl.constexpr, HALF: tl.constexpr,
    GATES: tl.constexpr,  # of the state
    COUNT: tl.constexpr,  # coefficients of a unit
    SHARED: tl.constexpr,  # whether all samples have one baseline
    LEVELS: tl.constexpr,  # 8 or a larger power of two
    ROWS: tl.constexpr, UNITS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """States at the input and at the baseline, and the coefficients for the backward op.

    A program handles some rows and some units of one level of a layer. Sizes are those of a layer, except `rows`, which
    counts all layers.
    """
    # int64: an int32 offset wraps at 2**31 elements.
    layer = tl.program_id(2).to(tl.int64)
    skipped, slot0 = layer * stride, layer * slots
    first, first0, before, before0 = first + skipped, first0 + skipped, before + skipped, before0 + skipped
    weight, skipped = weight + layer * weight_layer, layer * bias_layer
    bias, master_bias = bias + skipped, master_bias + skipped
    if lengths is not None:
        idle, pairs, of_tile = _ordered_rows(order, lengths, layer, columns, across, count, step, ROWS)
    elif SHARED:
        idle, pairs, of_tile = _shared_rows(count, ROWS)
    else:
        idle, pairs, of_tile = _paired_rows(where, count, count0, ROWS)
    if idle:
        return
    sample, other, here, there, keeps0 = pairs
    of_baseline, its_sample, its_other, present = of_tile
    level, _block, unit, fits = units_of(chunk, UNITS)
    old, old0 = h + (before + its_sample) * units, h0 + (before0 + its_other) * units
    old = tl.where(of_baseline, old0, old)[:, None]
    z, p = _products(
        old, present[:, None], weight, known, units, chunk, levels, weight_k, weight_n, CELL, GATES, LEVELS, UNITS,
        BLOCK, PRECISION,
    )  # fmt: skip
    z, z0 = _by_stream(z, SHARED)
    p, p0 = _by_stream(p, SHARED)

    sample, other, here, there, keeps0 = sample[:, None], other[:, None], here[:, None], there[:, None], keeps0[:, None]
    row, row0, inside, inside0, kept0 = first + sample, first0 + other, here & fits, there & fits, keeps0 & fits
    u, u0 = projected + row * width, projected + (rows + row0) * width
    at = (u + unit, _by_gate(z, GATES, UNITS), inside)
    at0 = (u0 + unit, _by_gate(z0, GATES, UNITS), inside0)
    own, own0 = (slot0 + slots0 + sample) * units + unit, (slot0 + other) * units + unit
    moved, moved0 = inside & (known > 0), inside0 & (known > 0)
    at, k = (at, at0, (bias + unit, fits)), coefficients + row * COUNT * units + unit
    if CELL == "gru":
        last = read(h + (before + sample) * units + unit, moved)
        last0 = read(h0 + (before0 + other) * units + unit, moved0)
        state, state0 = _gru(at, last, last0, k, units, HALF, SLOPE)
    elif CELL == "rnn_tanh" or CELL == "rnn_relu":
        function: tl.constexpr = "tanh" if CELL == "rnn_tanh" else "relu"
        state, state0, slope = _gate(at, units, 0, 0, 0, function, SLOPE)
        tl.store(k, slope, mask=inside)
    else:
        masters = None
        if CELL == "stagenet":
            of_input = u + 4 * units, p, here, log_p + row * 2 * levels, here
            of_other = u0 + 4 * units, p0, there, log_p0 + row0 * 2 * levels, keeps0
            masters = _masters_of(of_input, of_other, master_bias, levels, level, LEVELS)
        c, c0 = read(c_old + own, moved), read(c_old + own0, moved0)
        state, state0, c, c0 = _lstm(at, c, c0, masters, k, units, HALF, SLOPE)
        tl.store(c_new + own, c, mask=inside)
        tl.store(c_new + own0, c0, mask=kept0)
    tl.store(h + row * units + unit, state, mask=inside)
    tl.store(h0 + row0 * units + unit, state0, mask=kept0)


@triton.jit
def units_of(chunk, UNITS: tl.constexpr):
    """A program's level and its block of units there; the units, `[1, UNITS]`, and whether the level has them."""
    blocks = tl.cdiv(chunk, UNITS)
    level, block = tl.program_id(1) // blocks, tl.program_id(1) % blocks
    inner = (block * UNITS + tl.arange(0, UNITS))[None, :]
    return level, block, level * chunk + inner, inner < chunk


@triton.jit
def placed(order, lengths, layer, columns, across, place, count):
    """A layer's samples at some places, by falling length, and their lengths; 0 past the last place.

    `order` and `lengths` are `[samples, across]`; `columns` holds the column of each layer in four bits.
    """
    at, real = place * across + ((columns >> (4 * layer)) & 15), place < count
    sample, length = tl.load(order + at, mask=real, other=0), tl.load(lengths + at, mask=real, other=0)
    return sample.to(tl.int32), length.to(tl.int32)  # in half as many registers


@triton.jit
def _ordered_rows(order, lengths, layer, columns, across, count, step, ROWS: tl.constexpr):
    """The rows of a tile of samples that have their own baselines, by falling length; see :func:`_paired_rows`.

    Nothing is read or written past a sample's end.
    """
    ahead = tl.program_id(0).to(tl.int64) * (ROWS // 2)
    of_baseline, its_place = _alternating(ahead, ROWS)
    _sample, longest = placed(order, lengths, layer, columns, across, ahead, count)
    sample, length = placed(order, lengths, layer, columns, across, ahead + tl.arange(0, ROWS // 2), count)
    its_sample, its_length = placed(order, lengths, layer, columns, across, its_place, count)
    here, present = length > step, its_length > step
    return longest <= step, (sample, sample, here, here, here), (of_baseline, its_sample, its_sample, present)


@triton.jit
def _alternating(ahead, ROWS: tl.constexpr):
    """Whether each row of a product is a baseline's, and the number of its pair from `ahead` on.

    Eight samples, then their baselines, and so on: tensor cores give rows 8 apart to one thread.
    """
    row = tl.arange(0, ROWS)
    return (row >> 3) & 1 == 1, ahead + ((row >> 4 << 3) | (row & 7))


@triton.jit
def _shared_rows(count, ROWS: tl.constexpr):
    """The rows of a tile if all samples share a baseline, which is its first row; see :func:`_paired_rows`."""
    row = tl.arange(0, ROWS)
    sample = tl.program_id(0).to(tl.int64) * (ROWS - 1) + row - 1
    here, other = (row > 0) & (sample < count), tl.zeros([1], tl.int64)
    there = other == 0
    pairs = sample, other, here, there, there & (tl.program_id(0) == 0)
    return False, pairs, (row == 0, sample, other, here | (row == 0))


@triton.jit
def _paired_rows(where, count, count0, ROWS: tl.constexpr):
    """The rows of a tile that holds samples and the baseline of each.

    The tile keeps the baselines' new states if each baseline has the number of its sample; else tiles of baselines,
    which follow those of samples, keep them.

    Returns:
        Whether the tile has nothing to do. For each pair: its sample and its baseline, whether there are such ones, and
        whether the baseline's states are kept. For each row of the product: whether it is a baseline's, its sample and
        its baseline, and whether there is such a row.
    """
    tiles = tl.cdiv(count, ROWS // 2)
    alone = tl.program_id(0) >= tiles  # a tile of baselines
    ahead = (tl.program_id(0) - tl.where(alone, tiles, 0)).to(tl.int64) * (ROWS // 2)
    sample = ahead + tl.arange(0, ROWS // 2)
    facing = tl.load(where + sample, mask=sample < count, other=-1)
    paired = tl.min(((facing == sample) | (sample >= count0)).to(tl.int32), 0) == 1
    here = (sample < count) & (tl.program_id(0) < tiles)
    there = here | (alone & (sample < count0))
    other = tl.where(alone, sample, facing)
    of_baseline, its_sample = _alternating(ahead, ROWS)
    its_other = tl.load(where + its_sample, mask=(its_sample < count) & (tl.program_id(0) < tiles), other=-1)
    its_other = tl.where(alone, its_sample, its_other)
    present = tl.where(alone, of_baseline & (its_sample < count0), its_sample < count)
    keeps0 = there & (other == sample) & (alone | paired)
    return alone & paired, (sample, other, here, there, keeps0), (of_baseline, its_sample, its_other, present)


@triton.jit
def _products(
    old, present, weight, known, units, chunk, levels, weight_k, weight_n, CELL: tl.constexpr, GATES: tl.constexpr,
    LEVELS: tl.constexpr, UNITS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """States times weights, for all gates of a program's units, and for StageNet's master gates of all levels."""
    parts: tl.constexpr = 1 if GATES == 1 else 4
    level, block, _unit, _fits = units_of(chunk, UNITS)
    gate, place = tl.arange(0, parts * UNITS).to(tl.int64) // UNITS, block * UNITS + tl.arange(0, parts * UNITS) % UNITS
    exists = ((place < chunk) & (gate < GATES))[None, :]
    to_gates = weight + ((gate * units + level * chunk + place) * weight_n)[None, :]
    master = tl.arange(0, 2 * LEVELS)[None, :]
    valid = master % LEVELS < levels
    past = GATES * units + tl.where(master < LEVELS, 0, levels) + master % LEVELS
    to_masters = weight + past.to(tl.int64) * weight_n
    dtype: tl.constexpr = computed_in(weight.dtype.element_ty)
    z, p = tl.zeros([old.shape[0], parts * UNITS], dtype), tl.zeros([old.shape[0], 2 * LEVELS], dtype)
    for start in range(0, known, BLOCK):
        k, w_row = start + tl.arange(0, BLOCK)[None, :], (start + tl.arange(0, BLOCK)).to(tl.int64)[:, None]
        a = tl.load(old + k, mask=present & (k < known), other=0.0)
        w = tl.load(to_gates + w_row * weight_k, mask=(w_row < known) & exists, other=0.0)
        z = tl.dot(a, w, z, input_precision=PRECISION, out_dtype=dtype)
        if CELL == "stagenet":
            w = tl.load(to_masters + w_row * weight_k, mask=(w_row < known) & valid, other=0.0)
            p = tl.dot(a, w, p, input_precision=PRECISION, out_dtype=dtype)
    return z, p


@triton.jit
def _by_stream(z, SHARED: tl.constexpr):
    """The rows of the samples, and those of their baselines: the first row if all share it."""
    if SHARED:
        return z, tl.sum(tl.where(tl.arange(0, z.shape[0])[:, None] == 0, z, 0.0), 0)[None, :]
    else:
        here, there = tl.split(tl.permute(tl.reshape(z, (z.shape[0] // 16, 2, 8, z.shape[1])), (0, 2, 3, 1)))
        return tl.reshape(here, (z.shape[0] // 2, z.shape[1])), tl.reshape(there, (z.shape[0] // 2, z.shape[1]))


@triton.jit
def _by_gate(z, GATES: tl.constexpr, UNITS: tl.constexpr):
    """Columns of one gate, or of four, as one tensor for each gate."""
    if GATES == 1:
        return z, z, z, z
    else:
        even, odd = tl.split(tl.permute(tl.reshape(z, (z.shape[0], 2, 2, UNITS)), (0, 3, 1, 2)))
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        return first, second, third, fourth


@triton.jit
def _sums(at, units, U: tl.constexpr, Z: tl.constexpr, B: tl.constexpr):
    """A gate's pre-activation at the input and at the baseline: gate `U` of the input, `Z` of the state, the bias `B`.

    Below 0 there is none.
    """
    here, there, bias = at
    a = read(bias[0] + B * units, bias[1])
    b = a
    if U >= 0:
        a, b = a + read(here[0] + U * units, here[2]), b + read(there[0] + U * units, there[2])
    if Z >= 0:
        a, b = a + here[1][Z], b + there[1][Z]
    return a, b


@triton.jit
def _gate(
    at, units, U: tl.constexpr, Z: tl.constexpr, B: tl.constexpr, FUNCTION: tl.constexpr, SLOPE: tl.constexpr
):  # fmt: skip
    """A gate at the input and at the baseline, and its multiplier."""
    a, b = _sums(at, units, U, Z, B)
    return activation(a, b, FUNCTION, SLOPE)


@triton.jit
def _masters_of(of_input, of_other, bias, levels, level, LEVELS: tl.constexpr):
    """The forget master gates of both streams at a level, and the input master gates."""
    kind = tl.arange(0, LEVELS)[None, :]
    bias = read(bias + kind, kind < levels), read(bias + levels + kind, kind < levels)
    forget, into = _masters(of_input, bias, levels, level, LEVELS)
    forget0, into0 = _masters(of_other, bias, levels, level, LEVELS)
    return forget, forget0, into, into0


@triton.jit
def _masters(stream, bias, levels, level, LEVELS: tl.constexpr):
    """One stream's forget and input master gates at a level; stores the logarithms of the softmax below them.

    The forget gate sums from the first level up, the input gate from the last one down.
    """
    u, p, there, to, keeps = stream
    kind = tl.arange(0, LEVELS)[None, :]
    valid = kind < levels
    stored = valid & keeps & (tl.program_id(1) == 0)
    forget, into = tl.split(tl.permute(tl.reshape(p, (p.shape[0], 2, LEVELS)), (0, 2, 1)))
    forget += bias[0] + read(u + kind, valid & there)
    into += bias[1] + read(u + levels + kind, valid & there)
    log_forget, forget = _softmax(forget, valid)
    log_into, into = _softmax(into, valid)
    tl.store(to + kind, log_forget, mask=stored)
    tl.store(to + levels + kind, log_into, mask=stored)
    forget = tl.sum(tl.where(kind <= level, forget, 0.0), 1)[:, None]
    return forget, tl.sum(tl.where(kind >= level, into, 0.0), 1)[:, None]


@triton.jit
def _softmax(x, valid):
    """Logarithms and probabilities over the second dimension."""
    shifted = tl.where(valid, x - tl.max(tl.where(valid, x, float("-inf")), 1)[:, None], 0.0)
    log_p = shifted - tl.log(tl.sum(tl.where(valid, exponential(shifted)[0], 0.0), 1)[:, None])
    return log_p, tl.where(valid, exponential(log_p)[0], 0.0)


@triton.jit
def _lstm(at, c, c0, masters, k, units, HALF: tl.constexpr, SLOPE: tl.constexpr):
    """StageNet's new h and c in both streams, or without `masters` those of an LSTM.

    Each coefficient is stored as soon as it is known, which takes fewer registers.
    """
    keeps, last = at[0][2], midpoint(c, c0, HALF)
    staged: tl.constexpr = masters is not None
    if staged:
        forget, forget0, into, into0 = masters
        overlap, overlap0 = forget * into, forget0 * into0
        both = midpoint(overlap, overlap0, HALF)
        mean_forget, mean_into = midpoint(forget, forget0, HALF), midpoint(into, into0, HALF)
    f, f0, s_f = _gate(at, units, 0, 0, 0, "sigmoid", SLOPE)
    kept = midpoint(f, f0, HALF)
    tl.store(k + 2 * units, both * kept + mean_forget - both if staged else kept, mask=keeps)
    tl.store(k + 3 * units, (both * last if staged else last) * s_f, mask=keeps)
    g, g0, s_g = _gate(at, units, 3, 3, 3, "tanh", SLOPE)
    i, i0, s_i = _gate(at, units, 1, 1, 1, "sigmoid", SLOPE)
    fresh, taken = midpoint(g, g0, HALF), midpoint(i, i0, HALF)
    tl.store(k + 4 * units, (both * fresh if staged else fresh) * s_i, mask=keeps)
    tl.store(k + 5 * units, (both * taken + mean_into - both if staged else taken) * s_g, mask=keeps)
    now, now0 = f * c + i * g, f0 * c0 + i0 * g0
    if staged:
        rest = midpoint(now, now0, HALF) - last - fresh
        tl.store(k + 6 * units, last + rest * mean_into, mask=keeps)
        tl.store(k + 7 * units, fresh + rest * mean_forget, mask=keeps)
        now = overlap * now + (forget - overlap) * c + (into - overlap) * g
        now0 = overlap0 * now0 + (forget0 - overlap0) * c0 + (into0 - overlap0) * g0
    t, t0, s_t = activation(now, now0, "tanh", SLOPE)
    o, o0, s_o = _gate(at, units, 2, 2, 2, "sigmoid", SLOPE)
    tl.store(k, midpoint(t, t0, HALF) * s_o, mask=keeps)
    tl.store(k + units, midpoint(o, o0, HALF) * s_t, mask=keeps)
    return o * t, o0 * t0, now, now0


@triton.jit
def _gru(at, old, old0, k, units, HALF: tl.constexpr, SLOPE: tl.constexpr):
    """The new h in both streams; stores the coefficients. The new gate has a part of the input and one of the state."""
    keeps = at[0][2]
    r, r0, s_r = _gate(at, units, 1, 0, 1, "sigmoid", SLOPE)
    v, v0, s_v = _gate(at, units, 2, 1, 2, "sigmoid", SLOPE)
    kept, kept0 = _sums(at, units, -1, 2, 3)
    n, n0 = _sums(at, units, 0, -1, 0)
    n, n0, s_n = activation(n + r * kept, n0 + r0 * kept0, "tanh", SLOPE)
    update = midpoint(v, v0, HALF)
    new = (1.0 - update) * s_n
    tl.store(k, new, mask=keeps)
    tl.store(k + units, new * midpoint(kept, kept0, HALF) * s_r, mask=keeps)
    tl.store(k + 2 * units, midpoint(old - n, old0 - n0, HALF) * s_v, mask=keeps)
    tl.store(k + 3 * units, new * midpoint(r, r0, HALF), mask=keeps)
    tl.store(k + 4 * units, update, mask=keeps)
    return n + v * (old - n), n0 + v0 * (old0 - n0)
