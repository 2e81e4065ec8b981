"""A feature's value and mask as the fused layers take them, and batches that they were not written for."""

from typing import Any

import torch
from torch import Tensor, nn

from deeplift_fast.errors import Unfit
from deeplift_fast.feature_baselines import BaselineValue
from deeplift_fast.features import Feature
from deeplift_fast.fused.entries import Tokens, Values
from deeplift_fast.questions import Questions


def entry_of(feature: Feature, baseline: BaselineValue, layer: Any) -> Tokens | Values:
    """Where attribution starts in a feature of `[batch, steps]` or `[batch, steps, …]`."""
    if feature.is_token:
        if not isinstance(layer, nn.Embedding) or feature.value.dim() not in (2, 3):
            raise unfit(feature, "its tokens are nested more than once, or not embedded by an nn.Embedding")
        return Tokens(feature.value.long().contiguous(), *tokens_at(feature, baseline, layer.weight))
    require_linear(feature, layer)
    if feature.value.dim() == 2:
        return Values(feature.value.unsqueeze(1), baseline.value.unsqueeze(1), layer)
    if feature.value.dim() != 3:
        raise unfit(feature, f"its values have shape {tuple(feature.value.shape)}, not [batch, steps, size]")
    return Values(feature.value, baseline.value, layer)


def tokens_at(feature: Feature, baseline: BaselineValue, table: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens at the baseline, int64, and the embedding table, with one more row for an embedding of no token."""
    if baseline.embedding is None or baseline.embedded is None:
        return baseline.value.long().contiguous(), table
    if baseline.embedding.dim() > 1:
        raise unfit(feature, "its baseline is an embedding of its own for each token")
    tokens = torch.where(baseline.embedded, len(table), baseline.value).long().contiguous()
    return tokens, torch.cat([table, baseline.embedding.to(table.dtype).unsqueeze(0)])


def require_linear(feature: Feature, layer: Any) -> None:
    """Raise `Unfit` unless a linear layer embeds the values, in their dtype."""
    if not isinstance(layer, nn.Linear) or feature.value.dtype != layer.weight.dtype:
        raise unfit(feature, f"its values ({feature.value.dtype}) are not embedded by an nn.Linear of their dtype")


def unfit(feature: Feature, reason: str) -> Unfit:
    """What to raise for a feature."""
    return Unfit(f"feature {feature.key!r}: {reason}")


def unfit_if(wrong: bool, feature: Feature, reason: str) -> None:
    """Raise `Unfit` for a feature if something is wrong."""
    if wrong:
        raise unfit(feature, reason)


def mask_of(feature: Feature, schema: tuple[str, ...]) -> Tensor | None:
    """The mask that the model is given with a feature."""
    parts = feature.parts
    mask = parts[schema.index("mask")] if "mask" in schema else None
    mask = parts[-1] if mask is None and len(parts) == len(schema) + 1 else mask
    return mask if isinstance(mask, Tensor) else None


def step_mask(feature: Feature, schema: tuple[str, ...]) -> Tensor:
    """The mask of steps, `[batch, steps]`, collapsed as the models do."""
    mask, value = mask_of(feature, schema), feature.value
    if mask is None or mask.dim() not in (2, value.dim()) or mask.shape != value.shape[: mask.dim()]:
        raise unfit(feature, "its mask does not tell which steps are real")
    return mask.any(-1) if mask.dim() == 3 else mask


def require_flags(feature: Feature, mask: Tensor, ends: Tensor, questions: Questions) -> None:
    """Raise `Unfit` for a mask of steps with numbers other than 0 and 1; `ends` are its sums."""
    if mask.dtype == torch.bool or feature.mask is None:  # one derived from the values
        return
    steps, reason = mask.shape[1], "its mask holds numbers other than 0 and 1"
    questions.ask((ends.max(), mask.min()), lambda found: unfit_if(found[0] > steps or found[1] < 0, feature, reason))


def require_same(feature: Feature, mask: Tensor, mask0: Tensor, what: str, questions: Questions) -> None:
    """Raise `Unfit` if the mask of the baseline is another one than that of the input."""
    reason = f"other {what} count as real at the baseline"
    questions.ask([(mask != mask0).any()], lambda found: unfit_if(bool(found[0]), feature, reason))
