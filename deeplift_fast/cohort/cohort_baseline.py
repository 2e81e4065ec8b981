"""The baseline of a cohort, which must fit batches of any shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from deeplift_fast.baselines import Baseline, typical
from deeplift_fast.cohort.hashing import SHORT, digest
from deeplift_fast.cohort.reading import DatasetSource, Source
from deeplift_fast.cohort.reading_ahead import is_by_index, sample_of
from deeplift_fast.core.baselines import require_finite
from deeplift_fast.errors import CohortError
from deeplift_fast.pyhealth import given_baselines
from deeplift_fast.pyhealth.feature_baselines import Embedded
from deeplift_fast.pyhealth.token_leaves import token_point

TYPICAL = "typical"
NAMES = (*given_baselines.NAMES, TYPICAL)
"""Names of baselines for a cohort; `"typical"` is fitted on its dataset."""

_ACCEPTED = (
    f"None, a name ({', '.join(map(repr, NAMES))}), an object from deeplift_fast.baselines, a dict of feature key to a "
    "name, a number, a tensor of one step or an embedding, or a sequence of these"
)


@dataclass(frozen=True)
class CohortBaseline:
    """A cohort's baseline.

    Attributes:
        given: the argument of `DeepLift.explain`; `None` for the interpreter's own.
        name: its name; baselines that differ in a number have different names.
    """

    given: Any
    name: str

    @property
    def is_unfitted(self) -> bool:
        """Whether it contains `"typical"`, which is still to be fitted on the cohort's dataset."""
        return _holds_typical(self.given)


def checked_baseline(given: Any, interpreter: Any) -> CohortBaseline:
    """A cohort's baseline, checked as far as possible without a batch.

    Args:
        given: as for `attribute_cohort`.
        interpreter: the `DeepLift`; its own baseline serves features without a given one.

    Raises:
        CohortError: if it does not fit every batch.
    """
    model, rules = interpreter.model, interpreter.rules
    if _leaves_some(given, model):
        _check(interpreter.baseline, model, rules)
    _check(given, model, rules)
    try:
        given_baselines.check(_replaced(given, "removed"), rules, list(model.feature_keys))  # "typical" is fitted later
    except (ValueError, TypeError) as error:
        raise CohortError(str(error)) from None
    return _named(given, interpreter)


def fitted(baseline: CohortBaseline, interpreter: Any, dataset: Any, dimensions: Any) -> CohortBaseline:
    """The baseline with `"typical"` fitted on a seeded part of a dataset.

    Args:
        baseline: an unfitted baseline.
        interpreter: the `DeepLift`.
        dataset: samples by index.
        dimensions: by feature key, the names of a continuous feature's dimensions.

    Raises:
        CohortError: if the dataset does not allow it.
    """
    model = interpreter.model
    try:
        found = typical(dataset, dimensions=dimensions, processors=model.dataset.input_processors)
    except (ValueError, TypeError) as error:
        raise CohortError(f"baseline is 'typical': {error}") from None
    return _named(_replaced(baseline.given, found), interpreter)


class ByIndex:
    """A dataset by index whose errors quote no value of a sample.

    Args:
        dataset: anything with `len` and integer indices.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return sample_of(self.dataset, index)


def by_index(source: Source, dataset: Any) -> ByIndex:
    """The samples that a baseline can be fitted on.

    Args:
        source: the cohort's source.
        dataset: the user's dataset, loader or iterable.

    Raises:
        CohortError: if only batches are known, and no dataset that holds their samples.
    """
    if isinstance(source, DatasetSource):
        return ByIndex(source.dataset)
    if isinstance(dataset, DataLoader) and is_by_index(dataset.dataset):
        return ByIndex(dataset.dataset)
    raise CohortError(
        f"baseline is 'typical', which is fitted on samples by index, and dataset is a {type(dataset).__name__}, which "
        "gives batches; give deeplift_fast.baselines.typical(…), with the dataset that the model was trained on"
    )


def _named(given: Any, interpreter: Any) -> CohortBaseline:
    default = given_baselines.default_name(interpreter.rules)
    keys = interpreter.model.feature_keys
    return CohortBaseline(given, _words(given, _words(interpreter.baseline, default, keys), keys))


def _words(given: Any, default: str, keys: Sequence[str]) -> str:
    """A baseline in words, with digests of tensors."""
    if given is None:
        return default
    if isinstance(given, Tensor):
        return repr(given.item()) if given.dim() == 0 else f"tensor {digest(given)[:SHORT]}"
    if isinstance(given, str | Real):
        return str(given)
    if isinstance(given, Baseline):
        return given.name
    if isinstance(given, Mapping):
        each = [f"{key}: {_words(given[key], default, keys)}" for key in keys if key in given]
        return "; ".join(each + ([f"otherwise {default}"] if len(each) < len(keys) else []))
    return f"mean over ({'), ('.join(_words(each, default, keys) for each in given)})"


def _leaves_some(given: Any, model: Any) -> bool:
    """Whether some feature has the interpreter's own baseline."""
    if isinstance(given, Mapping):
        return set(given) != set(model.feature_keys)
    if isinstance(given, Sequence) and not isinstance(given, str):
        return any(_leaves_some(each, model) for each in given)
    return given is None


def _check(given: Any, model: Any, rules: str) -> None:
    """Raise for unknown names, and for tensors that fit only some batches."""
    if isinstance(given, str):
        check_name("baseline", given, rules)
    elif isinstance(given, Baseline):
        for key in model.feature_keys:
            _check_fitted(key, given, model)
    elif isinstance(given, Mapping):
        unknown = sorted(set(map(str, given)) - set(model.feature_keys))
        if unknown:
            raise CohortError(f"baseline has the key(s) {unknown}; accepted: {list(model.feature_keys)}")
        for key, value in given.items():
            _check_feature(key, value, model, rules)
    elif isinstance(given, Sequence):
        for each in given:
            _check(each, model, rules)
    elif given is not None:
        raise CohortError(f"baseline is a {type(given).__name__}; accepted: {_ACCEPTED}")


def check_name(what: str, name: str, rules: str) -> None:
    """Raise `CohortError` unless a baseline's name is known and fits the rule set.

    Args:
        what: the argument's name in error messages.
        name: the baseline's name.
        rules: the rule set.
    """
    if name not in NAMES:
        raise CohortError(
            f"{what} is {name!r}; accepted names: {', '.join(map(repr, NAMES))}; deeplift_fast.baselines makes those "
            "that are fitted on a dataset"
        )
    if rules == "pyhealth" and name != "unk":
        raise CohortError(f"{what} is {name!r}; accepted under rules=\"pyhealth\": 'unk'")


def _check_feature(key: str, given: Any, model: Any, rules: str) -> None:
    what, tokens = f"baseline of feature {key!r}", bool(model.dataset.input_processors[key].is_token())
    if isinstance(given, str):
        check_name(what, given, rules)
    elif isinstance(given, Baseline):
        _check_fitted(key, given, model)
    elif isinstance(given, Real) and tokens and not isinstance(given, Integral):
        raise CohortError(f"{what} is {given!r}; accepted: a token index, which is an int")
    elif isinstance(given, Tensor):
        _check_tensor(key, given, tokens, model)


def _check_fitted(key: str, given: Baseline, model: Any) -> None:
    try:
        found = given.feature(key)
    except ValueError as error:
        raise CohortError(str(error)) from None
    if isinstance(found, Embedded):
        _check_width(key, found.embedding, model)


def _check_tensor(key: str, given: Tensor, tokens: bool, model: Any) -> None:
    what = f"baseline of feature {key!r}"
    embedding = tokens and given.is_floating_point() and given.dim() == 1
    if given.dim() > 1 or (tokens and given.dim() == 1 and not embedding):
        step = "one token index, or an embedding [dim]" if tokens else "one number, or one per dimension of a step"
        raise CohortError(
            f"{what} has shape {tuple(given.shape)}; accepted: {step}: lengths differ from sample to sample"
        )
    if embedding:
        _check_width(key, given, model)
    elif tokens and (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool):
        raise CohortError(f"{what} is {given.dtype}; accepted: a token index, or an embedding [dim]")
    try:
        require_finite(what, given)
    except ValueError as error:
        raise CohortError(str(error)) from None


def _check_width(key: str, embedding: Tensor, model: Any) -> None:
    layer = token_point(model, key).layer
    if layer is None or embedding.shape != (layer.embedding_dim,):
        own = "takes its token indices as numbers" if layer is None else f"embeds it with width {layer.embedding_dim}"
        raise CohortError(
            f"baseline of feature {key!r} is an embedding of shape {tuple(embedding.shape)}; "
            f"{type(model).__name__} {own}"
        )


def _holds_typical(given: Any) -> bool:
    if isinstance(given, Mapping):
        return any(_holds_typical(value) for value in given.values())
    if isinstance(given, Sequence) and not isinstance(given, str):
        return any(map(_holds_typical, given))
    return isinstance(given, str) and given == TYPICAL


def _replaced(given: Any, found: Any) -> Any:
    """The baseline with `found` in place of each `"typical"`."""
    if isinstance(given, Mapping):
        return {key: _replaced(value, found) for key, value in given.items()}
    if isinstance(given, Sequence) and not isinstance(given, str):
        return [_replaced(each, found) for each in given]
    return found if isinstance(given, str) and given == TYPICAL else given
