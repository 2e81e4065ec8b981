"""The rule set `"complete"`: the rule of every operation, found by its name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import isfinite
from operator import index
from typing import Any, override

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplift_fast.rules import attention, composed, distances, grouped, layers, norms, recurrent, registered
from deeplift_fast.rules import operations as tables
from deeplift_fast.rules.averaged import GRADIENT, MIDPOINT, QUADRATURE, averaged
from deeplift_fast.rules.call import Arguments, Call, is_floating, named_in_place, out_of_place, shared_name
from deeplift_fast.rules.distinct import distinct_rows
from deeplift_fast.rules.elementwise import CLOSED, ClosedRule, ElementwiseRule, GeluRule
from deeplift_fast.rules.product import MatmulRule, ProductRule
from deeplift_fast.rules.quotient import (
    InverseBilinearRule,
    InverseProductRule,
    QuotientRule,
    is_inverse,
    power_is_inverse,
)
from deeplift_fast.rules.ruleset import Meeting, Note, RuleSet, draw
from deeplift_fast.rules.secant import secant
from deeplift_fast.rules.softmax import LogSoftmaxRule, LogSumExpRule, SoftmaxRule
from deeplift_fast.rules.winner import amax, cumulative_max, max_pool

_SECANT = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "special_expit": "sigmoid", "expit": "sigmoid"}
_PRODUCTS = frozenset(("mul", "multiply", "rmul"))
_MATMULS = frozenset(("matmul", "mm", "bmm"))
_QUOTIENTS = frozenset(("div", "divide", "true_divide", "truediv"))
_EXPONENTS = {"square": 2, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1}
_CLOSED_POWERS = {exponent: name for name, exponent in _EXPONENTS.items()}
SOFTMAX = frozenset(("softmax", "special_softmax"))
_LOG_SOFTMAX = frozenset(("log_softmax", "special_log_softmax"))
_EXTREMES = frozenset(("amax", "amin", "max", "min"))
_CUMULATIVE = frozenset(("cummax", "cummin"))
_NORMS = frozenset(("norm", "vector_norm", "linalg_vector_norm", "linalg_norm"))
_BATCH_NORMS = frozenset(("batch_norm", "native_batch_norm"))
_CLAMPS: dict[str, Callable[..., Any]] = {
    "clamp": composed.clamp,
    "clip": composed.clamp,
    "clamp_min": composed.clamp_min,
    "clamp_max": composed.clamp_max,
}
POOLS = {
    f"{prefix}max_pool{n}d{suffix}": n
    for prefix in ("", "adaptive_")
    for n in (1, 2, 3)
    for suffix in ("", "_with_indices")
}

_WRITTEN_OUT: dict[str, Callable[..., Any]] = {
    "rdiv": composed.divide_into,
    "rtruediv": composed.divide_into,
    "fmax": composed.maximum,
    "fmin": composed.minimum,
    "var": distances.variance,
    "std": distances.standard_deviation,
}
# Functions that have their operation's name.
for _module, _names in {
    attention: "scaled_dot_product_attention multi_head_attention_forward",
    composed: "softmin glu addcdiv lerp maximum minimum aminmax logaddexp gumbel_softmax",
    distances: "normalize cosine_similarity pairwise_distance cdist dist var_mean std_mean",
    norms: "layer_norm rms_norm group_norm native_layer_norm native_group_norm fused_rms_norm",
    recurrent: "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
}.items():
    _WRITTEN_OUT.update((name, getattr(_module, name)) for name in _names.split())


def written_out(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    """The function that runs in an operation's place in both streams, made of operations with rules; or `None`."""
    if name in registered.WRITTEN_OUT:
        return registered.WRITTEN_OUT[name]
    if name in registered.KINDS:
        return None
    if name in tables.LEAVING:
        return getattr(composed, f"to_{name}")
    if name in _QUOTIENTS:
        divisor = args[1] if len(args) > 1 else kwargs.get("other")
        return composed.divide if is_floating(divisor) and _is_complex(args, kwargs) else None
    if name in ("max", "min"):
        second = args[1] if len(args) > 1 else kwargs.get("other")
        return (composed.maximum if name == "max" else composed.minimum) if isinstance(second, Tensor) else None
    if name in _CLAMPS:
        bounds = (*args[1:], *kwargs.values())
        return _CLAMPS[name] if any(isinstance(bound, Tensor) for bound in bounds) else None
    if name == "einsum":
        return composed.einsum if composed.operands(args) > 2 else None
    if name in _NORMS:
        return _norm(name, args, kwargs)
    if name == "instance_norm":
        of_batch = kwargs.get("use_input_stats", args[5] if len(args) > 5 else True)
        return (norms.aten_instance_norm if _is_of_aten(args, kwargs) else norms.instance_norm) if of_batch else None
    if name in _BATCH_NORMS:
        return _batch_norm(name, args, kwargs)
    if name in ("abs", "absolute"):
        x = args[0] if args else kwargs.get("input")
        return composed.complex_abs if isinstance(x, Tensor) and x.is_complex() else None
    if name == "rrelu":
        return composed.rrelu if kwargs.get("training", args[3] if len(args) > 3 else False) else None
    if name == "scatter":
        return composed.scatter if kwargs.get("reduce") is not None else None
    if name == "embedding_bag":
        return composed.embedding_bag_max if composed.takes_maximum(args, kwargs) else None
    if name == "cross_entropy":
        return composed.cross_entropy if _has_class_indices(args, kwargs) else None
    return _WRITTEN_OUT.get(name)


def _is_complex(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(isinstance(x, complex) or (isinstance(x, Tensor) and x.is_complex()) for x in (*args, *kwargs.values()))


def _norm(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    order = kwargs.get("p", kwargs.get("ord", args[1] if len(args) > 1 else None))
    dim = kwargs.get("dim", args[2] if len(args) > 2 else None)
    of_matrix = name == "linalg_norm" and order is not None and (
        args[0].dim() == 2 if dim is None else not isinstance(dim, int) and len(dim) == 2
    )  # fmt: skip
    if of_matrix or order in (0, -torch.inf, "nuc") or (isinstance(order, int | float) and order < 0):
        return None
    return distances.norm if name == "norm" else distances.vector_norm


def _batch_norm(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    if not kwargs.get("training", args[5] if len(args) > 5 else False):
        return None
    if name == "native_batch_norm":
        return norms.native_batch_norm
    return norms.aten_batch_norm if _is_of_aten(args, kwargs) else norms.batch_norm


def _is_of_aten(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a batch or instance norm is called as in `torch`, with one argument more than in `F`."""
    return len(args) + len(kwargs) == 9


def _has_class_indices(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    target = args[1] if len(args) > 1 else kwargs.get("target")
    return not is_floating(target) and not kwargs.get("label_smoothing")


# Names for which :func:`written_out` looks at the arguments.
_MAYBE_WRITTEN_OUT = frozenset(
    ("max", "min", "einsum", "instance_norm", "abs", "absolute", "rrelu", "scatter", "embedding_bag", "cross_entropy")
).union(_WRITTEN_OUT, tables.LEAVING, _QUOTIENTS, _CLAMPS, _NORMS, _BATCH_NORMS)


@dataclass(frozen=True, slots=True)
class _Operation:
    """The facts about an operation that hold for each call.

    Attributes:
        name: its shared name.
        in_place: whether it is an in-place form.
        func: the operation, not in place.
        kind: `"stopping"` if it takes its result out of the graph, `"plain"` if no result carries a gradient, `"draw"`
            if its results are random, otherwise `"rule"`.
        written_out: whether another function may run in its place.
        linear: whether the tables have it as linear.
        bilinear: whether they have it as bilinear.
    """

    name: str
    in_place: bool
    func: Callable[..., Any]
    kind: str
    written_out: bool
    linear: bool
    bilinear: bool


@cache
def _operation(func: Callable[..., Any]) -> _Operation:
    name, in_place = shared_name(func), named_in_place(func)
    if name in tables.DETACHING or getattr(func, "__self__", None) is Tensor.data:
        kind = "stopping"
    elif name in tables.PLAIN:
        kind = "plain"
    else:
        kind = "draw" if name in tables.DRAWS else "rule"
    other = out_of_place(func) if in_place else func
    bilinear = name in tables.BILINEAR
    return _Operation(name, in_place, other, kind, name in _MAYBE_WRITTEN_OUT, name in tables.LINEAR, bilinear)


_STOPPED = Meeting("detach", written_out=composed.identity)


class CompleteRules(RuleSet):
    """The secant Jacobian of every operation: `Σ m·Δx = Δy` holds for each of them, and so for the model."""

    complete = True

    @override
    def meet(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meeting | None:
        operation = _operation(func)
        name, in_place = operation.name, operation.in_place
        if operation.kind != "rule":
            if operation.kind == "stopping":
                return _STOPPED if args[0].requires_grad and not args[0].is_leaf else None
            return draw(name, func, args, kwargs) if operation.kind == "draw" else None
        if name == "where" and len(args) == 1:
            return None  # indices
        if operation.written_out or name in registered.WRITTEN_OUT:
            instead = written_out(name, args, kwargs)
            if instead is not None and name not in registered.WRITTEN_OUT and layers.fits(name, args, kwargs):
                return Meeting(name, False, Arguments.of(args, kwargs), func, written_out=instead, whole=True)
            if instead is not None:
                return Meeting(name, in_place, written_out=instead)
        if not in_place and (name in tables.IN_PLACE_POSITION or "inplace" in kwargs):
            args, kwargs, in_place = _without_in_place(name, args, kwargs)
        arguments = Arguments.of(args, kwargs)
        if not arguments.floats:
            return None
        linear = registered.KINDS[name] == "linear" if name in registered.KINDS else operation.linear
        of_one = operation.bilinear and name not in registered.KINDS
        return Meeting(name, in_place, arguments, operation.func, linear, of_one=of_one)

    @override
    def apply(self, call: Call, note: Note) -> tuple[Any, str]:
        return apply(call, note)


def _without_in_place(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
    """The arguments of a functional form without `inplace`, and its value."""
    position = tables.IN_PLACE_POSITION.get(name, len(args))
    given = kwargs.get("inplace", args[position] if len(args) > position else False)
    kept = {key: value for key, value in kwargs.items() if key != "inplace"}
    return args[:position], kept, bool(given)


def apply(call: Call, note: Note) -> tuple[Any, str]:
    """Run an operation at the input with the multipliers of its rule.

    Args:
        call: the operation in both streams; at least one tensor depends on the attributed inputs.
        note: takes the names of the operation and of the rule, and their part of the convergence delta, once it is
            known.

    Returns:
        The operation's result, and the name of the rule.
    """
    name = call.name
    kind = registered.KINDS.get(name)
    if not call.fixed:
        return _by_gradient(call, note)
    if kind is None and call.moved == [0] and not call.actual.floats[0].is_complex():
        found = _of_one_tensor(call)
        if found is not None:
            return found
    if kind == "linear" or (kind is None and (name in tables.LINEAR or name in _BATCH_NORMS)):
        return call.as_it_is(), "linear"
    if kind is None and name in _QUOTIENTS and call.argument(3, "rounding_mode") is None:
        return _quotient(call)
    if kind == "bilinear" or (kind is None and name in tables.BILINEAR):
        return _product(call, note)
    if kind is None and name in grouped.NAMES and not any(x.is_complex() for x in call.actual.floats):
        return grouped.reduced(call)
    of_one = len(call.moved) == 1 and not call.xs[0].is_complex()
    if kind is None and name in tables.ELEMENTWISE and of_one and name != "prelu":
        return _elementwise(call), "secant"  # as a function of its second tensor, such as an exponent
    if kind == "elementwise" and call.moved == [0]:
        return _elementwise(call), "secant"
    if kind == "gradient" or (kind is None and name in tables.GRADIENT):
        return _by_gradient(call, note)
    return averaged(call, QUADRATURE, partial(note, name, "quadrature")), "quadrature"


def _by_gradient(call: Call, note: Note) -> tuple[Any, str]:
    if call.name.startswith("fractional_max_pool"):
        return call.as_it_is(), "gradient, options differ"  # its regions are random: a second run would differ
    return averaged(call, GRADIENT, partial(note, call.name, "gradient")), "gradient"


def _product(call: Call, note: Note) -> tuple[Any, str]:
    if len(call.moved) == 1:
        return call.as_it_is(), "linear"
    if any(x.is_complex() for x in call.xs):
        return averaged(call, MIDPOINT), "midpoint"
    inverses = [index for index, x in enumerate(call.xs) if is_inverse(x)]
    if len(call.moved) == 2 and not call.actual.kwargs and len(call.actual.args) == 2:
        (a, b), (a0, b0) = call.xs, call.x0s
        if call.name in _PRODUCTS:
            if inverses == [0]:
                return InverseProductRule.apply(b, b0, a, a0), "quotient"
            if inverses == [1]:
                return InverseProductRule.apply(a, a0, b, b0), "quotient"
            return ProductRule.apply(a, a0, b, b0, len(inverses) == 2), "midpoint"
        if call.name in _MATMULS and a.dim() >= 2 and b.dim() >= 2 and len(inverses) != 1:
            return MatmulRule.apply(a, a0, b, b0), "midpoint"
    if len(call.moved) > 2 and call.name in ("einsum", "bilinear"):  # of degree three or more
        return averaged(call, QUADRATURE, partial(note, call.name, "quadrature")), "quadrature"
    if len(inverses) == 1:
        return InverseBilinearRule.apply(call, inverses[0], *call.xs), "quotient"
    return averaged(call, MIDPOINT), "midpoint"


def _quotient(call: Call) -> tuple[Any, str]:
    a, b = _operands(call.actual)
    if not any(x is b for x in call.xs):
        return call.as_it_is(), "linear"
    a0, b0 = _operands(call.baseline)
    constant = not any(x is a for x in call.xs)
    if constant:
        a = a.detach()
    inverse = (constant or is_inverse(a)) and not is_inverse(b)
    return QuotientRule.apply(a, a0, b, b0, inverse), "quotient"


def _operands(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The dividend and the divisor of a quotient."""
    given = (*arguments.args, *(arguments.kwargs[name] for name in ("input", "other") if name in arguments.kwargs))
    return given[0], given[1]


def _of_one_tensor(call: Call) -> tuple[Any, str] | None:
    name, x, x0 = call.name, call.actual.floats[0], call.baseline.floats[0]
    if name in _SECANT:
        return secant(x, x0, _SECANT[name]), "secant"
    if name in tables.ELEMENTWISE or (name in _QUOTIENTS and call.argument(3, "rounding_mode") is not None):
        return _elementwise(call), "secant"
    if name in SOFTMAX or name in _LOG_SOFTMAX:
        return _softmax(call, x, x0), "log-mean"
    if name == "logsumexp":
        return LogSumExpRule.apply(
            x, x0, _dims(call.argument(1, "dim")), call.argument(2, "keepdim", False)
        ), "log-mean"
    if name in POOLS:
        return _pooled(call, x, x0), "winner"
    if name in _EXTREMES:
        return _extreme(call, x, x0), "winner"
    if name in _CUMULATIVE:
        return _cumulative(call, x, x0), "winner"
    return None


def _elementwise(call: Call) -> Tensor:
    (x,), (x0,) = call.xs, call.x0s
    floats, exponent = call.actual.floats, _exponent(call)
    inverse = exponent is not None and power_is_inverse(x, exponent)
    name = call.name
    if name == "pow" and isinstance(exponent, int | float):
        name = _CLOSED_POWERS.get(exponent, name)
    if name == "gelu" and call.name not in registered.KINDS and x.numel() > 0:
        rows0, where = distinct_rows(x0, max(x0.dim() - 1, 0))
        if _has_erf(call, x, rows0):
            return GeluRule.apply(x.reshape(-1, rows0.shape[1]), rows0, where).reshape(x.shape)  # type: ignore
    closed = name in CLOSED and call.name not in registered.KINDS and x.dtype in (torch.float32, torch.float64)
    if closed and len(floats) == 1:
        return ClosedRule.apply(name, x, x0, inverse)  # type: ignore[no-any-return]
    if len(floats) > 1 and call.name != "prelu":
        shape = torch.broadcast_shapes(*(tensor.shape for tensor in floats))
        x, x0 = x.expand(shape), x0.expand(shape)
    return ElementwiseRule.apply(call.run, x, x0, len(floats) == 1, inverse)  # type: ignore[no-any-return]


def _has_erf(call: Call, x: Tensor, x0: Tensor) -> bool:
    """Whether a GELU is the one with erf, of finite numbers in float32 or float64."""
    if call.argument(1, "approximate", "none") != "none" or x.dtype not in (torch.float32, torch.float64):
        return False
    # A finite sum is much cheaper than a check of each value; it may overflow, which costs no more than time.
    return isfinite(float(x.detach().sum()) + float(x0.sum()))


def _exponent(call: Call) -> Any:
    """The exponent of a power of the moved tensor, a number or a tensor; `None` for other operations."""
    if call.name not in ("pow", "float_power"):
        return _EXPONENTS.get(call.name)
    exponent = call.argument(1, "exponent")
    return None if any(exponent is x for x in call.xs) else exponent


def _dims(dim: Any) -> tuple[int, ...]:
    """One dimension or several as a tuple of ints, from any type that PyTorch accepts as an index."""
    return tuple(map(index, dim)) if isinstance(dim, tuple | list) else (index(dim),)


def _softmax(call: Call, x: Tensor, x0: Tensor) -> Tensor:
    dim = call.argument(1, "dim")
    if dim is None:  # F.softmax without a dimension
        dim = 0 if x.dim() in (0, 1, 3) else 1
    dtype = next((a for a in (*call.actual.args, *call.actual.kwargs.values()) if isinstance(a, torch.dtype)), None)
    if dtype is not None:
        x, x0 = x.to(dtype), x0.to(dtype)
    rule = SoftmaxRule if call.name in SOFTMAX else LogSoftmaxRule
    found: Tensor = rule.apply(x, x0, dim)
    return found


def _extreme(call: Call, x: Tensor, x0: Tensor) -> Any:
    sign = -1 if call.name in ("amin", "min") else 1
    dim, keepdim = call.argument(1, "dim"), call.argument(2, "keepdim", False)
    dims = () if dim is None else _dims(dim)
    found = amax(sign * x, sign * x0, dims, keepdim) * sign
    if call.name in ("amax", "amin") or dim is None:
        return found
    at = getattr(x.detach(), call.name)(dim, keepdim)
    return type(at)((found, at.indices))


def _cumulative(call: Call, x: Tensor, x0: Tensor) -> Any:
    sign, dim = -1 if call.name == "cummin" else 1, call.argument(1, "dim")
    values, indices = cumulative_max(sign * x, sign * x0, dim)
    return getattr(torch.return_types, call.name)((sign * values, indices))


def _pooled(call: Call, x: Tensor, x0: Tensor) -> Any:
    stem = call.name.removesuffix("_with_indices")
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    limit = 2 if stem.startswith("adaptive") else 6
    given = dict(zip(("output_size",) if limit == 2 else names, call.actual.args[1:limit], strict=False))
    given.update({key: value for key, value in call.actual.kwargs.items() if key in (*names, "output_size")})
    if limit == 6 and given.get("stride") in ((), []):
        given["stride"] = None
    pool = partial(getattr(F, stem), return_indices=True, **given)
    y, at = max_pool(pool, POOLS[call.name], x, x0)
    both = call.name != stem or call.argument(limit, "return_indices", False)
    return (y, at) if both else y
