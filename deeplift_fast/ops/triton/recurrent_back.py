"""One step back of a recurrent layer as one Triton kernel: the product of multipliers and weights, and the cell's back.

The coefficients are those of the forward kernel. The columns of `d` and of the weights are in its order too.
"""

import triton
import triton.language as tl

from deeplift_fast.ops.triton.recurrent_cells import STEP, placed, units_of
from deeplift_fast.ops.triton.tiles import computed_in, read


@triton.jit(do_not_specialize=(*STEP, "later", "further"))
def backward_kernel(
    m_h, m_master, shares,
    carried,  # multipliers of c, or of a GRU's h without its gates, from the step after, [samples, units]
    sums_old, sums_new,  # of the master gates' multipliers, [2, blocks of all levels, places]
    coefficients, d,  # multipliers of the pre-activations, [rows, width]
    weight,  # from pre-activations to h, [gates of the state · units + masters, units]
    order, lengths,  # see :func:`placed`
    count, later,  # samples that have a step after
    first, further,  # layers that have a step after
    step, columns, across, known,  # columns of gates that the step after has: those of the state, or none
    skipped,  # columns of `d` before them
    units, chunk, levels, width, weight_k, weight_n, weight_layer,  # strides of the weights
    slots, stride,  # places, and rows from one layer to the next
    CELL: tl.constexpr, COUNT: tl.constexpr, LEVELS: tl.constexpr, MASTERS: tl.constexpr, ROWS: tl.constexpr,
    UNITS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The multipliers of h in all from the step after, then those of this step's pre-activations.

    A program handles some rows and some units of one level of a layer. Master gates need sums over all units: programs
    leave theirs for the next launch, which adds them up.
    """
    layer, slots = tl.program_id(2).to(tl.int64), slots.to(tl.int64)
    first += layer * stride
    weight += layer * weight_layer
    level, block, unit, fits = units_of(chunk, UNITS)
    ahead = tl.program_id(0).to(tl.int64) * ROWS
    place = ahead + tl.arange(0, ROWS)[:, None]
    written, written_after = place < count, (place < later) & (layer < further)
    sample, here, follows, ended = place, written, written_after, False
    if lengths is not None:
        _sample, longest = placed(order, lengths, layer, columns, across, ahead, slots)
        sample, length = placed(order, lengths, layer, columns, across, place, slots)
        ended = longest <= step
        here, follows = written & (length > step), written_after & (length > step + 1)
    row, after, master = first + sample, first + count + sample, tl.arange(0, MASTERS)[None, :]
    once = written_after & (master < 2 * levels) & (tl.program_id(1) == 0)
    if ended:  # multipliers past the end are 0
        for gate in tl.static_range(4):
            tl.store(d + row * width + gate * units + unit, 0.0, mask=written & fits)
        tl.store(d + after * width + 4 * units + master, 0.0, mask=once)
        return
    to_unit = weight + unit.to(tl.int64) * weight_n
    m = tl.zeros([ROWS, UNITS], computed_in(m_h.dtype.element_ty))
    for start in range(0, tl.where(layer < further, known, 0), BLOCK):
        k, w_row = start + tl.arange(0, BLOCK)[None, :], (start + tl.arange(0, BLOCK)).to(tl.int64)[:, None]
        a = tl.load(d + after * width + skipped + k, mask=follows & (k < known), other=0.0)
        w = tl.load(to_unit + w_row * weight_k, mask=(w_row < known) & fits, other=0.0)
        m = tl.dot(a, w, m, input_precision=PRECISION, out_dtype=m.dtype)
    sums = None
    if CELL == "stagenet":
        blocks = levels * tl.cdiv(chunk, UNITS)
        at_sums = layer * 2 * blocks * slots + place
        share = read(shares + after * 2 * levels + master, follows & (master < 2 * levels))
        g = _sums_of_levels(sums_old + at_sums, follows, share, slots, levels, blocks // levels, LEVELS)
        masters = _softmax_back(g, share, master < levels).to(d.dtype.element_ty)
        tl.store(d + after * width + 4 * units + master, masters, mask=once)
        w_row = tl.arange(0, MASTERS).to(tl.int64)[:, None]
        w = tl.load(to_unit + (4 * units + w_row) * weight_k, mask=(w_row < 2 * levels) & fits, other=0.0)
        m = tl.dot(masters, w, m, input_precision=PRECISION, out_dtype=m.dtype)
        if lengths is not None:  # read again, so that they take no registers during the products
            sample, length = placed(order, lengths, layer, columns, across, place, slots)
            row, here = first + sample, written & (length > step)
        # The forget gate itself has a multiplier too: the first block of each level adds it.
        own, first_block = m_master + row * levels + level, here & (block == 0)
        sums = sums_new + at_sums + tl.program_id(1) * slots, blocks * slots, own, first_block
    m += read(m_h + row * units + unit, here & fits)
    own = carried + (layer * slots + sample) * units + unit
    at = coefficients + row * COUNT * units + unit, d + row * width + unit, own
    _cell_back(m, at, (here & fits, written & fits, follows, written), sums, units, CELL)


@triton.jit
def _cell_back(m, at, masks, sums, units, CELL: tl.constexpr):
    """Store the multipliers of a step's pre-activations, of what it carries, and of StageNet's master gates."""
    k, to, own = at
    inside, written, follows, rows = masks
    if CELL == "gru":
        m += read(own, inside & follows)
        for gate in tl.static_range(4):
            tl.store(to + gate * units, m * read(k + gate * units, inside), mask=written)
        tl.store(own, m * read(k + 4 * units, inside), mask=inside)
    elif CELL == "rnn_tanh" or CELL == "rnn_relu":
        tl.store(to, m * read(k, inside), mask=written)
    else:
        c = read(own, inside & follows) + m * read(k + units, inside)
        tl.store(to, c * read(k + 3 * units, inside), mask=written)
        tl.store(to + units, c * read(k + 4 * units, inside), mask=written)
        tl.store(to + 2 * units, m * read(k, inside), mask=written)
        tl.store(to + 3 * units, c * read(k + 5 * units, inside), mask=written)
        tl.store(own, c * read(k + 2 * units, inside), mask=inside)
        if CELL == "stagenet":
            place, further, m_forget, first = sums
            forget = tl.sum(c * read(k + 6 * units, inside), 1)[:, None] + read(m_forget, first)
            tl.store(place, forget, mask=rows)
            tl.store(place + further, tl.sum(c * read(k + 7 * units, inside), 1)[:, None], mask=rows)


@triton.jit
def _sums_of_levels(sums, follows, share, slots, levels, blocks, LEVELS: tl.constexpr):
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
def _softmax_back(g, share, forgets):
    """`softmax_back` of each row, for its forget and its input master gates."""
    total = _by_kind(share, forgets)
    total = tl.where(total > 0, total, 1.0)
    centred = g - _by_kind(share * g, forgets) / total
    return share * (centred - _by_kind(share * centred, forgets) / total)


@triton.jit
def _by_kind(x, forgets):
    """The sums of each row's forget and input master gates, at the columns of each kind."""
    into = tl.sum(tl.where(forgets, 0.0, x), 1)[:, None]
    return tl.where(forgets, tl.sum(tl.where(forgets, x, 0.0), 1)[:, None], into)
