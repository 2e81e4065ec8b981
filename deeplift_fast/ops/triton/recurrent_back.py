"""One step back of a recurrent layer as one Triton kernel: the product of multipliers and weights, and the cell's back.

The coefficients are those of the forward kernel. The columns of `d` and of the weights are in its order too.
"""

import triton
import triton.language as tl

from deeplift_fast.ops.triton.recurrent_cells import read


@triton.jit(do_not_specialize=("count", "later", "first", "further", "slots", "stride"))
def backward_kernel(
    m_h: tl.tensor, m_master: tl.tensor, shares: tl.tensor,
    carried: tl.tensor,  # multipliers of c, or of a GRU's h without its gates, from the step after, [samples, units]
    sums_old: tl.tensor, sums_new: tl.tensor,  # of the master gates' multipliers, [2, blocks of all levels, samples]
    coefficients: tl.tensor, d: tl.tensor,  # multipliers of the pre-activations, [rows, width]
    weight: tl.tensor,  # from pre-activations to h, [gates of the state · units + masters, units]
    count: tl.tensor, later: tl.tensor,  # samples that have a step after
    first: tl.tensor, further: tl.tensor,  # layers that have a step after
    known: tl.tensor,  # columns of gates that the step after has: those of the state, or none
    skipped: tl.tensor,  # columns of `d` before them
    units: tl.tensor, chunk: tl.tensor, levels: tl.tensor, width: tl.tensor,
    weight_k: tl.tensor, weight_n: tl.tensor, weight_layer: tl.tensor,  # strides of the weights
    slots: tl.tensor, stride: tl.tensor,  # samples, and rows from one layer to the next
    CELL: tl.constexpr, COUNT: tl.constexpr, LEVELS: tl.constexpr, MASTERS: tl.constexpr, ROWS: tl.constexpr,
    UNITS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """The multipliers of h in all from the step after, then those of this step's pre-activations.

    A program handles some rows and some units of one level of a layer. Master gates need sums over all units: programs
    leave theirs for the next launch, which adds them up.
    """
    layer, slots = tl.program_id(2).to(tl.int64), slots.to(tl.int64)
    first += layer * stride
    weight += layer * weight_layer
    blocks = tl.cdiv(chunk, UNITS)
    level, block = tl.program_id(1) // blocks, tl.program_id(1) % blocks
    sample = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    inner = (block * UNITS + tl.arange(0, UNITS))[None, :]
    unit, fits = level * chunk + inner, inner < chunk
    inside, follows = (sample < count) & fits, (sample < later) & (layer < further)
    row, after = first + sample, first + count + sample
    dtype: tl.constexpr = tl.float64 if m_h.dtype.element_ty == tl.float64 else tl.float32
    to_unit = weight + unit.to(tl.int64) * weight_n
    m = tl.zeros([ROWS, UNITS], dtype)
    for start in range(0, tl.where(layer < further, known, 0), BLOCK):
        k, w_row = start + tl.arange(0, BLOCK)[None, :], (start + tl.arange(0, BLOCK)).to(tl.int64)[:, None]
        a = tl.load(d + after * width + skipped + k, mask=follows & (k < known), other=0.0)
        w = tl.load(to_unit + w_row * weight_k, mask=(w_row < known) & fits, other=0.0)
        m = tl.dot(a, w, m, input_precision=PRECISION, out_dtype=dtype)
    if CELL == "stagenet":
        master, w_row = tl.arange(0, MASTERS)[None, :], tl.arange(0, MASTERS).to(tl.int64)[:, None]
        at_sums = layer * 2 * levels * blocks * slots + sample
        share = read(shares + after * 2 * levels + master, follows & (master < 2 * levels))
        g = _sums_of_levels(sums_old + at_sums, follows, share, slots, levels, blocks, LEVELS)
        masters = _softmax_back(g, share, master < levels).to(d.dtype.element_ty)
        once = follows & (master < 2 * levels) & (tl.program_id(1) == 0)
        tl.store(d + after * width + 4 * units + master, masters, mask=once)
        w = tl.load(to_unit + (4 * units + w_row) * weight_k, mask=(w_row < 2 * levels) & fits, other=0.0)
        m = tl.dot(masters, w, m, input_precision=PRECISION, out_dtype=dtype)
    k, to = coefficients + row * COUNT * units + unit, d + row * width + unit
    own = (layer * slots + sample) * units + unit
    m += read(m_h + row * units + unit, inside)
    if CELL == "gru":
        m += read(carried + own, inside & follows)
        for gate in tl.static_range(4):
            tl.store(to + gate * units, m * read(k + gate * units, inside), mask=inside)
        tl.store(carried + own, m * read(k + 4 * units, inside), mask=inside)
    elif CELL == "rnn_tanh" or CELL == "rnn_relu":
        tl.store(to, m * read(k, inside), mask=inside)
    else:
        c = read(carried + own, inside & follows) + m * read(k + units, inside)
        tl.store(to, c * read(k + 3 * units, inside), mask=inside)
        tl.store(to + units, c * read(k + 4 * units, inside), mask=inside)
        tl.store(to + 2 * units, m * read(k, inside), mask=inside)
        tl.store(to + 3 * units, c * read(k + 5 * units, inside), mask=inside)
        tl.store(carried + own, c * read(k + 2 * units, inside), mask=inside)
        if CELL == "stagenet":
            place = sums_new + at_sums + tl.program_id(1) * slots
            forget = tl.sum(c * read(k + 6 * units, inside), 1)[:, None]
            # The forget gate itself has a multiplier too: the first block of each level adds it.
            forget += read(m_master + row * levels + level, (sample < count) & (block == 0))
            tl.store(place, forget, mask=sample < count)
            into = tl.sum(c * read(k + 7 * units, inside), 1)[:, None]
            tl.store(place + levels * blocks * slots, into, mask=sample < count)


@triton.jit
def _sums_of_levels(
    sums: tl.tensor, follows: tl.tensor, share: tl.tensor, slots: tl.tensor, levels: tl.tensor, blocks: tl.tensor,
    LEVELS: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Multipliers of the softmax of both kinds of master gates, `[rows, kinds · levels, …]`.

    A gate sums its softmax up to its level, or from its level on; multipliers take the opposite direction.
    """
    master, g = tl.arange(0, share.shape[1])[None, :], tl.zeros(share.shape, share.dtype)
    for start in range(0, blocks, 8):
        block = start + tl.arange(0, 8)[None, :]
        for level in tl.static_range(LEVELS):
            at, inside = sums + (level * blocks + block) * slots, follows & (block < blocks)
            forget = tl.sum(read(at, inside), 1)[:, None]
            into = tl.sum(read(at + levels * blocks * slots, inside), 1)[:, None]
            g += tl.where(master <= level, forget, tl.where(master >= levels + level, into, 0.0))
    return g


@triton.jit
def _softmax_back(g: tl.tensor, share: tl.tensor, forgets: tl.tensor) -> tl.tensor:
    """`softmax_back` of each row, for its forget and its input master gates."""
    total = _by_kind(share, forgets)
    total = tl.where(total > 0, total, 1.0)
    centred = g - _by_kind(share * g, forgets) / total
    return share * (centred - _by_kind(share * centred, forgets) / total)


@triton.jit
def _by_kind(x: tl.tensor, forgets: tl.tensor) -> tl.tensor:
    """The sums of each row's forget and input master gates, at the columns of each kind."""
    into = tl.sum(tl.where(forgets, 0.0, x), 1)[:, None]
    return tl.where(forgets, tl.sum(tl.where(forgets, x, 0.0), 1)[:, None], into)
