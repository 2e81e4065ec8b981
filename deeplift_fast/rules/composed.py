"""Operations written out in smaller ones with rules; both streams run these in the operation's place."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def identity(input: Tensor, *_: Any) -> Tensor:
    """`detach` and `.data` without the detachment, since f(x) depends on such values as on any other."""
    with torch._C.DisableTorchFunction():
        return input.view_as(input)


def to_numpy(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`Tensor.numpy`; values that leave PyTorch are constants."""
    with torch._C.DisableTorchFunction():
        return input.detach().numpy(*args, **kwargs)


def to_array(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`Tensor.__array__`: see :func:`to_numpy`."""
    with torch._C.DisableTorchFunction():
        return input.detach().__array__(*args, **kwargs)


def to_dlpack(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`Tensor.__dlpack__`: see :func:`to_numpy`."""
    with torch._C.DisableTorchFunction():
        return input.detach().__dlpack__(*args, **kwargs)


def divide(input: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """a · (1/b), for complex numbers."""
    return input * torch.reciprocal(other.to(torch.result_type(input, other)))


def divide_into(input: Tensor, other: Any) -> Tensor:
    """`other / input`, for a number or a tensor."""
    return torch.div(torch.as_tensor(other, dtype=torch.result_type(input, other), device=input.device), input)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The largest of two."""
    return torch.stack(torch.broadcast_tensors(input, other)).amax(0)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smallest of two."""
    return torch.stack(torch.broadcast_tensors(input, other)).amin(0)


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest element."""
    dims = () if dim is None else (dim,)
    return torch.return_types.aminmax((input.amin(dims, keepdim), input.amax(dims, keepdim)))  # type: ignore


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str) -> Tensor:
    """`torch.scatter` with `reduce`: added to what is there, or multiplied with it."""
    src = value if src is None else src
    src = src if isinstance(src, Tensor) else torch.full_like(index, src, dtype=input.dtype)
    return torch.scatter_reduce(input, dim, index, src, {"add": "sum", "multiply": "prod"}[reduce])


def takes_maximum(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of `F.embedding_bag` takes the largest of each bag, without renormalising the weight."""
    mode, max_norm = (kwargs.get(key, args[i] if len(args) > i else None) for i, key in ((6, "mode"), (3, "max_norm")))
    return mode == "max" and max_norm is None


def embedding_bag_max(
    input: Tensor, weight: Tensor, offsets: Any = None, *_: Any, padding_idx: int | None = None, **options: Any
) -> Tensor:
    """The largest of each bag's rows; 0 for a bag without any."""
    padding = torch.zeros_like(input, dtype=torch.bool) if padding_idx is None else input == padding_idx % len(weight)
    rows = F.embedding(input, weight).masked_fill(padding.unsqueeze(-1), -torch.inf)
    if input.dim() == 2:
        found = rows.amax(1)
    else:
        ends = offsets if options.get("include_last_offset") else F.pad(offsets, (0, 1), value=len(input))
        found = torch.segment_reduce(rows, "max", offsets=ends)
    return found.masked_fill(found == -torch.inf, 0.0)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """The smaller of `max` and of the larger of `input` and `min`; bounds may be tensors."""
    if min is not None:
        input = maximum(input, torch.as_tensor(min, dtype=input.dtype, device=input.device))
    if max is not None:
        input = minimum(input, torch.as_tensor(max, dtype=input.dtype, device=input.device))
    return input


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """See :func:`clamp`."""
    return clamp(input, min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """See :func:`clamp`."""
    return clamp(input, None, max)


def complex_abs(input: Tensor) -> Tensor:
    """The root of the sum of squares of a complex number's parts."""
    return torch.sqrt(torch.square(torch.view_as_real(input)).sum(-1))


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """logsumexp of two."""
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(input, other)), 0)


def rrelu(input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *_: Any, **__: Any) -> Tensor:
    """A leaky relu with slopes drawn at random, the same in both streams: `relu(x) − a · relu(−x)`."""
    slope = torch.empty_like(input.detach()).uniform_(lower, upper)
    return torch.relu(input) - slope * torch.relu(-input)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """The softmax of logits with Gumbel noise; `hard` gives one-hot values with the gradient of the soft ones."""
    noise = -torch.empty_like(logits.detach()).exponential_().log()
    soft = F.softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    chosen = torch.zeros_like(soft.detach()).scatter_(dim, soft.detach().argmax(dim, keepdim=True), 1.0)
    return chosen - soft.detach() + soft


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *args: Any, label_smoothing: float = 0.0, **kwargs: Any
) -> Tensor:
    """The negative log-likelihood of log_softmax, for class indices and no label smoothing."""
    return F.nll_loss(F.log_softmax(input, 1 if input.dim() > 1 else 0), target, weight, *args, **kwargs)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """The softmax of −x."""
    return F.softmax(-input, dim, dtype=dtype)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a · sigmoid(b)."""
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """x + v · a / b."""
    return input + value * (tensor1 / tensor2)


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """x + w · (end − x)."""
    return input + weight * (end - input)


def einsum(equation: str, *operands: Any) -> Tensor:
    """Two operands at a time, from the left."""
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else list(operands)
    sides = equation.replace(" ", "")
    inputs, output = sides.split("->") if "->" in sides else (sides, _implicit(sides))
    terms = inputs.split(",")
    while len(tensors) > 2:
        later = set(output).union(*terms[2:])
        kept = "".join(dict.fromkeys(c for c in terms[0] + terms[1] if c in later and c != "."))
        kept = ("..." if "..." in terms[0] + terms[1] else "") + kept
        tensors[:2] = [torch.einsum(f"{terms[0]},{terms[1]}->{kept}", tensors[0], tensors[1])]
        terms[:2] = [kept]
    return torch.einsum(f"{','.join(terms)}->{output}", *tensors)


def operands(args: tuple[Any, ...]) -> int:
    """The number of an einsum's operands; 0 for a call without an equation."""
    if not isinstance(args[0], str):
        return 0
    return len(args[1]) if len(args) == 2 and isinstance(args[1], list | tuple) else len(args) - 1


def _implicit(inputs: str) -> str:
    letters = inputs.replace(",", "").replace(".", "")
    free = sorted(c for c in set(letters) if letters.count(c) == 1)
    return ("..." if "..." in inputs else "") + "".join(free)
