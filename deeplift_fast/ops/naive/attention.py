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

    def chooses(self, looks: Tensor, seen: Tensor) -> Tensor:
        """Which queries look and have a visible row, `[samples, 1, 1, queries]`."""
        visible = seen[self.rows] & self.row_real
        return (looks[self.queries] & visible.any(1, keepdim=True))[:, None, None]

    def scores(self, asked: Tensor, looks: Tensor, seen: Tensor, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The masked scores, `[samples, rows, heads, queries]`, −inf as padding, and the rows that they meet."""
        taken = self.taken(rows, index)
        scores = torch.einsum("shqd,snd->snhq", self.asked(asked), taken)
        unseen = ~seen[self.rows][:, :, None, None]
        scores = torch.where(self.chooses(looks, seen), scores.masked_fill(unseen, -torch.inf), 0)
        return scores.masked_fill(~self.row_real[:, :, None, None], -torch.inf), taken


def _padded(ends: Tensor) -> tuple[Tensor, Tensor]:
    lengths = ends.diff()
    places = torch.arange(int(lengths.max()) if len(lengths) else 0, device=ends.device)
    real = places < lengths[:, None]
    return torch.where(real, ends[:-1, None] + places, 0), real


def attention(
    asked: Tensor, rows: Tensor, index: Tensor, starts: Tensor, queries: Tensor, looks: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention over ragged rows that are keys and values in one: `Σ softmax(a·b)·b`, in one stream.

    Args:
        asked: the scaled queries, sample by sample.
        rows: keys and values.
        index: the indices of each sample's rows, sample by sample; no two samples share a row.
        starts: the start of each sample in `index`, and the total length.
        queries: the start of each sample's queries in `asked`, and the total number.
        looks: whether a query looks at the visible rows; if not, it weighs all rows alike.
        seen: whether a row is visible.

    Returns:
        `(mixed, log_sums)`: the weighted sums, and the logarithms of the sums of the scores' exponentials, from which
        the backward op computes the weights again; −inf for a sample without rows.

    Raises:
        RuntimeError, IndexError: if an index is out of range, or `starts` or `queries` do not rise to the end (a
            ValueError for the last two in plain torch).
    """
    _check("attention", asked, rows, index, starts, queries)
    grid, dtype, wide = _Grid.of(starts, queries), asked.dtype, computed(asked.dtype)
    asked, rows = asked.to(wide), rows.to(wide)
    mixed, log_sums = torch.zeros_like(asked), torch.full_like(asked[..., 0], -torch.inf)
    if not grid.flat(len(asked)).any():
        return mixed.to(dtype), log_sums
    scores, taken = grid.scores(asked, looks, seen, rows, index)
    sums, to = scores.logsumexp(1), grid.queries[grid.query_real]
    p = torch.where(grid.row_real[:, :, None, None], scores.softmax(1), 0)
    mixed[:, to] = torch.einsum("snhq,snd->hsqd", p, taken)[:, grid.query_real]
    log_sums[:, to] = sums.transpose(0, 1)[:, grid.query_real]
    return mixed.to(dtype), log_sums


def attention_backward(
    m: Tensor, asked: Tensor, asked0: Tensor, rows: Tensor, rows0: Tensor, index: Tensor, index0: Tensor,
    starts: Tensor, starts0: Tensor, queries: Tensor, queries0: Tensor, where: Tensor, looks: Tensor, looks0: Tensor,
    seen: Tensor, seen0: Tensor, log_sums: Tensor, log_sums0: Tensor, half: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Multipliers of :func:`attention`'s queries and rows at the input, from those of `mixed`.

    Args:
        m: multipliers of `mixed` at the input.
        asked, asked0, rows, rows0, index, index0, starts, starts0, queries, queries0, looks, looks0, seen, seen0: the
            arguments of :func:`attention` at the input and at the baseline.
        where: the index of each sample's baseline, which has as many rows and queries.
        log_sums, log_sums0: results of :func:`attention`.
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
    (found, b), (found0, b0) = (
        (scores - of.asked(sums.unsqueeze(-1)).squeeze(-1)[:, None], taken)
        for of, sums, (scores, taken) in (
            (grid, log_sums, grid.scores(asked, looks, seen, rows, index)),
            (grid0, log_sums0, grid0.scores(asked0, looks0, seen0, rows0, index0)),
        )
    )
    n, q = b.shape[1], grid.queries.shape[1]
    arriving, a_mean = grid.asked(m), torch.lerp(grid.asked(asked), grid0.asked(asked0)[where][:, :, :q], half)
    b_mean, found0 = torch.lerp(b, b0[where][:, :n], half), found0[where][:, :n, :, :q]
    found, found0 = (each.masked_fill(~real, -torch.inf) for each in (found, found0))
    p_mean, h = torch.lerp(found.exp(), found0.exp(), half), log_mean(found, found0) if half else found.exp()
    h = h * grid.chooses(looks, seen)
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
