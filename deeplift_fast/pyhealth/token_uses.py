"""The uses of tokens in a PyHealth model, checked once: the tables that embed them, and any other use."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.errors import InterceptionError
from deeplift_fast.pyhealth.features import PAD, UNK, Feature
from deeplift_fast.pyhealth.points import FromTokens

# Both passes have the same numbers; on a GPU the order of sums may differ.
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
_COARSE = 1e-2  # for shorter dtypes

Alone = Callable[[Callable[[], Any]], Any]  # runs a function, then restores the model's state and random generators


class TokenUses:
    """The uses found in one model; new parameters or buffers start a new search."""

    def __init__(self) -> None:
        self._parameters: list[int] = []
        self._tables: dict[str, tuple[Tensor, ...]] = {}
        self._checked: set[str] = set()

    def entered(self, point: FromTokens, features: Mapping[str, Feature], alone: Alone) -> FromTokens:
        """The entry with every table of the model that embeds a feature's tokens.

        Args:
            point: the entry of attribution.
            features: a batch.
            alone: see :data:`Alone`.

        Raises:
            InterceptionError: if a table is neither a parameter nor a buffer of the model.
        """
        held = point.state()
        ids = [id(tensor) for tensor in held]
        if ids != self._parameters:
            found = alone(lambda: point.tables(features))
            for key, weights in found.items():
                if any(all(weight is not each for each in held) for weight in weights):
                    raise InterceptionError(
                        f"the model embeds feature {key!r} with a table that it makes in its forward pass; accepted: "
                        "parameters or buffers of the model; else implement forward_from_embedding "
                        "(pyhealth.interpret.api.Interpretable) for it"
                    )
            self._tables = {key: tuple(weights) for key, weights in found.items()}
            self._parameters, self._checked = ids, set()
        return point.with_tables(self._tables)

    def check(self, point: FromTokens, features: Mapping[str, Feature], alone: Alone) -> None:
        """Require that a feature's tokens reach the logits through their embeddings only.

        Unknown codes as tokens must give the same logits as the real tokens with the embeddings of unknown codes. A
        feature with unknown codes only is checked in a later batch.

        Raises:
            InterceptionError: if the logits differ; the message names the features.
        """
        values = {key: feature.value for key, feature in features.items()}
        unknown = {key: _unknown(values[key]) for key, each in features.items() if each.is_token}
        told = {key for key, tokens in unknown.items() if not torch.equal(tokens, values[key].to(tokens.dtype))}
        told -= self._checked
        if not told:
            return

        def differ(keys: set[str]) -> bool:
            tokens = {key: unknown[key] if key in keys else values[key] for key in unknown}
            ours = alone(lambda: point.logits(features, {**values, **point.numbers(tokens)}))
            theirs = alone(lambda: point.plain(features, tokens))
            return not _alike(ours, theirs)

        if differ(told):
            named = [key for key in sorted(told) if len(told) == 1 or differ({key})] or sorted(told)
            raise InterceptionError(
                f"the model uses the tokens of feature(s) {', '.join(map(repr, named))} besides embedding them "
                "(unknown codes as tokens give other logits than the embeddings of unknown codes), so contributions to "
                "embeddings would be incomplete; implement forward_from_embedding "
                "(pyhealth.interpret.api.Interpretable) for it, or embed the tokens with nn.Embedding wherever they "
                "are used"
            )
        self._checked |= told


def _unknown(tokens: Tensor) -> Tensor:
    """The unknown code in place of each code; padding stays."""
    return torch.where(tokens == PAD, PAD, UNK).to(tokens.dtype)


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    tolerance = _TOLERANCE.get(ours.dtype, _COARSE)
    bound = tolerance * (1 + float(theirs.detach().abs().nan_to_num(0, 0, 0).max()))
    return torch.allclose(ours, theirs, rtol=0, atol=bound, equal_nan=True)
