"""From a user's `baseline=` to the baseline of each feature of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core.baselines import require_finite
from deeplift_fast.core.devices import moved
from deeplift_fast.core.plain_tensors import require_plain
from deeplift_fast.core.questions import NOW, Questions
from deeplift_fast.pyhealth.feature_baselines import (
    Baseline,
    BaselineValue,
    Embedded,
    Everywhere,
    FeatureBaseline,
    Given,
    Removed,
    Unknown,
)
from deeplift_fast.pyhealth.features import Feature, check_embeddable, require_known_dtype
from deeplift_fast.pyhealth.request import Batch

OneBaseline = None | str | Mapping[str, Any] | Baseline  # a mapping has a name, number or tensor by feature key
Baselines = OneBaseline | Sequence[OneBaseline]
NAMES: dict[str, FeatureBaseline] = {"unk": Unknown(), "removed": Removed()}
ACCEPTED = (
    "None, a name ('unk', 'removed'), a dict of feature key to name, number or tensor, an object from "
    "deeplift_fast.baselines, or a sequence of these"
)
_AS_PYHEALTH = "None, 'unk', or a dict with one tensor per feature key"
UNTRAINED = (
    "no baseline was given, so each code is compared with the unknown code (UNK). Training never changes UNK's "
    "embedding, because PyHealth's vocabulary holds every code of the dataset: another random draw of it would flip "
    'the sign of a third to a half of the contributions; pass baseline="removed" to compare with the absence of the '
    'code, or baseline="unk" to keep UNK'
)
TYPICAL = (
    "'typical' needs a dataset to be fitted on; accepted: deeplift_fast.baselines.typical(dataset), with the dataset "
    "that the model was trained on"
)


def default_name(rules: str) -> str:
    """The default baseline of a rule set."""
    return "removed" if rules == "complete" else "unk"


def shown(given: Any, rules: str) -> str:
    """A user's baseline in words; `None` is the default of the rule set."""
    if given is None:
        return default_name(rules)
    if isinstance(given, str | Real):
        return str(given)
    if isinstance(given, Tensor):
        return "tensor"
    if isinstance(given, Baseline):
        return given.name
    if isinstance(given, Mapping):
        return "; ".join(f"{key}: {shown(value, rules)}" for key, value in given.items())
    return f"mean over {'; '.join(shown(each, rules) for each in given)}"


def is_untrained(model: Any, rules: str) -> bool:
    """Whether the default baseline replaces tokens of the model by UNK, without the user's choice."""
    processors = model.dataset.input_processors
    return rules == "rescale" and any(processors[key].is_token() for key in model.feature_keys)


@dataclass(frozen=True)
class Chosen:
    """The baselines of a call.

    Attributes:
        each: the baseline of each feature, one mapping per baseline.
        several: whether the user gave several baselines.
        name: their name in reports.
    """

    each: tuple[Mapping[str, FeatureBaseline], ...]
    several: bool
    name: str

    def values(
        self, features: Mapping[str, Feature], only: Mapping[str, Tensor] | None
    ) -> list[Mapping[str, BaselineValue]]:
        """The features at each baseline; with masks from :func:`masks`, at these positions only."""
        found: list[Mapping[str, BaselineValue]] = []
        for each in self.each:
            values = {key: each[key].of(feature) for key, feature in features.items()}
            if only is not None:
                values = {key: value.only(only[key], features[key]) for key, value in values.items()}
            found.append(values)
        return found


def check(given: Any, rules: str, keys: Sequence[str]) -> None:
    """Raise for errors that show without a batch.

    Args:
        given: a user's baseline.
        rules: the rule set.
        keys: the model's features.

    Raises:
        ValueError: for an unknown name, key or feature, an empty sequence, or a form that `"pyhealth"` does not accept.
        TypeError: for any other object.
    """
    if given is None:
        return
    if isinstance(given, str):
        _check_name("baseline", given, rules)
    elif isinstance(given, Baseline):
        _refuse_as_pyhealth(given.name, rules)
        for key in keys:
            given.feature(key)
    elif isinstance(given, Mapping):
        unknown = sorted(map(str, set(given) - set(keys)))
        if unknown:
            raise ValueError(f"baseline: unknown key(s) {unknown}; accepted: {sorted(keys)}")
        for key, value in given.items():
            _check_value(key, value, rules)
    elif isinstance(given, Sequence):
        if not given:
            raise ValueError(f"baseline holds no baselines; accepted: {ACCEPTED}")
        for value in given:
            if isinstance(value, Sequence) and not isinstance(value, str):
                raise TypeError(f"baseline is a sequence that holds a {type(value).__name__}; accepted: {ACCEPTED}")
            check(value, rules, keys)
    else:
        raise TypeError(f"baseline is a {type(given).__name__}; accepted: {ACCEPTED}")


def _check_value(key: str, value: Any, rules: str) -> None:
    what = f"baseline of feature {key!r}"
    if isinstance(value, str):
        _check_name(what, value, rules)
    elif isinstance(value, Baseline):
        _refuse_as_pyhealth(value.name, rules)
        value.feature(key)
    elif isinstance(value, Real) and not isinstance(value, bool):
        _refuse_as_pyhealth(f"{what} is {value!r}", rules)
    elif not isinstance(value, Tensor):
        raise TypeError(
            f"{what} is a {type(value).__name__}; accepted: a name ('unk', 'removed'), a number, or one tensor (times "
            "and masks are those of the input)"
        )


def _check_name(what: str, name: str, rules: str) -> None:
    if name == "typical":
        raise ValueError(f"{what}: {TYPICAL}")
    if name not in NAMES:
        raise ValueError(
            f"{what} is {name!r}; accepted names: {', '.join(map(repr, NAMES))}; deeplift_fast.baselines makes those "
            "that are fitted on a dataset"
        )
    if name != "unk":
        _refuse_as_pyhealth(f"{what} is {name!r}", rules)


def _refuse_as_pyhealth(what: str, rules: str) -> None:
    if rules == "pyhealth":
        raise ValueError(f'{what}; accepted under rules="pyhealth": {_AS_PYHEALTH}')


@dataclass(frozen=True)
class Parser:
    """Reads baselines for one batch.

    Attributes:
        rules: the rule set.
        features: the batch.
        layers: the embedding layers, by feature key.
        questions: takes the check for NaN and inf.
    """

    rules: str
    features: Mapping[str, Feature]
    layers: Mapping[str, Any]
    questions: Questions

    def read(self, given: Any, default: Any = None) -> Chosen:
        """The baselines of a call.

        Args:
            given: the baseline of the call; `None` for the default.
            default: the interpreter's baseline, in the same forms; `None` for the default of the rule set.

        Raises:
            ValueError, TypeError: for a baseline that does not fit; the message names the feature.
        """
        name = default_name(self.rules)
        own = Chosen((dict.fromkeys(self.features, self._named(name)),), False, name)
        return self._read(given, self._read(default, own))

    def _read(self, given: Any, default: Chosen) -> Chosen:
        if given is None:
            return default
        check(given, self.rules, list(self.features))
        if isinstance(given, str):
            return Chosen((dict.fromkeys(self.features, self._named(given)),), False, given)
        if isinstance(given, Baseline):
            return Chosen(({key: self._fitted(key, given) for key in self.features},), False, given.name)
        if isinstance(given, Mapping):
            return self._overridden(given, default)
        parts = [self._read(each, default) for each in given]
        each = tuple(one for part in parts for one in part.each)
        return Chosen(each, True, f"mean over {'; '.join(part.name for part in parts)}")

    def _overridden(self, given: Mapping[str, Any], default: Chosen) -> Chosen:
        count = self._stacked(given)
        rows = [given] if count is None else [{key: value[i] for key, value in given.items()} for i in range(count)]
        named = [{key: self._feature(key, value) for key, value in row.items()} for row in rows]
        each = tuple({**one, **row} for row in named for one in default.each)
        return Chosen(each, default.several or count is not None, _name_of(named, set(self.features), default.name))

    def _stacked(self, given: Mapping[str, Any]) -> int | None:
        """The number of baselines in the leading dimension of every tensor; `None` without such a dimension."""
        for key, value in given.items():
            feature = self.features[key]
            embedding = feature.is_token and isinstance(value, Tensor) and value.is_floating_point()
            if not isinstance(value, Tensor) or value.dim() != feature.value.dim() + 1 or embedding:
                return None
        counts = {key: len(value) for key, value in given.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"baseline: the leading dimensions differ: {counts}; each tensor needs as many")
        count = next(iter(counts.values()), None)
        if count == 0:
            raise ValueError(f"baseline holds no baselines; accepted: {ACCEPTED}")
        return count

    def _named(self, name: str) -> FeatureBaseline:
        return Unknown(everywhere=True) if self.rules == "pyhealth" else NAMES[name]

    def _feature(self, key: str, given: Any) -> FeatureBaseline:
        if isinstance(given, str):
            return self._named(given)
        if isinstance(given, Baseline):
            return self._fitted(key, given)
        feature = self.features[key]
        if isinstance(given, Real):
            return _number(feature, given)
        return self._tensor(feature, given)

    def _fitted(self, key: str, given: Baseline) -> FeatureBaseline:
        found = given.feature(key)
        if isinstance(found, Embedded):  # it may come from another model
            return replace(self._embedding(self.features[key], found.embedding), name=found.name)
        return found

    def _tensor(self, feature: Feature, given: Tensor) -> FeatureBaseline:
        what, value = f"baseline of feature {feature.key!r}", feature.value
        require_plain(what, given)
        if feature.is_token and given.is_floating_point() and given.shape != value.shape:
            return self._embedding(feature, given)
        step = () if feature.is_token else value.shape[-1:]
        if given.shape not in (value.shape, (), step):
            alone = "" if feature.is_token else f", or that of one step, {tuple(step)}"
            raise ValueError(
                f"{what} has shape {tuple(given.shape)}; accepted: the value's, {tuple(value.shape)}{alone} (times and "
                "masks are those of the input)"
            )
        _check_dtype(what, feature, given)
        on_device = moved(given, value.device, torch.int64 if feature.is_token else value.dtype)
        require_finite(what, on_device, self.questions)
        return Given(on_device) if given.shape == value.shape else Everywhere(on_device, _short(given))

    def _embedding(self, feature: Feature, given: Tensor) -> Embedded:
        what = f"baseline of feature {feature.key!r}"
        layer = self.layers.get(feature.key)
        width = getattr(layer, "embedding_dim", None)
        if layer is None or width is None:
            raise ValueError(
                f"{what} is an embedding of shape {tuple(given.shape)}, and {feature.key!r} has no embedding layer; "
                "accepted: a name, or integer token indices"
            )
        full = (*feature.value.shape, width)
        if given.shape not in ((width,), full):
            raise ValueError(
                f"{what} has shape {tuple(given.shape)}, and the embedding of {feature.key!r} has width {width}; "
                f"accepted: ({width},), or {full} for this batch; or integer token indices"
            )
        on_device = moved(given.detach(), feature.value.device, layer.weight.dtype)
        require_finite(what, on_device, self.questions)
        return Embedded(on_device)


def _number(feature: Feature, given: Real) -> Everywhere:
    what = f"baseline of feature {feature.key!r}"
    step = torch.tensor(given, dtype=None if feature.is_token else feature.value.dtype, device="cpu")
    _check_dtype(what, feature, step)
    require_finite(what, step)
    return Everywhere(step, f"{given:g}")  # type: ignore[str-bytes-safe]


def _check_dtype(what: str, feature: Feature, given: Tensor) -> None:
    integer = not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool)
    if (feature.is_token and not integer) or (not (feature.is_token or integer) and given.dtype != feature.value.dtype):
        accepted = "integer token indices" if feature.is_token else str(feature.value.dtype)
        raise TypeError(f"{what} is {given.dtype}; accepted: {accepted}")


def _short(step: Tensor) -> str:
    if step.dim() == 0:  # a number on a GPU would have to be waited for
        return f"{float(step):g}" if step.device.type == "cpu" else "one number"
    return f"one value for each of {len(step)} dimensions"


def _name_of(rows: Sequence[Mapping[str, FeatureBaseline]], keys: set[str], default: str) -> str:
    names = {key: each.name for key, each in rows[0].items()}
    count = f", {len(rows)} of them" if len(rows) > 1 else ""
    if set(names.values()) == {"tensor"} and set(names) == keys:
        return f"tensors as given{count}"
    rest = [f"otherwise {default}"] if set(names) != keys else []
    return "; ".join([*(f"{key}: {name}" for key, name in names.items()), *rest]) + count


def check_layers(model: Any, batch: Batch, chosen: Chosen) -> None:
    """Raise `ValueError` or `TypeError` where the model cannot embed a feature or its baseline."""
    for key, feature in batch.features.items():
        if key not in batch.layers:
            require_known_dtype(feature, model)
            continue
        layer = batch.layers[key]
        bounds = None if feature.survey is None else feature.survey.bounds
        check_embeddable(f"feature {key!r}", feature.value, layer, batch.questions, bounds)
        what = f"baseline of feature {key!r}"
        for each in chosen.each:
            given = each[key]
            if isinstance(given, Given):
                check_embeddable(what, given.value, layer, batch.questions)
            elif isinstance(given, Everywhere) and feature.is_token:
                there = given.step.device == feature.value.device
                check_embeddable(what, given.step, layer, batch.questions if there else NOW)


def masks(given: Any, features: Mapping[str, Feature]) -> dict[str, Tensor] | None:
    """The positions that move to the baseline, checked: bool, by feature key; `None` for all.

    Args:
        given: a mapping of feature key to bool mask of the value's shape; missing features stay at the input.
        features: the batch.

    Raises:
        ValueError: for an unknown key or another shape.
        TypeError: for any other object than a mapping of bool tensors.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(f"at_baseline is a {type(given).__name__}; accepted: a dict of feature key to bool mask")
    unknown = sorted(map(str, set(given) - set(features)))
    if unknown:
        raise ValueError(f"at_baseline: unknown key(s) {unknown}; accepted: {sorted(features)}")
    found = {}
    for key, feature in features.items():
        mask = given.get(key)
        if mask is None:
            found[key] = torch.zeros_like(feature.value, dtype=torch.bool)
            continue
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
            raise TypeError(f"at_baseline of feature {key!r} is {kind}; accepted: a bool tensor")
        if mask.shape != feature.value.shape:
            raise ValueError(
                f"at_baseline of feature {key!r} has shape {tuple(mask.shape)}; accepted: the value's, "
                f"{tuple(feature.value.shape)}"
            )
        found[key] = moved(mask, feature.value.device)
    return found
