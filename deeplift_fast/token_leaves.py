"""The point of attribution in a PyHealth model that has no `forward_from_embedding`: its embedding layers' output.

The model runs on the real tokens, so that its masks and lengths are those of the input in both streams; where it embeds
them, or converts them to floating point, it gets what is attributed instead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deeplift_fast.errors import InterceptionError

_CONVERSIONS = frozenset((Tensor.float, Tensor.double, Tensor.to, Tensor.type))


@dataclass(frozen=True)
class TokenPoint:
    """Where a token feature becomes numbers.

    Attributes:
        key: the feature's.
        layer: the embedding layer, or `None` where the model takes the indices themselves as numbers.
    """

    key: str
    layer: nn.Embedding | None

    def numbers(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """What the tokens become: `[*tokens.shape, dim]`, or `tokens.shape` without a layer."""
        if self.layer is None:
            return tokens.to(dtype)
        found: Tensor = self.layer(tokens)
        return found


def token_point(model: Any, key: str) -> TokenPoint:
    """Where `model` turns the tokens of feature `key` into numbers.

    Args:
        model: a PyHealth model; its `embedding_model`, or a dict of modules by feature key, holds the layer.
        key: the feature's.

    Raises:
        ValueError: if the layer is other than an `nn.Embedding`.
    """
    layers = getattr(getattr(model, "embedding_model", None), "embedding_layers", {})
    tables = [layers, *(child for child in model.children() if isinstance(child, nn.ModuleDict))]
    found = [table[key] for table in tables if key in table]
    embeddings = [layer for layer in found if isinstance(layer, nn.Embedding)]
    if embeddings:
        return TokenPoint(key, embeddings[0])
    if key in layers:
        raise ValueError(
            f"feature {key!r} is embedded by a {type(layers[key]).__name__}; accepted, for a model without "
            "forward_from_embedding: an nn.Embedding"
        )
    return TokenPoint(key, None)


class TokenLeaves(TorchFunctionMode):
    """Answers the model's embedding of its tokens with given numbers.

    Args:
        points: where each token feature becomes numbers.
        tokens: the indices that the model is given, by feature key.
        numbers: what it gets for them.
    """

    def __init__(self, points: list[TokenPoint], tokens: Mapping[str, Tensor], numbers: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._points = points
        self._tokens = tokens
        self._numbers = numbers
        self._unused = {point.key for point in points}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func`, or answer it; see :class:`torch.overrides.TorchFunctionMode`."""
        kwargs = kwargs or {}
        if func is F.embedding:
            return self._embedding(func, args, kwargs)
        found = func(*args, **kwargs)
        if func in _CONVERSIONS and found.is_floating_point() and not args[0].is_floating_point():
            for point in self._points:
                if point.layer is None and _same(args[0], self._tokens[point.key]):
                    return self._answer(point).to(found.dtype)
        return found

    def _embedding(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tokens = args[0] if args else kwargs["input"]
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        ours = [point for point in self._points if point.layer is not None and point.layer.weight is weight]
        for point in ours:
            if _same(tokens, self._tokens[point.key]):
                numbers = self._answer(point)
                return numbers.reshape(*tokens.shape, numbers.shape[-1])
        if ours:
            raise InterceptionError(
                f"the model embeds feature {ours[0].key!r} from other tokens than it was given (shape "
                f"{tuple(tokens.shape)}, given {tuple(self._tokens[ours[0].key].shape)}); implement "
                "forward_from_embedding (pyhealth.interpret.api.Interpretable) for it"
            )
        return func(*args, **kwargs)

    def _answer(self, point: TokenPoint) -> Tensor:
        self._unused.discard(point.key)
        return self._numbers[point.key]

    def finish(self) -> None:
        """Raise `InterceptionError` if the model made no numbers of a token feature that are known here."""
        if self._unused:
            raise InterceptionError(
                f"the model does not embed the token feature(s) {', '.join(map(repr, sorted(self._unused)))} with the "
                "layer of that name; implement forward_from_embedding (pyhealth.interpret.api.Interpretable) for it"
            )


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether these are the same tokens, perhaps in another shape."""
    if a.numel() != b.numel():
        return False
    alike = a.data_ptr() == b.data_ptr() and a.is_contiguous() and b.is_contiguous()
    return alike or torch.equal(a.reshape(-1), b.reshape(-1))
