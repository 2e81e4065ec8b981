"""The entry of attribution in a PyHealth model without `forward_from_embedding`: the output of its embedding layers.

The model runs on the real tokens, so that its masks and lengths are those of the input in both streams. Where it embeds
the tokens, or converts them to floating point, it gets the attributed numbers instead.
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
_COPIES = _CONVERSIONS | {Tensor.long, Tensor.int, Tensor.clone, torch.clone, Tensor.cuda, Tensor.cpu}


@dataclass(frozen=True)
class TokenPoint:
    """The place where a token feature becomes numbers.

    Attributes:
        key: the key of the feature.
        layer: the embedding layer, or `None` if the model takes the indices themselves as numbers.
        further: the weights of other tables that embed the same tokens, `[vocabulary, dim]` each.
    """

    key: str
    layer: nn.Embedding | None
    further: tuple[Tensor, ...] = ()

    @property
    def tables(self) -> list[Tensor]:
        """The weights of all tables."""
        return [*([] if self.layer is None else [self.layer.weight]), *self.further]

    def numbers(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """The tokens' numbers: `[*tokens.shape, dims of all tables]`, or `tokens.shape` without a table."""
        if not self.tables:
            return tokens.to(dtype)
        own = [] if self.layer is None else [self.layer(tokens)]
        found = [*own, *(F.embedding(tokens, weight) for weight in self.further)]
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def of_table(self, numbers: Tensor, weight: Tensor) -> Tensor:
        """The part of :meth:`numbers` from one table."""
        tables = self.tables
        if len(tables) == 1:
            return numbers
        place = next(i for i, table in enumerate(tables) if table is weight)
        return numbers.split([table.shape[-1] for table in tables], -1)[place]


def token_point(model: Any, key: str, further: tuple[Tensor, ...] = ()) -> TokenPoint:
    """The place where `model` turns the tokens of a feature into numbers.

    Args:
        model: a PyHealth model; its `embedding_model`, or a dict of modules by feature key, holds the layer.
        key: the key of the feature.
        further: the weights of other tables that embed the same tokens.

    Raises:
        ValueError: if the layer is not an `nn.Embedding`.
    """
    layers = getattr(getattr(model, "embedding_model", None), "embedding_layers", {})
    tables = [layers, *(child for child in model.children() if isinstance(child, nn.ModuleDict))]
    found = [table[key] for table in tables if key in table]
    embeddings = [layer for layer in found if isinstance(layer, nn.Embedding)]
    if not embeddings and key in layers:
        raise ValueError(
            f"feature {key!r} is embedded by a {type(layers[key]).__name__}; accepted, for a model without "
            "forward_from_embedding: an nn.Embedding"
        )
    layer = embeddings[0] if embeddings else None
    return TokenPoint(key, layer, tuple(w for w in further if layer is None or w is not layer.weight))


class _TokenMode(TorchFunctionMode):
    """Follows each feature's tokens through the model.

    Args:
        points: the place of each token feature.
        tokens: the indices that the model gets, by feature key.
    """

    def __init__(self, points: list[TokenPoint], tokens: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._points = {point.key: point for point in points}
        self._tokens = tokens
        # The model's copies are added. They are kept alive, so that no other tensor gets their memory.
        self._held = [(tokens[key], key) for key in self._points]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func`, or return the attributed numbers; see :class:`torch.overrides.TorchFunctionMode`."""
        kwargs = kwargs or {}
        if func is F.embedding:
            tokens = args[0] if args else kwargs["input"]
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            return self._embedding(tokens, weight, lambda: func(*args, **kwargs))
        found = func(*args, **kwargs)
        if func in _COPIES and isinstance(found, Tensor) and found is not args[0] and not args[0].is_floating_point():
            if found.is_floating_point():
                return self._converted(args[0], found)
            self._held.extend((found, key) for key in self._of(args[0]))
        return found

    def _of(self, tokens: Tensor) -> list[str]:
        """The features with these tokens, compared by memory."""
        return list(dict.fromkeys(key for held, key in self._held if _shares(tokens, held)))

    def _embedding(self, tokens: Tensor, weight: Tensor, run: Callable[[], Tensor]) -> Tensor:
        raise NotImplementedError

    def _converted(self, tokens: Tensor, found: Tensor) -> Tensor:
        return found


class TokenTables(_TokenMode):
    """Records the tables that embed each feature's tokens, while the model runs unchanged.

    Attributes:
        found: the tables' weights by feature key.
    """

    def __init__(self, points: list[TokenPoint], tokens: Mapping[str, Tensor]) -> None:
        super().__init__(points, tokens)
        self.found: dict[str, list[Tensor]] = {}

    def _embedding(self, tokens: Tensor, weight: Tensor, run: Callable[[], Tensor]) -> Tensor:
        keys = self._of(tokens)
        named = [key for key in keys if _among(weight, self._points[key].tables)]
        for key in named or keys:
            tables = self.found.setdefault(key, [])
            if not _among(weight, tables):
                tables.append(weight)
        return run()


class TokenLeaves(_TokenMode):
    """Replaces the model's embeddings of its tokens by given numbers.

    Two features may hold equal tokens. Their memory, or that of their copies, tells them apart; otherwise a feature
    without an answer so far comes first.

    Args:
        points: the place of each token feature.
        tokens: the indices that the model gets, by feature key.
        numbers: the numbers in place of the embeddings.
    """

    def __init__(self, points: list[TokenPoint], tokens: Mapping[str, Tensor], numbers: Mapping[str, Tensor]) -> None:
        super().__init__(points, tokens)
        self._numbers = numbers
        self._answered: set[tuple[str, int]] = set()

    def _embedding(self, tokens: Tensor, weight: Tensor, run: Callable[[], Tensor]) -> Tensor:
        ours = [key for key, point in self._points.items() if _among(weight, point.tables)]
        key = self._chosen(tokens, ours, id(weight))
        if key is None:
            self._refuse(tokens, ours)
            return run()
        numbers = self._points[key].of_table(self._numbers[key], weight)
        return numbers.reshape(*tokens.shape, numbers.shape[-1])

    def _converted(self, tokens: Tensor, found: Tensor) -> Tensor:
        if tokens.dtype == torch.bool:
            return found
        as_numbers = [key for key, point in self._points.items() if not point.tables]
        key = self._chosen(tokens, as_numbers, 0)
        return found if key is None else self._numbers[key].reshape(tokens.shape).to(found.dtype)

    def _chosen(self, tokens: Tensor, ours: list[str], use: int) -> str | None:
        """The feature among `ours` with these tokens; `use` identifies the table."""
        known = self._of(tokens)
        keys = [key for key in ours if key in known]
        if not known:
            keys = [key for key in ours if _equal(tokens, self._tokens[key])]
        fresh = [key for key in keys if (key, use) not in self._answered]
        key = next(iter(fresh or keys), None)
        if key is not None:
            self._answered.add((key, use))
        return key

    def _refuse(self, tokens: Tensor, ours: list[str]) -> None:
        """Raise `InterceptionError` for an embedding that has no given numbers and may be of a feature."""
        known = self._of(tokens)
        if known:
            raise InterceptionError(
                f"the model embeds feature {known[0]!r} with a table that it has not used before, or that it makes "
                "in its forward pass; accepted: parameters or buffers of the model, the same in every pass; else "
                "implement forward_from_embedding (pyhealth.interpret.api.Interpretable) for it"
            )
        if ours:
            shapes = tuple(tokens.shape), tuple(self._tokens[ours[0]].shape)
            how = "of the same shape" if shapes[0] == shapes[1] else f"of shape {shapes[0]}, not {shapes[1]}"
            raise InterceptionError(
                f"the model embeds feature {ours[0]!r} from other tokens than it was given ({how}); implement "
                "forward_from_embedding (pyhealth.interpret.api.Interpretable) for it"
            )

    def finish(self) -> None:
        """Raise `InterceptionError` if the model did not embed a token feature in a known way."""
        unused = sorted(self._points.keys() - {key for key, _ in self._answered})
        if unused:
            raise InterceptionError(
                f"the model does not embed the token feature(s) {', '.join(map(repr, unused))} with an nn.Embedding; "
                "implement forward_from_embedding (pyhealth.interpret.api.Interpretable) for it"
            )


def apart(tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each feature's tokens in separate memory, which tells features of one tensor apart."""
    found: dict[str, Tensor] = {}
    for key, value in tokens.items():
        found[key] = value.clone() if any(_shares(value, other) for other in found.values()) else value
    return found


def _among(weight: Tensor, tables: list[Tensor]) -> bool:
    return any(table is weight for table in tables)


def _shares(a: Tensor, b: Tensor) -> bool:
    """Whether these are the same tokens in the same memory, in any shape."""
    if a.numel() != b.numel() or a.dtype != b.dtype or a.data_ptr() != b.data_ptr():
        return False
    return (a.is_contiguous() and b.is_contiguous()) or (a.shape == b.shape and a.stride() == b.stride())


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether these are equal tokens, in any shape."""
    return a.numel() == b.numel() and torch.equal(a.reshape(-1).long(), b.reshape(-1).long())
