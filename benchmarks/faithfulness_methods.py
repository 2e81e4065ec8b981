"""The attribution methods that the faithfulness study compares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from faithfulness_hospital import KEY, Batch, Hospital
from faithfulness_reference import Game
from pyhealth.interpret.api import CheferInterpretable
from pyhealth.interpret.methods import GIM, CheferRelevance, IntegratedGradients
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from torch import Tensor

from deeplift_fast import DeepLift, baselines

STEPS = 50
DEFAULT = "complete, removed"


@dataclass(frozen=True)
class Subject:
    """A trained model and its patients.

    Attributes:
        model: PyHealth's model.
        entered: a model with the same weights and `forward_from_embedding`.
        data: its patients.
        seed: seed of all draws.
    """

    model: Any
    entered: Any
    data: Hospital
    seed: int


Contribute = Callable[[Batch], Tensor]  # from a batch to one contribution per code
Method = Callable[[Subject], Contribute | None]  # `None` if the method does not accept the model


def _pyhealth(make: Callable[[Any], Any]) -> Method:
    return lambda subject: _attributed(make(subject.entered))


def _chefer(subject: Subject) -> Contribute | None:
    taken = isinstance(subject.entered, CheferInterpretable)
    return _attributed(CheferRelevance(subject.entered)) if taken else None


def _ours(rules: str, baseline: Callable[[Subject], Any], **options: Any) -> Method:
    return lambda subject: _attributed(DeepLift(subject.model, rules=rules, baseline=baseline(subject), **options))


def _mean(subject: Subject) -> Any:
    return baselines.mean(subject.data.train, subject.model)


def _attributed(interpreter: Any) -> Contribute:
    return lambda batch: interpreter.attribute(**batch)[KEY].detach()


def _gradient_times_input(subject: Subject) -> Contribute:
    def contribute(batch: Batch) -> Tensor:
        embedded = _embedded(subject, batch[KEY])
        return (embedded * _gradient(subject, batch, embedded)).sum(-1)

    return contribute


def _expected_gradients(subject: Subject) -> Contribute:
    """Mean over 50 random points on lines from random baselines to the input.

    For each point, the baseline of each code is drawn from all codes of the training patients. Erion et al. 2021,
    "Improving performance of deep learning models with axiomatic attribution priors and expected gradients".
    """
    pool = training_tokens(subject.data)

    def contribute(batch: Batch) -> Tensor:
        draw = torch.Generator().manual_seed(subject.seed)
        tokens = batch[KEY]
        embedded, real = _embedded(subject, tokens), tokens != 0
        total = torch.zeros(tokens.shape)
        for _ in range(STEPS):
            drawn = pool[torch.randint(len(pool), tokens.shape, generator=draw)] * real
            place = torch.rand(len(tokens), *[1] * tokens.dim(), generator=draw)
            difference = embedded - _embedded(subject, drawn)
            total += (difference * _gradient(subject, batch, embedded - (1 - place) * difference)).sum(-1)
        return total / STEPS

    return contribute


def _occlusion(subject: Subject) -> Contribute:
    """The drop of a patient's logit when one code is deleted, with one pass per code."""

    def contribute(batch: Batch) -> Tensor:
        found = torch.zeros(batch[KEY].shape)
        for row, codes in enumerate(batch[KEY]):
            found[row][codes != 0] = occluded(Game(subject.entered, codes)).float()
        return found

    return contribute


def occluded(game: Game) -> Tensor:
    """The drop of the game's value when each player leaves, float64 `[players]`."""
    everyone = torch.ones(1, game.players, dtype=torch.bool)
    values = game.values(torch.cat([everyone, ~torch.eye(game.players, dtype=torch.bool)]))
    return values[0] - values[1:]


def training_tokens(data: Hospital) -> Tensor:
    """All codes of the training patients, with repetitions."""
    return torch.cat([sample[KEY][sample[KEY] != 0] for sample in data.train])


def _embedded(subject: Subject, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return subject.entered.get_embedding_model()({KEY: tokens})[KEY]


def _gradient(subject: Subject, batch: Batch, embedded: Tensor) -> Tensor:
    """Gradient of the logits with respect to the embedded codes, at a point, with the masks of the batch."""
    point = embedded.detach().requires_grad_()
    logits = subject.entered.forward_from_embedding(**{KEY: (point, (batch[KEY] != 0).int())})["logit"]
    return torch.autograd.grad(logits.sum(), point)[0]


OTHERS: dict[str, Method] = {
    "PyHealth's DeepLift": _pyhealth(PyHealthDeepLift),
    "PyHealth's integrated gradients, 50 steps": _pyhealth(lambda model: IntegratedGradients(model, steps=STEPS)),
    "PyHealth's Chefer relevance": _chefer,
    "PyHealth's GIM": _pyhealth(GIM),
    "gradient × input": _gradient_times_input,
    "occlusion": _occlusion,
    "expected gradients, 50 draws": _expected_gradients,
}
OURS: dict[str, Method] = {
    "rescale": _ours("rescale", lambda subject: "unk"),
    "complete, unk": _ours("complete", lambda subject: "unk"),
    DEFAULT: _ours("complete", lambda subject: None),
    "complete, mean": _ours("complete", _mean),
    "complete, removed and mean": _ours("complete", lambda subject: ["removed", _mean(subject)]),
    "complete, removed, 4 steps": _ours("complete", lambda subject: "removed", steps=4),
}
METHODS = OTHERS | OURS
