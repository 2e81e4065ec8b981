"""Attention over ragged rows that are keys and values in one, and its multipliers, in plain torch.

p is the softmax of the scores s = a·b, and mixed = Σ p·b. A bar stands for the mean of the two streams, or for the
input's value if `half` is 0. Then

    m_b = p̄·m + m_s·ā,    m_a = Σ m_s·b̄,    m_s = h∘(g − Σ h·g/Σ h)  with  g = m·b̄

where h are the logarithmic means of the probabilities in the two streams, or the probabilities at the input.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.naive.log_mean_softmax import log_mean, softmax_back
from deeplift_fast.ops.values import require_ends, require_within


@dataclass(frozen=True)
class _Grid:
    """Ragged samples padded to one shape: the indices of rows and queries, and whether each is real."""

    rows: Tensor  # [samples, rows]
    row_real: Tensor
    queries: Tensor  # [samples, queries]
    query_real: Tensor

    @staticmethod
    def of(starts: Tensor, queries: Tensor) -> "_Grid":
        (rows, row_real), (asking, query_real) = (_padded(ends) for ends in (starts, queries))
        return _Grid(rows, row_real, asking, query_real)

    def flat(self, heads: int) -> Tensor:
        """Which of `[samples, rows, heads, queries]` are real."""
        real = self.row_real[:, :, None] & self.query_real[:, None]
        return real.unsqueeze(2).expand(-1, -1, heads, -1)

    def asked(self, asked: Tensor) -> Tensor:
        """The queries, `[samples, heads, queries, width]`, with 0 as padding."""
        return torch.where(self.query_real[:, None, :, None], asked[:, self.queries].transpose(0, 1), 0)

    def taken(self, rows: Tensor, index: Tensor) -> Tensor:
        """The rows, `[samples, rows, width]`, with 0 as padding."""
        return torch.where(self.row_real.unsqueeze(-1), rows[index[self.rows]], 0)


def _padded(ends: Tensor) -> tuple[Tensor, Tensor]:
    lengths = ends.diff()
    places = torch.arange(int(lengths.max()) if len(lengths) else 0, device=ends.device)
    real = places < lengths[:, None]
    return torch.where(real, ends[:-1, None] + places, 0), real


def attention(
    asked: Tensor, rows: Tensor, index: Tensor, starts: Tensor, queries: Tensor, looks: Tensor, seen: Tensor,
    pairs: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Attention over ragged rows that are keys and values in one: `Σ softmax(a·b)·b`, in one stream.

    Args:
        asked: the scaled queries, sample by sample.
        rows: keys and values.
        index: the indices of each sample's rows, sample by sample; no two samples share a row.
        starts: the start of each sample in `index`, and the total length.
        queries: the start of each sample's queries in `asked`, and the total number.
        looks: whether a query looks at the visible rows; if not, it weighs all rows alike.
        seen: whether a row is visible.
        pairs: the number of pairs of a row and a query of the same sample, `Σ rows·queries` without the heads. It gives
            the size of `log_p` without a wait for the device.

    Returns:
        `(mixed, log_p)`: the weighted sums, and the logarithms of the weights, `[rows, heads · queries]` sample by
        sample, −inf for rows that are not visible.

    Raises:
        RuntimeError, IndexError: if an index is out of range, `starts` or `queries` do not rise to the end, or `pairs`
            is not that sum (a ValueError for the last two in plain torch).
    """
    _check("attention", asked, rows, index, starts, queries)
    found = int((starts.diff() * queries.diff()).sum())
    if found != pairs:
        raise ValueError(f"attention: pairs is {pairs}; the samples have {found}")
    grid = _Grid.of(starts, queries)
    if not grid.flat(len(asked)).any():
        return torch.zeros_like(asked), asked.new_empty(0, dtype=computed(asked.dtype))
    dtype, wide = asked.dtype, computed(asked.dtype)
    asked, rows = asked.to(wide), rows.to(wide)
    taken = grid.taken(rows, index)
    scores = torch.einsum("shqd,snd->snhq", grid.asked(asked), taken)
    visible = seen[grid.rows] & grid.row_real
    chooses = (looks[grid.queries] & visible.any(1, keepdim=True))[:, None, None]
    scores = torch.where(chooses, scores.masked_fill(~visible[:, :, None, None], -torch.inf), 0)
    log_p = scores.masked_fill(~grid.row_real[:, :, None, None], -torch.inf).log_softmax(1)
    mixed = torch.zeros_like(asked)
    p = torch.where(grid.row_real[:, :, None, None], log_p.exp(), 0)
    by_sample = torch.einsum("snhq,snd->hsqd", p, taken)
    mixed[:, grid.queries[grid.query_real]] = by_sample[:, grid.query_real]
    return mixed.to(dtype), log_p[grid.flat(len(asked))]


def attention_backward(
    m: Tensor, asked: Tensor, asked0: Tensor, rows: Tensor, rows0: Tensor, index: Tensor, index0: Tensor,
    starts: Tensor, starts0: Tensor, queries: Tensor, queries0: Tensor, where: Tensor, looks: Tensor, log_p: Tensor,
    log_p0: Tensor, half: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Multipliers of :func:`attention`'s queries and rows at the input, from those of `mixed`.

    Args:
        m: multipliers of `mixed` at the input.
        asked, asked0, rows, rows0, index, index0, starts, starts0, queries, queries0: the arguments of
            :func:`attention` at the input and at the baseline.
        where: the index of each sample's baseline, which has as many rows and queries.
        looks: as for :func:`attention`, at the input.
        log_p, log_p0: results of :func:`attention`.
        half: 0.5 for the midpoint and log-mean rules, 0 for the gradient at the input.

    Returns:
        `(m_asked, m_rows)`; 0 for rows of no sample. Errors are those of :func:`attention`.
    """
    _check("attention_backward", asked, rows, index, starts, queries)
    _check("attention_backward", asked0, rows0, index0, starts0, queries0)
    require_within("attention_backward: where", where, len(starts0) - 1)
    sizes, sizes0 = (torch.stack([a.diff(), b.diff()]) for a, b in ((starts, queries), (starts0, queries0)))
    if not torch.equal(sizes, sizes0[:, where]):
        raise ValueError("attention_backward: a sample and its baseline differ in rows or queries")
    grid, grid0 = _Grid.of(starts, queries), _Grid.of(starts0, queries0)
    m_asked, m_rows = torch.zeros_like(asked), torch.zeros_like(rows)
    real = grid.flat(len(asked))
    if not real.any():
        return m_asked, m_rows
    m, asked, asked0, rows, rows0 = (each.to(computed(m.dtype)) for each in (m, asked, asked0, rows, rows0))
    a, b, arriving = grid.asked(asked), grid.taken(rows, index), grid.asked(m)
    n, q = b.shape[1], a.shape[2]
    a0, b0 = grid0.asked(asked0)[where][:, :, :q], grid0.taken(rows0, index0)[where][:, :n]
    a_mean, b_mean = torch.lerp(a, a0, half), torch.lerp(b, b0, half)
    found, found0 = (
        torch.full(each.shape, -torch.inf, dtype=m.dtype, device=m.device).masked_scatter_(each, logs)
        for each, logs in ((real, log_p), (grid0.flat(len(asked)), log_p0))
    )
    found0 = found0[where][:, :n, :, :q]
    p_mean, h = torch.lerp(found.exp(), found0.exp(), half), log_mean(found, found0) if half else found.exp()
    h = h * looks[grid.queries][:, None, None]
    g = torch.einsum("shqd,snd->snhq", arriving, b_mean)
    m_scores = softmax_back(g, h, 1)
    of_rows = torch.einsum("snhq,shqd->snd", p_mean, arriving) + torch.einsum("snhq,shqd->snd", m_scores, a_mean)
    of_asked = torch.einsum("snhq,snd->hsqd", m_scores, b_mean)
    m_rows[index[grid.rows[grid.row_real]]] = of_rows[grid.row_real]
    m_asked[:, grid.queries[grid.query_real]] = of_asked[:, grid.query_real]
    return m_asked, m_rows


def _check(op: str, asked: Tensor, rows: Tensor, index: Tensor, starts: Tensor, queries: Tensor) -> None:
    require_within(f"{op}: index", index, len(rows))
    require_ends(f"{op}: starts", starts, len(index))
    require_ends(f"{op}: queries", queries, asked.shape[1])
