"""What an op accepts: the checks that its Python implementations share; recurrent layers' stand apart."""

import torch
from torch import Tensor

from deeplift_fast.ops.requirements import (
    computed,
    require,
    require_alike,
    require_dimensions,
    require_float,
    require_many,
)

FUNCTIONS = ("relu", "sigmoid", "tanh")
VARIANTS = ("rescale", "pyhealth")
SAMPLES_AT_ONCE = 1024  # whose sums a program of `convergence` on CUDA takes


def check_secant(x: Tensor, x0: Tensor, function: str, variant: str) -> None:
    """Raise `ValueError` or `TypeError` unless :func:`deeplift_fast.ops.secant` accepts the arguments."""
    if function not in FUNCTIONS:
        raise ValueError(f"secant: function is {function!r}; accepted: {', '.join(FUNCTIONS)}")
    if variant not in VARIANTS:
        raise ValueError(f"secant: variant is {variant!r}; accepted: {', '.join(VARIANTS)}")
    require_alike("secant", x, x0, ("x", "x0"))


def check_log_mean_softmax(z: Tensor, z0: Tensor, dim: int, names: tuple[str, str]) -> None:
    """Raise unless :func:`deeplift_fast.ops.log_mean_softmax` accepts the arguments, or its backward with its names."""
    require_alike("log_mean_softmax", z, z0, names)
    if not -max(z.dim(), 1) <= dim < max(z.dim(), 1):
        raise IndexError(f"log_mean_softmax: dim is {dim}; {names[0]} has {z.dim()} dimensions")


def check_attention(
    asked: Tensor,
    rows: Tensor,
    index: Tensor,
    starts: Tensor,
    queries: Tensor,
    looks: Tensor,
    seen: Tensor,
    pairs: int,
) -> None:
    """Raise unless :func:`deeplift_fast.ops.attention` accepts the arguments."""
    require_float("attention", asked, "asked")
    require_dimensions("attention", {"asked": (asked, 3), "rows": (rows, 2), "starts": (starts, 1), "seen": (seen, 1)})
    require("attention: asked", [asked], [tuple(asked.shape)], asked.dtype, beside=asked)
    require("attention: rows", [rows], [(len(rows), asked.shape[2])], asked.dtype, beside=asked)
    require("attention: index", [index], [(len(seen),)], torch.int64, beside=asked)
    require("attention: looks, seen", [looks, seen], [(asked.shape[1],), (len(seen),)], torch.bool, beside=asked)
    require("attention: starts, queries", [starts, queries], [tuple(starts.shape)] * 2, torch.int64, beside=asked)
    if pairs < 0:
        raise ValueError(f"attention: pairs is {pairs}; accepted: the sum of the samples' rows · queries")


def check_attention_backward(
    m: Tensor,
    asked: tuple[Tensor, Tensor],
    rows: tuple[Tensor, Tensor],
    index: tuple[Tensor, Tensor],
    starts: tuple[Tensor, Tensor],
    queries: tuple[Tensor, Tensor],
    where: Tensor,
    looks: Tensor,
    log_p: tuple[Tensor, Tensor],
) -> None:
    """Raise unless :func:`deeplift_fast.ops.attention_backward` accepts the arguments."""
    require_float("attention_backward", m, "m")
    require_dimensions("attention_backward", {"m": (m, 3)})
    names = ("asked", "rows", "index", "starts", "queries")
    for name, pair in zip(names, (asked, rows, index, starts, queries), strict=True):
        require_many(f"attention_backward: {name}", pair, 2)
        dimensions = {"asked": 3, "rows": 2}.get(name, 1)
        require_dimensions("attention_backward", {name: (pair[0], dimensions), f"{name}0": (pair[1], dimensions)})
        sizes = {"asked": (len(m), -1, m.shape[2]), "rows": (-1, m.shape[2])}.get(name, (-1,))
        shapes = [tuple(n if n >= 0 else own for n, own in zip(sizes, each.shape, strict=True)) for each in pair]
        dtype = m.dtype if name in ("asked", "rows") else torch.int64
        require(f"attention_backward: {name}", pair, shapes, dtype, beside=m)
    require_many("attention_backward: log_p", log_p, 2)
    require_dimensions("attention_backward", {"log_p": (log_p[0], 1), "log_p0": (log_p[1], 1)})
    require("attention_backward: m", [m], [tuple(asked[0].shape)], m.dtype, beside=m)
    require("attention_backward: looks", [looks], [(m.shape[1],)], torch.bool, beside=m)
    require("attention_backward: where", [where], [(len(starts[0]) - 1,)], torch.int64, beside=m)
    require("attention_backward: log_p", log_p, [(each.numel(),) for each in log_p], computed(m.dtype), beside=m)


def check_gelu(x: Tensor, x0: Tensor, where: Tensor) -> None:
    """Raise unless :func:`deeplift_fast.ops.gelu` accepts the arguments."""
    require_float("gelu", x, "x")
    require_dimensions("gelu", {"x": (x, 2), "x0": (x0, 2)})
    require("gelu: x, x0", [x, x0], [tuple(x.shape), (len(x0), x.shape[1])], x.dtype, beside=x)
    require("gelu: where", [where], [(len(x),)], torch.int64, beside=x)


def check_layer_norm_backward(
    m: Tensor,
    x: Tensor,
    x0: Tensor,
    where: Tensor,
    averages: tuple[Tensor, Tensor],
    scales: tuple[Tensor, Tensor],
    weight: Tensor,
) -> None:
    """Raise unless :func:`deeplift_fast.ops.layer_norm_backward` accepts the arguments."""
    require_float("layer_norm_backward", x, "x")
    require_dimensions("layer_norm_backward", {"x": (x, 2), "x0": (x0, 2)})
    require_many("layer_norm_backward: averages", averages, 2)
    require_many("layer_norm_backward: scales", scales, 2)
    (rows, size), rows0 = x.shape, len(x0)
    require(
        "layer_norm_backward",
        [m, x, x0, weight],
        [(rows, size), (rows, size), (rows0, size), (size,)],
        x.dtype,
        beside=x,
    )
    shapes = [(rows, 1), (rows0, 1)] * 2
    require("layer_norm_backward: averages, scales", [*averages, *scales], shapes, computed(x.dtype), beside=x)
    require("layer_norm_backward: where", [where], [(rows,)], torch.int64, beside=x)


def check_token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> None:
    """Raise unless :func:`deeplift_fast.ops.token_contributions` accepts the arguments."""
    require_float("token_contributions", weight, "weight")
    require_dimensions("token_contributions", {"weight": (weight, 2), "tokens": (tokens, 2)})
    shape = tuple(tokens.shape)
    require("token_contributions: tokens, baseline", [tokens, baseline], [shape, shape], torch.int64, beside=weight)
    given = [weight, multipliers]
    shapes = [tuple(weight.shape), (len(tokens), weight.shape[1])]
    require("token_contributions: weight, multipliers", given, shapes, weight.dtype, beside=weight)


def check_gated_sum(a: Tensor, b: Tensor, c: Tensor, variant: str) -> None:
    """Raise unless :func:`deeplift_fast.ops.gated_sum` accepts the arguments."""
    if variant not in VARIANTS:
        raise ValueError(f"gated_sum: variant is {variant!r}; accepted: {', '.join(VARIANTS)}")
    for name, each in (("b", b), ("c", c)):
        require_alike("gated_sum", a, each, ("a", name))
    if a.dim() == 0 or len(a) != 2:
        raise ValueError(f"gated_sum: a has shape {tuple(a.shape)}; accepted: [2, …], the input and the baseline")


def check_convergence(totals: Tensor, output: Tensor, output0: Tensor) -> None:
    """Raise unless :func:`deeplift_fast.ops.convergence` accepts the arguments."""
    require_float("convergence", output, "output")
    require_alike("convergence", output, output0, ("output", "output0"))
    require_dimensions("convergence", {"totals": (totals, 2), "output": (output, 1)})
    shape = (max(len(totals), 1), len(output))
    require("convergence: totals", [totals], [shape], torch.float64, beside=output)
