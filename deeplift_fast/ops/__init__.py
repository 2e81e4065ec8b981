"""Numbers in, numbers out: the arithmetic of the rules, with one implementation per backend.

Tensors are contiguous, and float32 or float64. On CUDA ops take float16 and bfloat16 as well, which compute in float32,
and any strides, copied once where they are not contiguous; and there no number of an index is checked, since that would
wait for the device: one that lies outside reads or writes beside its tensor.

Raw calls of `torch.ops.deeplift_fast` pass the checks of this package by. On the CPU the kernels themselves raise
`RuntimeError` where a shape, a dtype or a number that they index by would lead out of memory.
"""

from torch import Tensor

from deeplift_fast.ops import arguments
from deeplift_fast.ops.recurrences import (
    lockstep,
    lockstep_backward,
    recurrent,
    recurrent_backward,
    stage_window,
    stage_window_backward,
)
from deeplift_fast.ops.registry import Backend, BackendWarning, backend_for, backends, overload, release_memory
from deeplift_fast.ops.schema import NAMESPACE, SCHEMAS

__all__ = [
    "NAMESPACE",
    "SCHEMAS",
    "Backend",
    "BackendWarning",
    "attention",
    "attention_backward",
    "backend_for",
    "backends",
    "convergence",
    "gated_sum",
    "gelu",
    "layer_norm_backward",
    "lockstep",
    "lockstep_backward",
    "log_mean_softmax",
    "log_mean_softmax_backward",
    "recurrent",
    "recurrent_backward",
    "release_memory",
    "secant",
    "stage_window",
    "stage_window_backward",
    "token_contributions",
]

_secant = overload("secant")
_attention = overload("attention")
_attention_backward = overload("attention_backward")
_convergence = overload("convergence")
_gated_sum = overload("gated_sum")
_gelu = overload("gelu")
_layer_norm_backward = overload("layer_norm_backward")
_log_mean_softmax = overload("log_mean_softmax")
_log_mean_softmax_backward = overload("log_mean_softmax_backward")
_token_contributions = overload("token_contributions")


def secant(x: Tensor, x0: Tensor, function: str, variant: str = "rescale") -> tuple[Tensor, Tensor, Tensor]:
    """An activation at the input and at the baseline, and its secant multiplier, in one pass over memory.

    Args:
        x: the pre-activation at the input; any shape and strides; float32, float64, float16 or bfloat16 (the
            half types compute in float32).
        x0: the pre-activation at the baseline, with the shape, dtype and device of `x`.
        function: `"relu"`, `"sigmoid"` or `"tanh"`.
        variant: `"rescale"` for `(f(x) − f(x0)) / (x − x0)`, the Rescale rule of Shrikumar et al. 2017,
            "Learning Important Features Through Propagating Activation Differences", eq. 13, without
            cancellation and with the derivative `f'(x)` where `x = x0`; or `"pyhealth"` for PyHealth 2.1's
            `scale · derivative`, with its eps of 1e-7.

    Returns:
        `(f(x), f(x0), multiplier)`, each with the shape, dtype and memory layout of an elementwise result of `x`.
        They carry no gradient: :mod:`deeplift_fast.rules` is what backpropagates multipliers. NaN in either input
        gives a NaN multiplier; ±inf gives the limit.

    Raises:
        ValueError: if shapes or devices differ, or `function` or `variant` is unknown.
        TypeError: if dtypes differ or are not floating point.
    """
    arguments.check_secant(x, x0, function, variant)
    return _secant(x, x0, function, variant)


def attention(
    asked: Tensor,
    rows: Tensor,
    index: Tensor,
    starts: Tensor,
    queries: Tensor,
    looks: Tensor,
    seen: Tensor,
    pairs: int,
) -> tuple[Tensor, Tensor]:
    """Attention over ragged rows that are keys and values in one: `Σ softmax(a·b)·b`, in one stream.

    Args:
        asked: queries, scaled, `[heads, queries, width]`, float32 or float64; those of a sample one after the other.
        rows: `[rows, width]`.
        index: the rows of each sample, one sample after the other, int64 `[all]`; a row is one sample's at most.
        starts: where each sample begins in `index`, and its end, int64 `[samples + 1]`.
        queries: where each sample's queries begin in `asked`, and the end, int64 `[samples + 1]`.
        looks: whether a query looks at the rows that may be seen, bool `[queries]`; otherwise at all of them alike.
        seen: whether a row may be seen, bool `[all]`.
        pairs: how many pairs of a row and a query the samples have, their heads left out: `Σ rows·queries`. It sizes
            `log_p` without a look at the device's numbers.

    Returns:
        `(mixed, log_p)`: `[heads, queries, width]`, and the logarithms of the weights, `[heads · pairs]`, float32 if
        `asked` is of a half type: of each sample `[rows, heads · queries]` after the other, −inf for what is not seen.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: for other dtypes.
        RuntimeError, IndexError: if an index lies outside, `starts` or `queries` do not rise to the end, or `pairs` is
            not their sum (the last two as ValueError in plain torch).
    """
    arguments.check_attention(asked, rows, index, starts, queries, looks, seen, pairs)
    return _attention(asked, rows, index, starts, queries, looks, seen, pairs)


def attention_backward(
    m: Tensor,
    asked: tuple[Tensor, Tensor],
    rows: tuple[Tensor, Tensor],
    index: tuple[Tensor, Tensor],
    starts: tuple[Tensor, Tensor],
    queries: tuple[Tensor, Tensor],
    where: Tensor,
    looks: Tensor,
    log_p: tuple[Tensor, Tensor],
    half: float,
) -> tuple[Tensor, Tensor]:
    """Multipliers of :func:`attention`'s queries and rows at the input, from those of what it mixes.

    Args:
        m: multipliers of `mixed` at the input, `[heads, queries, width]`.
        asked: at the input and at the baseline, as all pairs here.
        rows: likewise.
        index: likewise.
        starts: likewise.
        queries: likewise.
        where: the baseline's sample that stands for each of the input's, with as many rows and queries, int64
            `[samples]`.
        looks: at the input.
        log_p: what :func:`attention` gave.
        half: 0.5 for the midpoint and log-mean rules, 0 for the gradient at the input.

    Returns:
        `(m_asked, m_rows)`, of the shapes of `asked` and `rows` at the input; 0 for rows that no sample has.

    Raises:
        ValueError, TypeError, RuntimeError, IndexError: as :func:`attention`.
    """
    arguments.check_attention_backward(m, asked, rows, index, starts, queries, where, looks, log_p)
    flat = (each for pair in (asked, rows, index, starts, queries) for each in pair)
    return _attention_backward(m, *flat, where, looks, *log_p, half)


def gated_sum(a: Tensor, b: Tensor, c: Tensor, variant: str, half: float) -> tuple[Tensor, Tensor]:
    """A gated value added to another, `σ(a)·b + c`, in both streams, and its multipliers.

    Args:
        a: the gate's pre-activation, at the input and at the baseline, `[2, …]`; float32, float64, float16 or bfloat16
            (the half types compute in float32).
        b: what is gated, with the shape, dtype and device of `a`.
        c: what is added, likewise.
        variant: of the gate's secant, as for :func:`secant`.
        half: 0.5 for the midpoint rule of the product, 0 for its gradient.

    Returns:
        `(y, multipliers)` of the shape of `a`: the sum in both streams, and what the multiplier of `y` is multiplied by
        for `a`, then for `b`.

    Raises:
        ValueError: if shapes or devices differ, or `variant` is unknown.
        TypeError: if dtypes differ or are not floating point.
    """
    arguments.check_gated_sum(a, b, c, variant)
    return _gated_sum(a, b, c, variant, half)


def convergence(
    totals: Tensor, output: Tensor, output0: Tensor, rescale: bool, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a batch's contributions miss of summation to delta (eq. 1 of Shrikumar et al. 2017).

    Args:
        totals: the sums of each feature's contributions, float64 `[features, batch]`.
        output: `f(x)`, `[batch]`, float32, float64, float16 or bfloat16.
        output0: `f(x0)`, `[batch]`, likewise.
        rescale: whether contributions are to be scaled so that they sum to `f(x) − f(x0)`.
        tolerance: the part of `f(x) − f(x0)` that a convergence delta may reach; it does not matter where they are.

    Returns:
        `(delta, factor, fine, figures)`: the convergence delta `[batch]`; what contributions are to be multiplied by,
        `[batch]` in float64 for float64 and else float32, 1 where the raw sum is too near 0 (without `rescale`: none);
        which samples need no warning, bool `[batch]`: those with a factor between 0 and 10 and a raw sum that could be
        scaled, or whose delta is within the tolerance or rounding; and, float64 `[parts, 3]`, of each part of the batch
        the sum of the deltas, how much of it may be rounding, and how many samples are not fine.

    Raises:
        ValueError: if shapes or devices differ.
        TypeError: if dtypes differ or are not floating point.
    """
    arguments.check_convergence(totals, output, output0)
    return _convergence(totals, output, output0, rescale, tolerance)


def gelu(x: Tensor, x0: Tensor, where: Tensor, secant: bool) -> tuple[Tensor, Tensor]:
    """GELU (Hendrycks & Gimpel 2016, with erf) at the input, and its multiplier.

    Args:
        x: the argument at the input, `[rows, size]`, float32 or float64, finite.
        x0: at the baseline, `[rows0, size]`.
        where: the baseline's row that stands for each row, int64 `[rows]`.
        secant: whether the multiplier is the secant slope (eq. 13 of Shrikumar et al. 2017), without cancellation; or
            the derivative at the input.

    Returns:
        `(gelu(x), multiplier)`, `[rows, size]`.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: for other dtypes.
        RuntimeError, IndexError: if `where` lies outside.
    """
    arguments.check_gelu(x, x0, where)
    return _gelu(x, x0, where, secant)


def layer_norm_backward(
    m: Tensor,
    x: Tensor,
    x0: Tensor,
    where: Tensor,
    averages: tuple[Tensor, Tensor],
    scales: tuple[Tensor, Tensor],
    weight: Tensor,
    half: float,
) -> Tensor:
    """Multipliers of a layer norm's argument.

    Without weight the output is a quotient `y = c/σ`, with `c = x − mean(x)` and `σ = √(mean(c²) + eps)`. The quotient
    rule takes `g = m·weight` to `centred((g − c̄·(Σ g·ȳ)/(size·σ̄))/σ̄)`, with bars for the means of the two streams. It
    is exact, and a baseline that is constant over the features makes no multiplier large.

    Args:
        m: multipliers of its output, `[rows, size]`, float32 or float64.
        x: the argument at the input, `[rows, size]`.
        x0: at the baseline, `[rows0, size]`.
        where: the baseline's row that stands for each row, int64 `[rows]`.
        averages: of each row in both streams, `[rows, 1]` and `[rows0, 1]`; float32 if `x` is of a half type.
        scales: `1/√(variance + eps)` likewise.
        weight: `[size]`.
        half: 0.5 for the quotient rule, 0 for the gradient at the input.

    Returns:
        `[rows, size]`.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: for other dtypes.
        RuntimeError, IndexError: if `where` lies outside.
    """
    arguments.check_layer_norm_backward(m, x, x0, where, averages, scales, weight)
    return _layer_norm_backward(m, x, x0, where, *averages, *scales, weight, half)


def log_mean_softmax(z: Tensor, z0: Tensor, dim: int, log: bool = False) -> tuple[Tensor, Tensor]:
    """Softmax at the input, and the logarithmic means of the probabilities in the two streams.

    Args:
        z: the logits at the input; any shape and strides; float32, float64, float16 or bfloat16 (the half types compute
            in float32).
        z0: the logits at the baseline, with the shape, dtype and device of `z`.
        dim: the dimension that probabilities sum to 1 along.
        log: whether to give the logarithms of the probabilities.

    Returns:
        `(y, mean)`, of the shape and dtype of `z`: the probabilities or their logarithms, and
        `(p − p0)/(log p − log p0)` without cancellation or overflow: p where the two are equal, 0 where one is 0, and 0
        in a row that has no softmax in one stream (every logit −inf, or one NaN).

    Raises:
        ValueError: if shapes or devices differ.
        TypeError: if dtypes differ or are not floating point.
        IndexError: if there is no such dimension.
    """
    arguments.check_log_mean_softmax(z, z0, dim, ("z", "z0"))
    return _log_mean_softmax(z, z0, dim, log)


def log_mean_softmax_backward(g: Tensor, mean: Tensor, dim: int) -> Tensor:
    """Multipliers of a softmax's logits, from those of its probabilities: `m∘g − m·(mᵀg)/Σm`.

    That is softmax's Jacobian with the probabilities replaced by their logarithmic means: complete, and the same when a
    number is added to every logit.

    Args:
        g: multipliers of the probabilities; any shape and strides, dtypes as for :func:`log_mean_softmax`.
        mean: what :func:`log_mean_softmax` gave; or the probabilities at the input, for the gradient.
        dim: as there.

    Returns:
        Of the shape and dtype of `g`; 0 where `mean` is 0.

    Raises:
        ValueError, TypeError, IndexError: as :func:`log_mean_softmax`.
    """
    arguments.check_log_mean_softmax(g, mean, dim, ("g", "mean"))
    return _log_mean_softmax_backward(g, mean, dim)


def token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> Tensor:
    """Contributions of tokens whose embeddings are summed: `(E[token] − E[baseline])·m`.

    Args:
        weight: the embedding table, `[vocabulary, dim]`, float32 or float64.
        tokens: int64 `[rows, slots]`.
        baseline: int64 `[rows, slots]`.
        multipliers: of each row's sum, `[rows, dim]`.

    Returns:
        `[rows, slots]`.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: for other dtypes.
    """
    arguments.check_token_contributions(weight, tokens, baseline, multipliers)
    return _token_contributions(weight, tokens, baseline, multipliers)
