"""A recurrent layer's cell at one step as a Triton kernel: both streams, and the coefficients for the backward op.

`naive/recurrent.py` has the formulas of the coefficients. The columns of the matrix products are all units gate by
gate, then StageNet's forget master gates of all levels and its input master gates.
"""

import triton
import triton.language as tl

from deeplift_fast.ops.triton.activations import activation, exponential, midpoint


@triton.jit(do_not_specialize=("count", "count0", "centre", "rows", "first", "first0", "started", "slots", "stride"))
def forward_kernel(
    projected: tl.tensor,  # inputs times weights, [rows + rows0, gates of the input · units + masters]
    product: tl.tensor,  # states times weights, [count0 + count, gates of the state · units + masters]
    bias: tl.tensor, master_bias: tl.tensor, where: tl.tensor,
    h_old: tl.tensor,  # in slots: baseline j at centre − 1 − j, sample i at centre + i
    c_old: tl.tensor, h_new: tl.tensor, c_new: tl.tensor, h: tl.tensor, h0: tl.tensor, coefficients: tl.tensor,
    log_p: tl.tensor, log_p0: tl.tensor, count: tl.tensor, count0: tl.tensor, centre: tl.tensor, rows: tl.tensor,
    first: tl.tensor, first0: tl.tensor, started: tl.tensor,  # 0 at the first step: no states and no product
    units: tl.tensor, chunk: tl.tensor,  # units of a level
    levels: tl.tensor, projected_width: tl.tensor, product_width: tl.tensor, slots: tl.tensor,  # of a layer
    stride: tl.tensor,  # rows from one layer to the next
    bias_width: tl.tensor, CELL: tl.constexpr, SLOPE: tl.constexpr, HALF: tl.constexpr,
    COUNT: tl.constexpr,  # coefficients of a unit
    LEVELS: tl.constexpr,  # a power of two
    ROWS: tl.constexpr, UNITS: tl.constexpr,
) -> None:  # fmt: skip
    """One step: states at the input and at the baseline, and the coefficients for the backward op.

    A program handles some rows and some units of one level of a layer. Rows are those of the samples, then those of the
    baselines, which are paired with themselves. Sizes are those of a layer, except `rows`, which counts all layers.
    """
    layer = tl.program_id(2).to(tl.int64)
    skipped, slots_before = layer * stride, layer * slots
    projected += skipped * projected_width
    product += slots_before * product_width
    bias += layer * bias_width
    master_bias += layer * bias_width
    h_old += slots_before * units
    c_old += slots_before * units
    h_new += slots_before * units
    c_new += slots_before * units
    h += skipped * units
    h0 += skipped * units
    coefficients += skipped * COUNT * units
    log_p += skipped * 2 * levels
    log_p0 += skipped * 2 * levels
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists, at_input = row < count + count0, row < count
    # int64: an int32 offset wraps at 2**31 elements.
    sample = tl.where(at_input, row, row - count).to(tl.int64)
    other = tl.where(at_input, tl.load(where + sample, mask=at_input, other=0), sample)
    slot, slot0 = tl.where(at_input, centre + sample, centre - 1 - sample), centre - 1 - other
    row_u, row_u0 = tl.where(at_input, first + sample, rows + first0 + sample), rows + first0 + other
    row_z, row_z0 = slot - centre + count0, slot0 - centre + count0
    blocks = tl.cdiv(chunk, UNITS)
    level = tl.program_id(1) // blocks
    inner = tl.program_id(1) % blocks * UNITS + tl.arange(0, UNITS)
    unit = (level * chunk + inner)[None, :]
    inside = exists[:, None] & (inner < chunk)[None, :]
    masks = (inside, inside & (started != 0))
    u, u0 = projected + (row_u * projected_width)[:, None], projected + (row_u0 * projected_width)[:, None]
    z, z0 = product + (row_z * product_width)[:, None], product + (row_z0 * product_width)[:, None]
    at = (u + unit, u0 + unit, z + unit, z0 + unit, tl.broadcast_to(bias + unit, (ROWS, UNITS)))
    own, facing = (slot * units)[:, None] + unit, (slot0 * units)[:, None] + unit
    to, to0 = first + sample, first0 + sample
    keeps, keeps0 = inside & at_input[:, None], inside & ~at_input[:, None]
    k = coefficients + (to * COUNT * units)[:, None] + unit

    if CELL == "stagenet":
        valid = exists[:, None] & (tl.arange(0, LEVELS) < levels)[None, :]
        past = 4 * units
        p, p0 = (u + past, z + past, master_bias), (u0 + past, z0 + past, master_bias)
        log_forget, log_into, forget, into = _masters(p, levels, level, valid, started, LEVELS)
        _, _, forget0, into0 = _masters(p0, levels, level, valid, started, LEVELS)
        once = valid & (tl.program_id(1) == 0)
        _store_masters(log_p, to, log_forget, log_into, levels, once & at_input[:, None], LEVELS)
        _store_masters(log_p0, to0, log_forget, log_into, levels, once & ~at_input[:, None], LEVELS)
        c, c0 = read(c_old + own, masks[1]), read(c_old + facing, masks[1])
        masters = (forget, forget0, into, into0)
        state, now = _stagenet(at, masks, c, c0, masters, k, keeps, units, HALF, SLOPE)
        tl.store(c_new + own, now, mask=inside)
    elif CELL == "lstm":
        c, c0 = read(c_old + own, masks[1]), read(c_old + facing, masks[1])
        state, now = _lstm(at, masks, c, c0, k, keeps, units, HALF, SLOPE)
        tl.store(c_new + own, now, mask=inside)
    elif CELL == "gru":
        old, old0 = read(h_old + own, masks[1]), read(h_old + facing, masks[1])
        state = _gru(at, masks, old, old0, k, keeps, units, HALF, SLOPE)
    else:
        function: tl.constexpr = "tanh" if CELL == "rnn_tanh" else "relu"
        state, _, slope = _gate(at, masks, units, 0, 0, 0, function, SLOPE)
        tl.store(k, slope, mask=keeps)
    tl.store(h_new + own, state, mask=inside)
    tl.store(h + (to * units)[:, None] + unit, state, mask=keeps)
    tl.store(h0 + (to0 * units)[:, None] + unit, state, mask=keeps0)


@triton.jit
def read(pointer: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """Load numbers as float32 or float64, with 0 outside of the mask."""
    x = tl.load(pointer, mask=mask, other=0.0)
    return x if x.dtype == tl.float64 else x.to(tl.float32)


@triton.jit
def _sum(
    u: tl.tensor, z: tl.tensor, b: tl.tensor, masks: tl.tuple, units: tl.tensor, U: tl.constexpr, Z: tl.constexpr,
    B: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """A pre-activation: the sum of the input's gate `U`, the state's gate `Z` (below 0: none) and the bias's `B`."""
    inside, carried = masks
    x = read(b + B * units, inside)
    if U >= 0:
        x = x + read(u + U * units, inside)
    if Z >= 0:
        x = x + read(z + Z * units, carried)
    return x


@triton.jit
def _sums(
    at: tl.tuple, masks: tl.tuple, units: tl.tensor, U: tl.constexpr, Z: tl.constexpr, B: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """The pre-activation of a gate at the input and at the baseline."""
    u, u0, z, z0, b = at
    return _sum(u, z, b, masks, units, U, Z, B), _sum(u0, z0, b, masks, units, U, Z, B)


@triton.jit
def _gate(
    at: tl.tuple, masks: tl.tuple, units: tl.tensor, U: tl.constexpr, Z: tl.constexpr, B: tl.constexpr,
    FUNCTION: tl.constexpr, SLOPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """A gate at the input and at the baseline, and its multiplier."""
    a, b = _sums(at, masks, units, U, Z, B)
    return activation(a, b, FUNCTION, SLOPE)


@triton.jit
def _masters(
    p: tl.tuple, levels: tl.tensor, level: tl.tensor, valid: tl.tensor, started: tl.tensor, LEVELS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Logarithms of the softmax of the forget and of the input master gates, and both gates at a level.

    The forget gate sums from the first level up, the input gate from the last one down.
    """
    u, z, b = p
    kind = tl.arange(0, LEVELS)[None, :]
    masks = (valid, valid & (started != 0))
    u, z, b = u + kind, z + kind, tl.broadcast_to(b + kind, valid.shape)
    log_forget, forget = _softmax(_sum(u, z, b, masks, levels, 0, 0, 0), valid)
    log_into, into = _softmax(_sum(u, z, b, masks, levels, 1, 1, 1), valid)
    forget = tl.sum(tl.where(kind <= level, forget, 0.0), 1)[:, None]
    return log_forget, log_into, forget, tl.sum(tl.where(kind >= level, into, 0.0), 1)[:, None]


@triton.jit
def _softmax(x: tl.tensor, valid: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Logarithms and probabilities over the second dimension."""
    largest = tl.max(tl.where(valid, x, float("-inf")), 1)[:, None]
    shifted = tl.where(valid, x - largest, 0.0)
    total = tl.sum(tl.where(valid, exponential(shifted)[0], 0.0), 1)[:, None]
    log_p = shifted - tl.log(tl.where(total > 0, total, 1.0))
    return log_p, tl.where(valid, exponential(log_p)[0], 0.0)


@triton.jit
def _store_masters(
    log_p: tl.tensor, row: tl.tensor, log_forget: tl.tensor, log_into: tl.tensor, levels: tl.tensor, mask: tl.tensor,
    LEVELS: tl.constexpr,
) -> None:  # fmt: skip
    to = log_p + (row * 2 * levels)[:, None] + tl.arange(0, LEVELS)[None, :]
    tl.store(to, log_forget, mask=mask)
    tl.store(to + levels, log_into, mask=mask)


@triton.jit
def _stagenet(
    at: tl.tuple, masks: tl.tuple, c: tl.tensor, c0: tl.tensor, masters: tl.tuple, k: tl.tensor, keeps: tl.tensor,
    units: tl.tensor, HALF: tl.constexpr, SLOPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """The new h and c at the input; stores each coefficient as soon as it is known, which takes fewer registers."""
    forget, forget0, into, into0 = masters
    overlap, overlap0 = forget * into, forget0 * into0
    both, last = midpoint(overlap, overlap0, HALF), midpoint(c, c0, HALF)
    mean_forget, mean_into = midpoint(forget, forget0, HALF), midpoint(into, into0, HALF)
    f, f0, s_f = _gate(at, masks, units, 0, 0, 0, "sigmoid", SLOPE)
    tl.store(k + 2 * units, both * midpoint(f, f0, HALF) + mean_forget - both, mask=keeps)
    tl.store(k + 3 * units, both * last * s_f, mask=keeps)
    g, g0, s_g = _gate(at, masks, units, 3, 3, 3, "tanh", SLOPE)
    i, i0, s_i = _gate(at, masks, units, 1, 1, 1, "sigmoid", SLOPE)
    fresh = midpoint(g, g0, HALF)
    tl.store(k + 4 * units, both * fresh * s_i, mask=keeps)
    tl.store(k + 5 * units, (both * midpoint(i, i0, HALF) + mean_into - both) * s_g, mask=keeps)
    mixed, mixed0 = f * c + i * g, f0 * c0 + i0 * g0
    rest = midpoint(mixed, mixed0, HALF) - last - fresh
    tl.store(k + 6 * units, last + rest * mean_into, mask=keeps)
    tl.store(k + 7 * units, fresh + rest * mean_forget, mask=keeps)
    now = overlap * mixed + (forget - overlap) * c + (into - overlap) * g
    now0 = overlap0 * mixed0 + (forget0 - overlap0) * c0 + (into0 - overlap0) * g0
    return _output(at, masks, now, now0, k, keeps, units, HALF, SLOPE), now


@triton.jit
def _lstm(
    at: tl.tuple, masks: tl.tuple, c: tl.tensor, c0: tl.tensor, k: tl.tensor, keeps: tl.tensor, units: tl.tensor,
    HALF: tl.constexpr, SLOPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """The new h and c at the input; stores the coefficients."""
    f, f0, s_f = _gate(at, masks, units, 0, 0, 0, "sigmoid", SLOPE)
    tl.store(k + 2 * units, midpoint(f, f0, HALF), mask=keeps)
    tl.store(k + 3 * units, midpoint(c, c0, HALF) * s_f, mask=keeps)
    g, g0, s_g = _gate(at, masks, units, 3, 3, 3, "tanh", SLOPE)
    i, i0, s_i = _gate(at, masks, units, 1, 1, 1, "sigmoid", SLOPE)
    tl.store(k + 4 * units, midpoint(g, g0, HALF) * s_i, mask=keeps)
    tl.store(k + 5 * units, midpoint(i, i0, HALF) * s_g, mask=keeps)
    now, now0 = f * c + i * g, f0 * c0 + i0 * g0
    return _output(at, masks, now, now0, k, keeps, units, HALF, SLOPE), now


@triton.jit
def _output(
    at: tl.tuple, masks: tl.tuple, c: tl.tensor, c0: tl.tensor, k: tl.tensor, keeps: tl.tensor, units: tl.tensor,
    HALF: tl.constexpr, SLOPE: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """`o · tanh c`, for StageNet and LSTM."""
    t, t0, s_t = activation(c, c0, "tanh", SLOPE)
    o, o0, s_o = _gate(at, masks, units, 2, 2, 2, "sigmoid", SLOPE)
    tl.store(k, midpoint(t, t0, HALF) * s_o, mask=keeps)
    tl.store(k + units, midpoint(o, o0, HALF) * s_t, mask=keeps)
    return o * t


@triton.jit
def _gru(
    at: tl.tuple, masks: tl.tuple, old: tl.tensor, old0: tl.tensor, k: tl.tensor, keeps: tl.tensor, units: tl.tensor,
    HALF: tl.constexpr, SLOPE: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The new h at the input; stores the coefficients. The new gate has a part of the input and one of the state."""
    r, r0, s_r = _gate(at, masks, units, 1, 0, 1, "sigmoid", SLOPE)
    v, v0, s_v = _gate(at, masks, units, 2, 1, 2, "sigmoid", SLOPE)
    kept, kept0 = _sums(at, masks, units, -1, 2, 3)
    n, n0 = _sums(at, masks, units, 0, -1, 0)
    n, n0, s_n = activation(n + r * kept, n0 + r0 * kept0, "tanh", SLOPE)
    update = midpoint(v, v0, HALF)
    new = (1.0 - update) * s_n
    tl.store(k, new, mask=keeps)
    tl.store(k + units, new * midpoint(kept, kept0, HALF) * s_r, mask=keeps)
    tl.store(k + 2 * units, midpoint(old - n, old0 - n0, HALF) * s_v, mask=keeps)
    tl.store(k + 3 * units, new * midpoint(r, r0, HALF), mask=keeps)
    tl.store(k + 4 * units, update, mask=keeps)
    return n + v * (old - n)
