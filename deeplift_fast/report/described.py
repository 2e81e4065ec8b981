"""A cohort's run in words: the model, the outcome, the reference and the rule set, for the reader of a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.formats import cut

_DIGITS = 12
"""Digits of a digest that a page shows."""

RULES = {
    "complete": "complete: every operation of the model has an exact secant, so contributions add up by themselves",
    "rescale": "rescale: exact secants of ReLU, Sigmoid and Tanh, gradients elsewhere, scaled to add up",
    "pyhealth": "pyhealth: the arithmetic of PyHealth 2.1, scaled to add up",
}
"""The rule sets in words, by name."""

_FILL_FORWARD = {
    "stagenet_tensor",
    "pyhealth.processors.stagenet_processor.StageNetTensorProcessor",
    "deeplift_fast.demo.processors.StandardLabs",
}
"""Processors that give a value that was not measured the last one measured before it, over all stays of a sample."""

_MODES = ("binary", "multiclass", "multilabel", "regression")

_REFERENCES = {
    "removed": "the same record with no code and no value in it",
    "unk": "the same record with every code unknown and every value 0.01",
    "typical": "the same record with no code in it and every value at its median",
    "mean": "the same record with every code and every value at its mean",
}


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        model: name of the model's class.
        weights: the beginning of the digest of its weights; empty where not known.
        outcome: key of the label; "the outcome" where not known.
        mode: "binary", "multiclass", "multilabel" or "regression", as its task is; empty where not known.
        reference: the baseline, as what the prediction is compared with.
        baseline: its name in the manifest.
        rules: the rule set.
        versions: package and version, for each known one.
        created: day on which the run was begun; empty where not known.
        carried: the features whose values are known to be carried forward by their processor.
    """

    model: str
    weights: str
    outcome: str
    mode: str
    reference: str
    baseline: str
    rules: str
    versions: tuple[tuple[str, str], ...]
    created: str
    carried: frozenset[str] = frozenset()


def described(folder: CohortFolder) -> Run:
    """The run that wrote a folder, as far as its manifest says."""
    identity = folder.manifest.identity
    dataset = _of(identity, "dataset")
    schema = dataset.get("output_schema")
    labels = [(str(key), str(mode)) for key, mode in schema.items()] if isinstance(schema, Mapping) else []
    outcome, named = labels[0] if len(labels) == 1 else ("the outcome", "")
    mode = next((each for each in _MODES if each in named.lower()), "")  # processors may be named by their class
    model = _of(identity, "model")
    versions = {name: each for name, each in _of(identity, "versions").items() if isinstance(each, str)}
    return Run(
        model=cut(str(model.get("class") or "the model").rpartition(".")[2]),
        weights=cut(str(model.get("weights") or "")[:_DIGITS]) if model.get("weights") else "",
        outcome=outcome,
        mode=mode,
        reference=reference(folder.baseline),
        baseline=folder.baseline,
        rules=folder.rules,
        versions=tuple(versions.items()),
        created=str(folder.manifest.about.get("created", "")).partition("T")[0],
        carried=frozenset(key for key, name in _of(dataset, "input_schema").items() if name in _FILL_FORWARD),
    )


def reference(name: str) -> str:
    """A baseline in words: what a prediction is compared with."""
    return _REFERENCES.get(name.partition(" ")[0] if name.count(" ") <= 1 else name, f"the baseline “{cut(name)}”")


def _of(identity: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = identity.get(key)
    return found if isinstance(found, Mapping) else {}
