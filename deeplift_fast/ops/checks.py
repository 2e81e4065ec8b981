"""Checks of shapes and dtypes, fake kernels, schemas and documentation, all from an op's line in `specs.py`.

Lines are read once. A check then compares one tuple for each tensor.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from deeplift_fast.ops import specs

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_WORDS = {"f": "float", "h": "float", "w": "float, computed", "d": "float64", "i": "int64", "b": "bool"}
_TENSOR = re.compile(r"(?:(?P<name>\w+)(?P<written>!?):)?(?P<dtype>[fhwdib])(?P<marks>[~@]*)\[(?P<dims>.*)\]")

Sizes = Mapping[str, Any]


def computed(dtype: torch.dtype) -> torch.dtype:
    """The dtype that an op computes in: float32 for the half types."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of an op.

    Attributes:
        name: the argument's name; it may be empty for a result.
        dtype: its letter in `specs.py`.
        dims: its dimensions in `specs.py`.
        rank: the number of dimensions without `...`.
        more: whether it may have more dimensions, as `...` says.
        shape: a function from sizes by name to the tensor's shape.
        any_strides: whether the CPU accepts any strides.
        anywhere: whether it may be on another device than the others.
        written: whether the op writes to it.
    """

    name: str
    dtype: str
    dims: tuple[str, ...]
    rank: int
    more: bool
    shape: Callable[[Sizes], tuple[int, ...]]
    any_strides: bool
    anywhere: bool
    written: bool

    @staticmethod
    def of(text: str) -> "TensorSpec":
        """Read `name:dtype[dimensions]`, or raise `ValueError`."""
        found = _TENSOR.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no tensor; accepted: name:dtype[dimensions], as ops/specs.py explains")
        dims, marks = tuple(found["dims"].split()), found["marks"]
        name, written = found["name"] or "", bool(found["written"])
        more = "..." in dims
        rank = len(dims) - more
        return TensorSpec(name, found["dtype"], dims, rank, more, _shape(dims), "~" in marks, "@" in marks, written)

    def __str__(self) -> str:
        """Its dimensions."""
        return f"[{', '.join(self.dims)}]"


def _shape(dims: tuple[str, ...]) -> Callable[[Sizes], tuple[int, ...]]:
    """The function `lambda d: (d['rows'], 2*d['levels'],)` for the dimensions `rows 2*levels`."""
    if dims == ("...",):
        return lambda d: d["..."]
    named = (re.sub(r"\b[a-z_]\w*\b(?!\()", r"d['\g<0>']", dim) if dim != "..." else "*d['...']" for dim in dims)
    return eval(f"lambda d: ({''.join(f'{dim}, ' for dim in named)})", vars(specs))


@dataclass(frozen=True, slots=True)
class OpSpec:
    """An op's line.

    Attributes:
        name: the op's name.
        arguments: the names of all arguments, in order.
        tensors: the tensors among them, as position and spec.
        choices: the arguments that take one of several texts, as position, name and texts.
        numbers: the other arguments, as name and position; they count as sizes.
        bound: dimensions, as name, position of a tensor that has the size, and place in its shape (`None`: all of it).
        first: the position of the tensor that sets dtype and device.
        on_cpu: the dtypes of that tensor on the CPU.
        results: the results.
    """

    name: str
    arguments: tuple[str, ...]
    tensors: tuple[tuple[int, TensorSpec], ...]
    choices: tuple[tuple[int, str, tuple[str, ...]], ...]
    numbers: tuple[tuple[str, int], ...]
    bound: tuple[tuple[str, int, int | slice | None], ...]
    first: int
    on_cpu: tuple[torch.dtype, ...]
    results: tuple[TensorSpec, ...]

    @staticmethod
    def of(name: str, line: str) -> "OpSpec":
        """Read an op's line, or raise `ValueError`."""
        given, made = (re.findall(r"[^\s\[]+(?:\[.*?\])?", part) for part in line.split("->"))
        arguments = tuple(re.split("[:!=]", text)[0] for text in given)
        tensors = {at: TensorSpec.of(text) for at, text in enumerate(given) if ":" in text}
        texts = {at: tuple(text.partition("=")[2].split("|")) for at, text in enumerate(given) if "=" in text}
        numbers = {arguments[at]: at for at in range(len(given)) if at not in tensors and at not in texts}
        bound: dict[str, tuple[int, int | slice | None]] = {}
        for at, tensor in tensors.items():
            for axis, dim in enumerate(tensor.dims):
                if dim == "...":
                    bound.setdefault(dim, (at, slice(axis, None) if axis else None))
                elif dim.isidentifier() and dim not in numbers:
                    bound.setdefault(dim, (at, axis))
        first, dtype = next((at, tensor.dtype) for at, tensor in tensors.items() if tensor.dtype in "fh")
        return OpSpec(
            name, arguments, tuple(tensors.items()), tuple((at, arguments[at], each) for at, each in texts.items()),
            tuple(numbers.items()), tuple((dim, *place) for dim, place in bound.items()), first,
            FLOATS if dtype == "h" else FLOATS[:2], tuple(map(TensorSpec.of, made)),
        )  # fmt: skip


OPS = {name: OpSpec.of(name, line) for name, line in specs.SPECS.items()}
# The dtype of each letter, for each dtype of an op.
_DTYPES = {
    dtype: {"f": dtype, "h": dtype, "w": computed(dtype), "d": torch.float64, "i": torch.int64, "b": torch.bool}
    for dtype in FLOATS
}


def check(op: OpSpec, given: Sequence[Any], fake: bool = False) -> dict[str, Any]:
    """Raise unless an op's arguments have the shapes, dtypes, devices and strides of its line.

    Args:
        op: the op's line.
        given: all arguments, in order.
        fake: whether the tensors are fake ones, whose unknown sizes fit and whose strides do not matter.

    Returns:
        The size of each dimension, by name.

    Raises:
        TypeError: if an argument is no tensor, or has another dtype.
        ValueError: if a text, shape, device or stride is not accepted.
    """
    for at, name, texts in op.choices:
        if given[at] not in texts:
            raise ValueError(f"{op.name}: {name} is {given[at]!r}; accepted: {', '.join(texts)}")
    shapes = _shapes(op, given)
    first = given[op.first]
    device, dtypes, on_cpu = first.device, _DTYPES.get(first.dtype), first.is_cpu
    if dtypes is None or (on_cpu and first.dtype not in op.on_cpu):
        accepted = ", ".join(map(str, op.on_cpu if on_cpu else FLOATS))
        raise TypeError(f"{op.name}: {op.arguments[op.first]} is {first.dtype}; accepted: {accepted}")
    sizes = {name: given[at] for name, at in op.numbers}
    for dim, at, axis in op.bound:
        sizes[dim] = shapes[at] if axis is None else shapes[at][axis]
    for at, spec in op.tensors:
        tensor = given[at]
        shape = spec.shape(sizes)
        if _unlike(shapes[at], shape) if fake else shapes[at] != shape:
            _refuse_shape(op, spec, given, tensor, shape)
        if tensor.dtype is not dtypes[spec.dtype]:
            _refuse_dtype(op, spec, tensor, dtypes[spec.dtype], first)
        if tensor.device != device and not spec.anywhere:
            here = f"{op.arguments[op.first]} is on {device}"
            raise ValueError(f"{op.name}: {here} and {spec.name} on {tensor.device}; move it to {device}")
        if on_cpu and not (spec.any_strides or fake or tensor.is_contiguous()):
            raise ValueError(f"{op.name}: {spec.name} is not contiguous; give a contiguous copy")
    return sizes


def _shapes(op: OpSpec, given: Sequence[Any]) -> dict[int, torch.Size]:
    shapes = {}
    for at, spec in op.tensors:
        tensor = given[at]
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op.name}: {spec.name} is a {type(tensor).__name__}; accepted: a tensor {spec}")
        shapes[at] = tensor.shape
        rank = len(shapes[at])
        if rank != spec.rank and (rank < spec.rank or not spec.more):
            raise ValueError(
                f"{op.name}: {spec.name} has shape {tuple(tensor.shape)}; accepted: {spec}, {spec.rank} dimension(s)"
            )
    return shapes


def _unlike(shape: Sequence[Any], accepted: Sequence[Any]) -> bool:
    from torch.fx.experimental.symbolic_shapes import guard_or_false  # imported late: it loads SymPy

    return len(shape) != len(accepted) or any(guard_or_false(a != b) for a, b in zip(shape, accepted, strict=True))


def _refuse_shape(
    op: OpSpec, spec: TensorSpec, given: Sequence[Any], tensor: Tensor, accepted: tuple[int, ...]
) -> NoReturn:
    first = given[op.first]
    if spec.more and tensor is not first:
        found = f"{op.arguments[op.first]} has shape {tuple(first.shape)} and {spec.name} {tuple(tensor.shape)}"
        raise ValueError(f"{op.name}: {found}; they must be equal (nothing is broadcast: expand the smaller one first)")
    needed = set(re.findall(r"[a-z_]\w*", " ".join(spec.dims)))
    sources = {dim: op.arguments[at] for dim, at, _ in op.bound if dim in needed and given[at] is not tensor}
    others = "".join(f", with {dim} of {name}" for dim, name in sources.items())
    raise ValueError(
        f"{op.name}: {spec.name} has shape {tuple(tensor.shape)}; accepted: {accepted}, that is {spec}{others}"
    )


def _refuse_dtype(op: OpSpec, spec: TensorSpec, tensor: Tensor, accepted: torch.dtype, first: Tensor) -> NoReturn:
    if spec.dtype in "fh":
        raise TypeError(
            f"{op.name}: {op.arguments[op.first]} is {first.dtype} and {spec.name} {tensor.dtype}; "
            "convert one to the other's dtype"
        )
    raise TypeError(f"{op.name}: {spec.name} is {tensor.dtype}; accepted: {accepted}")


def fake(op: OpSpec) -> Callable[..., Any]:
    """The op's kernel for fake tensors: its results have shapes and dtypes alone."""

    def kernel(*given: Any) -> Any:
        sizes, first = check(op, given, fake=True), given[op.first]
        sizes["on_cuda"] = first.device.type == "cuda"
        dtypes = _DTYPES[first.dtype]
        results = tuple(
            torch.empty_like(first, dtype=dtypes[spec.dtype])
            if spec.any_strides
            else first.new_empty(spec.shape(sizes), dtype=dtypes[spec.dtype])
            for spec in op.results
        )
        return results if len(results) > 1 else results[0]

    return kernel


def schema(op: OpSpec, function: Callable[..., Any]) -> str:
    """The op's schema, from the annotations of its naive implementation and the names of its results.

    Raises:
        ValueError: if the implementation has other arguments than the op's line, or another number of results.
    """
    if tuple(inspect.signature(function).parameters) != op.arguments:
        raise ValueError(f"{op.name} has the arguments {inspect.signature(function)}; its line {op.arguments}")
    written = [spec.name for _, spec in op.tensors if spec.written]
    text = torch.library.infer_schema(function, mutates_args=written, op_name=op.name).replace("SymInt", "int")
    arguments, _, results = text.partition(" -> ")
    if results.count("Tensor") != len(op.results):
        raise ValueError(f"{op.name} returns {results}; its line has {len(op.results)} result(s)")
    for letter, name in zip("abc", written, strict=False):
        arguments = arguments.replace(f"(a{op.arguments.index(name)}!)", f"({letter}!)")
    arguments = re.sub(r"=[^,)]+", "", arguments)  # the schema has no defaults
    made = ", ".join(f"Tensor {spec.name}".rstrip() for spec in op.results)
    return f"{arguments} -> {made}" if len(op.results) == 1 else f"{arguments} -> ({made})"


def document(op: OpSpec, function: Callable[..., Any]) -> str:
    """The naive implementation's docstring, with the tensors and errors of the op's line."""
    text = inspect.cleandoc(function.__doc__ or "")
    errors = (
        "    TypeError: if an argument is no tensor, or has another dtype.\n"
        "    ValueError: if shapes or devices do not fit, or a text or number is not accepted."
    )
    text += f"\n{errors}" if "\nRaises:\n" in text else f"\n\nRaises:\n{errors}"
    given = [f"    {spec.name}: {_WORDS[spec.dtype]} {spec}{_marks(spec)}" for _, spec in op.tensors]
    alike = f", with the strides of {op.arguments[op.first]}"
    results = [
        f"    {spec.name or 'result'}: {_WORDS[spec.dtype]} {spec}{alike * spec.any_strides}" for spec in op.results
    ]
    return "\n".join([text, "\nTensors:", *given, "\nResults:", *results])


def _marks(spec: TensorSpec) -> str:
    return ", any strides" * spec.any_strides + ", on any device" * spec.anywhere + ", written to" * spec.written
