"""One step of a recurrent layer as one Triton kernel: the product of states and weights, the cell, its coefficients.

Both streams are in one tile. `naive/recurrent.py` has the formulas of the coefficients. The columns of the weights are
all units gate by gate, then StageNet's forget master gates of all levels and its input master gates.
"""

import triton
import triton.language as tl

from deeplift_fast.ops.triton.activations import activation, exponential, midpoint


@triton.jit(do_not_specialize=("count", "count0", "rows", "first", "first0", "before", "before0", "slots", "stride"))
def forward_kernel(
    projected: tl.tensor,  # inputs times weights, [rows + rows0, gates of the input · units + masters]
    weight: tl.tensor,  # of the states, [units, gates of the state · units + masters]
    bias: tl.tensor, master_bias: tl.tensor, where: tl.tensor,
    c_old: tl.tensor, c_new: tl.tensor,  # in slots: the baselines, then the samples from `slots0` on
    h: tl.tensor, h0: tl.tensor, coefficients: tl.tensor, log_p: tl.tensor, log_p0: tl.tensor,
    count: tl.tensor, count0: tl.tensor, rows: tl.tensor, first: tl.tensor, first0: tl.tensor,
    before: tl.tensor, before0: tl.tensor,  # the first rows of the step before
    known: tl.tensor,  # units that have states: all, or none at the first step
    units: tl.tensor, chunk: tl.tensor,  # units of a level
    levels: tl.tensor, projected_width: tl.tensor, weight_k: tl.tensor, weight_n: tl.tensor,  # strides of the weights
    weight_layer: tl.tensor, bias_layer: tl.tensor, slots: tl.tensor, slots0: tl.tensor,
    stride: tl.tensor,  # rows from one layer to the next
    CELL: tl.constexpr, SLOPE: tl.constexpr, HALF: tl.constexpr,
    GATES: tl.constexpr,  # of the state
    COUNT: tl.constexpr,  # coefficients of a unit
    SHARED: tl.constexpr,  # whether all samples have one baseline
    LEVELS: tl.constexpr,  # 8 or a larger power of two
    ROWS: tl.constexpr, UNITS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """States at the input and at the baseline, and the coefficients for the backward op.

    A program handles some rows and some units of one level of a layer. Sizes are those of a layer, except `rows`, which
    counts all layers.

    A shared baseline is the first row of every tile. Otherwise a tile holds samples and the baseline of each. It also
    keeps the baselines' new states if each baseline has the number of its sample; else tiles of baselines keep them.
    """
    # int64: an int32 offset wraps at 2**31 elements.
    layer = tl.program_id(2).to(tl.int64)
    skipped, slot0 = layer * stride, layer * slots
    first, first0, before, before0 = first + skipped, first0 + skipped, before + skipped, before0 + skipped
    weight += layer * weight_layer
    bias += layer * bias_layer
    master_bias += layer * bias_layer
    row = tl.arange(0, ROWS)
    if SHARED:
        sample = tl.program_id(0).to(tl.int64) * (ROWS - 1) + row - 1
        here = (row > 0) & (sample < count)
        other = tl.zeros([1], tl.int64)
        there = other == 0
        keeps0 = there & (tl.program_id(0) == 0)
        of_baseline, present, its_sample, its_other = row == 0, here | (row == 0), sample, other
    else:
        tiles = tl.cdiv(count, ROWS // 2)
        alone = tl.program_id(0) >= tiles  # a tile of baselines
        ahead = (tl.program_id(0) - tl.where(alone, tiles, 0)).to(tl.int64) * (ROWS // 2)
        sample = ahead + tl.arange(0, ROWS // 2)
        facing = tl.load(where + sample, mask=sample < count, other=-1)
        paired = tl.min(((facing == sample) | (sample >= count0)).to(tl.int32), 0) == 1
        if alone & paired:
            return
        here = (sample < count) & (tl.program_id(0) < tiles)
        there = here | (alone & (sample < count0))
        other = tl.where(alone, sample, facing)
        keeps0 = there & (other == sample) & (alone | paired)
        # Eight samples, then their baselines, and so on: tensor cores give rows 8 apart to one thread.
        of_baseline, its_sample = (row >> 3) & 1 == 1, ahead + ((row >> 4 << 3) | (row & 7))
        its_other = tl.load(where + its_sample, mask=(its_sample < count) & (tl.program_id(0) < tiles), other=-1)
        its_other = tl.where(alone, its_sample, its_other)
        present = tl.where(alone, of_baseline & (its_sample < count0), its_sample < count)

    blocks = tl.cdiv(chunk, UNITS)
    level, block = tl.program_id(1) // blocks, tl.program_id(1) % blocks
    fits = (block * UNITS + tl.arange(0, UNITS) < chunk)[None, :]
    unit = (level * chunk + block * UNITS + tl.arange(0, UNITS))[None, :]
    inside, inside0, kept0 = here[:, None] & fits, there[:, None] & fits, keeps0[:, None] & fits
    parts: tl.constexpr = 1 if GATES == 1 else 4
    gate, place = tl.arange(0, parts * UNITS).to(tl.int64) // UNITS, block * UNITS + tl.arange(0, parts * UNITS) % UNITS
    exists = ((place < chunk) & (gate < GATES))[None, :]
    to_gates = weight + ((gate * units + level * chunk + place) * weight_n)[None, :]
    master = tl.arange(0, 2 * LEVELS)[None, :]
    valid = master % LEVELS < levels
    past = GATES * units + tl.where(master < LEVELS, 0, levels) + master % LEVELS
    to_masters = weight + past.to(tl.int64) * weight_n
    dtype: tl.constexpr = tl.float64 if h.dtype.element_ty == tl.float64 else tl.float32
    z, p = tl.zeros([ROWS, parts * UNITS], dtype), tl.zeros([ROWS, 2 * LEVELS], dtype)
    old, old0 = h + (before + its_sample) * units, h0 + (before0 + its_other) * units
    old = tl.where(of_baseline, old0, old)[:, None]
    for start in range(0, known, BLOCK):
        k, w_row = start + tl.arange(0, BLOCK)[None, :], (start + tl.arange(0, BLOCK)).to(tl.int64)[:, None]
        a = tl.load(old + k, mask=present[:, None] & (k < known), other=0.0)
        w = tl.load(to_gates + w_row * weight_k, mask=(w_row < known) & exists, other=0.0)
        z = tl.dot(a, w, z, input_precision=PRECISION, out_dtype=dtype)
        if CELL == "stagenet":
            w = tl.load(to_masters + w_row * weight_k, mask=(w_row < known) & valid, other=0.0)
            p = tl.dot(a, w, p, input_precision=PRECISION, out_dtype=dtype)
    z, z0 = _by_stream(z, SHARED)
    p, p0 = _by_stream(p, SHARED)

    u = projected + ((first + sample) * projected_width)[:, None]
    u0 = projected + ((rows + first0 + other) * projected_width)[:, None]
    of_input = (u + unit, _by_gate(z, parts, UNITS), inside)
    of_baseline = (u0 + unit, _by_gate(z0, parts, UNITS), inside0)
    at = (of_input, of_baseline, (bias + unit, fits))
    own, own0 = ((slot0 + slots0 + sample) * units)[:, None] + unit, ((slot0 + other) * units)[:, None] + unit
    moved, moved0 = inside & (known > 0), inside0 & (known > 0)
    k = coefficients + ((first + sample) * COUNT * units)[:, None] + unit
    if CELL == "gru":
        last = read(h + ((before + sample) * units)[:, None] + unit, moved)
        last0 = read(h0 + ((before0 + other) * units)[:, None] + unit, moved0)
        state, state0 = _gru(at, last, last0, k, units, HALF, SLOPE)
    elif CELL == "rnn_tanh" or CELL == "rnn_relu":
        function: tl.constexpr = "tanh" if CELL == "rnn_tanh" else "relu"
        state, state0, slope = _gate(at, units, 0, 0, 0, function, SLOPE)
        tl.store(k, slope, mask=inside)
    else:
        c, c0 = read(c_old + own, moved), read(c_old + own0, moved0)
        if CELL == "lstm":
            state, state0, c, c0 = _lstm(at, c, c0, k, units, HALF, SLOPE)
        else:
            past = 4 * units
            log, log_into, forget, into = _masters((u + past, p, here[:, None]), master_bias, levels, level, LEVELS)
            masters0 = (u0 + past, p0, there[:, None])
            log0, log_into0, forget0, into0 = _masters(masters0, master_bias, levels, level, LEVELS)
            once = (tl.arange(0, LEVELS)[None, :] < levels) & (tl.program_id(1) == 0)
            to = log_p + ((first + sample) * 2 * levels)[:, None] + tl.arange(0, LEVELS)[None, :]
            to0 = log_p0 + ((first0 + other) * 2 * levels)[:, None] + tl.arange(0, LEVELS)[None, :]
            tl.store(to, log, mask=here[:, None] & once)
            tl.store(to + levels, log_into, mask=here[:, None] & once)
            tl.store(to0, log0, mask=keeps0[:, None] & once)
            tl.store(to0 + levels, log_into0, mask=keeps0[:, None] & once)
            state, state0, c, c0 = _stagenet(at, c, c0, (forget, forget0, into, into0), k, units, HALF, SLOPE)
        tl.store(c_new + own, c, mask=inside)
        tl.store(c_new + own0, c0, mask=kept0)
    tl.store(h + ((first + sample) * units)[:, None] + unit, state, mask=inside)
    tl.store(h0 + ((first0 + other) * units)[:, None] + unit, state0, mask=kept0)


@triton.jit
def read(pointer: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """Load numbers as float32 or float64, with 0 outside of the mask."""
    x = tl.load(pointer, mask=mask, other=0.0)
    return x if x.dtype == tl.float64 else x.to(tl.float32)


@triton.jit
def _by_stream(z: tl.tensor, SHARED: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """The rows of the samples, and those of their baselines: the first row if all share it."""
    if SHARED:
        here, there = z, tl.sum(tl.where(tl.arange(0, z.shape[0])[:, None] == 0, z, 0.0), 0)[None, :]
    else:
        here, there = tl.split(tl.permute(tl.reshape(z, (z.shape[0] // 16, 2, 8, z.shape[1])), (0, 2, 3, 1)))
        here, there = (
            tl.reshape(here, (z.shape[0] // 2, z.shape[1])),
            tl.reshape(there, (z.shape[0] // 2, z.shape[1])),
        )
    return here, there


@triton.jit
def _by_gate(z: tl.tensor, GATES: tl.constexpr, UNITS: tl.constexpr) -> tuple[tl.tensor, ...]:
    """Columns of one gate, or of four, as one tensor for each gate."""
    if GATES == 1:
        gates = (z, z, z, z)
    else:
        even, odd = tl.split(tl.permute(tl.reshape(z, (z.shape[0], 2, 2, UNITS)), (0, 3, 1, 2)))
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        gates = (first, second, third, fourth)
    return gates


@triton.jit
def _sums(
    at: tl.tuple, units: tl.tensor, U: tl.constexpr, Z: tl.constexpr, B: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
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
    at: tl.tuple, units: tl.tensor, U: tl.constexpr, Z: tl.constexpr, B: tl.constexpr, FUNCTION: tl.constexpr,
    SLOPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """A gate at the input and at the baseline, and its multiplier."""
    a, b = _sums(at, units, U, Z, B)
    return activation(a, b, FUNCTION, SLOPE)


@triton.jit
def _masters(
    of_stream: tl.tuple, bias: tl.tensor, levels: tl.tensor, level: tl.tensor, LEVELS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Logarithms of the softmax of the forget and of the input master gates, and both gates at a level.

    The forget gate sums from the first level up, the input gate from the last one down.
    """
    u, p, there = of_stream
    kind = tl.arange(0, LEVELS)[None, :]
    valid = kind < levels
    forget, into = tl.split(tl.permute(tl.reshape(p, (p.shape[0], 2, LEVELS)), (0, 2, 1)))
    forget += read(bias + kind, valid) + read(u + kind, valid & there)
    into += read(bias + levels + kind, valid) + read(u + levels + kind, valid & there)
    log_forget, forget = _softmax(forget, valid)
    log_into, into = _softmax(into, valid)
    forget = tl.sum(tl.where(kind <= level, forget, 0.0), 1)[:, None]
    return log_forget, log_into, forget, tl.sum(tl.where(kind >= level, into, 0.0), 1)[:, None]


@triton.jit
def _softmax(x: tl.tensor, valid: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Logarithms and probabilities over the second dimension."""
    shifted = tl.where(valid, x - tl.max(tl.where(valid, x, float("-inf")), 1)[:, None], 0.0)
    log_p = shifted - tl.log(tl.sum(tl.where(valid, exponential(shifted)[0], 0.0), 1)[:, None])
    return log_p, tl.where(valid, exponential(log_p)[0], 0.0)


@triton.jit
def _stagenet(
    at: tl.tuple, c: tl.tensor, c0: tl.tensor, masters: tl.tuple, k: tl.tensor, units: tl.tensor, HALF: tl.constexpr,
    SLOPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """The new h and c in both streams; stores each coefficient as soon as it is known, which takes fewer registers."""
    keeps = at[0][2]
    forget, forget0, into, into0 = masters
    overlap, overlap0 = forget * into, forget0 * into0
    both, last = midpoint(overlap, overlap0, HALF), midpoint(c, c0, HALF)
    mean_forget, mean_into = midpoint(forget, forget0, HALF), midpoint(into, into0, HALF)
    f, f0, s_f = _gate(at, units, 0, 0, 0, "sigmoid", SLOPE)
    tl.store(k + 2 * units, both * midpoint(f, f0, HALF) + mean_forget - both, mask=keeps)
    tl.store(k + 3 * units, both * last * s_f, mask=keeps)
    g, g0, s_g = _gate(at, units, 3, 3, 3, "tanh", SLOPE)
    i, i0, s_i = _gate(at, units, 1, 1, 1, "sigmoid", SLOPE)
    fresh = midpoint(g, g0, HALF)
    tl.store(k + 4 * units, both * fresh * s_i, mask=keeps)
    tl.store(k + 5 * units, (both * midpoint(i, i0, HALF) + mean_into - both) * s_g, mask=keeps)
    mixed, mixed0 = f * c + i * g, f0 * c0 + i0 * g0
    rest = midpoint(mixed, mixed0, HALF) - last - fresh
    tl.store(k + 6 * units, last + rest * mean_into, mask=keeps)
    tl.store(k + 7 * units, fresh + rest * mean_forget, mask=keeps)
    now = overlap * mixed + (forget - overlap) * c + (into - overlap) * g
    now0 = overlap0 * mixed0 + (forget0 - overlap0) * c0 + (into0 - overlap0) * g0
    state, state0 = _output(at, now, now0, k, units, HALF, SLOPE)
    return state, state0, now, now0


@triton.jit
def _lstm(
    at: tl.tuple, c: tl.tensor, c0: tl.tensor, k: tl.tensor, units: tl.tensor, HALF: tl.constexpr,
    SLOPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """The new h and c in both streams; stores the coefficients."""
    keeps = at[0][2]
    f, f0, s_f = _gate(at, units, 0, 0, 0, "sigmoid", SLOPE)
    tl.store(k + 2 * units, midpoint(f, f0, HALF), mask=keeps)
    tl.store(k + 3 * units, midpoint(c, c0, HALF) * s_f, mask=keeps)
    g, g0, s_g = _gate(at, units, 3, 3, 3, "tanh", SLOPE)
    i, i0, s_i = _gate(at, units, 1, 1, 1, "sigmoid", SLOPE)
    tl.store(k + 4 * units, midpoint(g, g0, HALF) * s_i, mask=keeps)
    tl.store(k + 5 * units, midpoint(i, i0, HALF) * s_g, mask=keeps)
    now, now0 = f * c + i * g, f0 * c0 + i0 * g0
    state, state0 = _output(at, now, now0, k, units, HALF, SLOPE)
    return state, state0, now, now0


@triton.jit
def _output(
    at: tl.tuple, c: tl.tensor, c0: tl.tensor, k: tl.tensor, units: tl.tensor, HALF: tl.constexpr,
    SLOPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """`o · tanh c`, for StageNet and LSTM."""
    keeps = at[0][2]
    t, t0, s_t = activation(c, c0, "tanh", SLOPE)
    o, o0, s_o = _gate(at, units, 2, 2, 2, "sigmoid", SLOPE)
    tl.store(k, midpoint(t, t0, HALF) * s_o, mask=keeps)
    tl.store(k + units, midpoint(o, o0, HALF) * s_t, mask=keeps)
    return o * t, o0 * t0


@triton.jit
def _gru(
    at: tl.tuple, old: tl.tensor, old0: tl.tensor, k: tl.tensor, units: tl.tensor, HALF: tl.constexpr,
    SLOPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
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
