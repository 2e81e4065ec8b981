"""Trains, explains and measures one model with one seed of the faithfulness study."""

import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import faithfulness_measures as measures
import numpy as np
import torch
from faithfulness_hospital import KEY, MODELS, PROTECTIVE, RISK, Batch, collate, held_out_auroc, hospital, trained
from faithfulness_hospital import interpretable as entered
from faithfulness_methods import METHODS, Contribute, Subject
from faithfulness_reference import Game, antithetic, shapley
from pyhealth.metrics.interpretability import Evaluator
from torch import Tensor

EPOCHS = 8
PATIENTS = 24  # patients with a reference
PERCENTAGES = (5, 10, 20)
DRAWS = 4
LEAST_SECONDS, MOST_ROUNDS = 0.5, 5  # timing of a method stops at either

Row = dict[str, float]


@dataclass(frozen=True)
class Reference:
    """The patients with a reference.

    Attributes:
        batch: the patients.
        shapley: estimated Shapley values of each patient, `[players]`.
        removals: removed sets of each patient.
        split_half: Spearman's correlation of the estimates from the first and the second half of the permutations.
    """

    batch: Batch
    shapley: list[np.ndarray]
    removals: list[measures.Removals]
    split_half: float

    def per_patient(self, contributions: Tensor) -> list[np.ndarray]:
        """The contributions of each patient's real codes, float64 `[players]`, from those of the batch."""
        rows = zip(contributions, self.batch[KEY], strict=False)
        return [row[codes != 0].double().numpy() for row, codes in rows]


def run(name: str, seed: int, patients: int = PATIENTS, permutations: int | None = None, epochs: int = EPOCHS) -> dict:
    """Measures one model and seed; the result does not depend on other models and seeds.

    Args:
        name: a key of `MODELS`.
        seed: seed of the patients, the model and all draws.
        patients: number of held-out patients with a reference.
        permutations: number of permutations per reference; `None` for the model's own.
        epochs: epochs of training.

    Returns:
        `auroc` of the model, `split_half` of the reference, `forward_seconds` per patient, and `methods`: a row of
        measures by method, `None` for a method that does not accept the model.
    """
    kind = MODELS[name]
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):  # PyHealth's Evaluator prints results
        warnings.simplefilter("ignore")  # StageNet warns in every pass about missing times
        data = hospital(seed, kind.flat)
        model = trained(kind, data, seed, epochs)
        subject = Subject(model, entered(model), data, seed)
        reference = _reference(subject, patients, permutations or kind.permutations)
        forward, _ = _timed(_forward(model), data.held_out_batches())
        rows = {method: _row(make(subject), subject, reference, forward) for method, make in METHODS.items()}
        auroc = held_out_auroc(model, data)
    return {"auroc": auroc, "split_half": reference.split_half, "forward_seconds": forward, "methods": rows}


def _reference(subject: Subject, patients: int, permutations: int) -> Reference:
    samples = subject.data.held_out[:patients]
    games = [Game(subject.entered, sample[KEY]) for sample in samples]
    added = [shapley(game, antithetic(game.players, permutations, subject.seed)).numpy() for game in games]
    half = permutations // 4 * 2  # pairs stay together
    halves = [measures.spearman(each[:half].mean(0), each[half:].mean(0)) for each in added]
    return Reference(
        collate(samples),
        [each.mean(0) for each in added],
        [measures.removals(game, subject.seed) for game in games],
        float(np.mean(halves)),
    )


def _row(contribute: Contribute | None, subject: Subject, reference: Reference, forward: float) -> Row | None:
    if contribute is None:
        return None
    batches = subject.data.held_out_batches()
    seconds, found = _timed(contribute, batches)
    draws = [reference.per_patient(contribute(reference.batch)) for _ in redrawn(subject.model, subject.seed)]
    return {
        **_planted(subject, batches, found),
        **_evaluated(subject, batches, found),
        **_against(reference, reference.per_patient(contribute(reference.batch))),
        "flips": measures.flipped(draws),
        "draws": measures.agreement(draws),
        "seconds": seconds,
        "forwards": seconds / forward,
    }


def _planted(subject: Subject, batches: Sequence[Batch], found: Sequence[Tensor]) -> Row:
    """AUROCs of the planted codes, as means over batches."""
    risk, protective = subject.data.indices(RISK), subject.data.indices(PROTECTIVE)
    pairs = [(batch[KEY], each) for batch, each in zip(batches, found, strict=True)]
    return {
        "risk": statistics.mean(measures.planted_auroc(tokens, each, risk) for tokens, each in pairs),
        "protective": statistics.mean(measures.planted_auroc(tokens, -each, protective) for tokens, each in pairs),
    }


def _evaluated(subject: Subject, batches: Sequence[Batch], found: Sequence[Tensor]) -> Row:
    """PyHealth's comprehensiveness and sufficiency, as means over the patients that pass its filter."""
    evaluator = Evaluator(subject.entered, percentages=[*PERCENTAGES])
    scores: dict[str, list[Tensor]] = {}
    for batch, each in zip(batches, found, strict=True):
        for name, (score, valid) in evaluator.evaluate(batch, {KEY: each}).items():
            scores.setdefault(name, []).append(score[valid])
    return {name: float(torch.cat(parts).mean()) for name, parts in scores.items()}


def _against(reference: Reference, found: Sequence[np.ndarray]) -> Row:
    """Measures of agreement with the game of removal."""
    ranked = zip(found, reference.shapley, strict=True)
    removed = zip(found, reference.removals, strict=True)
    return {
        "spearman": statistics.mean(measures.spearman(*pair) for pair in ranked),
        "sensitivity": statistics.mean(measures.sensitivity_n(*pair) for pair in removed),
        "infidelity": measures.infidelity(found, reference.removals),
    }


def redrawn(model: Any, seed: int) -> Iterator[int]:
    """Draws the unknown code's embedding row again `DRAWS` times, then restores it."""
    weight = model.embedding_model.embedding_layers[KEY].weight
    draw = torch.Generator().manual_seed(seed)
    own = weight[1].detach().clone()
    try:
        for number in range(DRAWS):
            with torch.no_grad():
                weight[1] = torch.randn(own.shape, generator=draw)  # as `torch.nn.Embedding` draws it
            yield number
    finally:
        with torch.no_grad():
            weight[1] = own


def _forward(model: Any) -> Callable[[Batch], Tensor]:
    def run_model(batch: Batch) -> Tensor:
        with torch.no_grad():
            return model(**batch)["logit"]

    return run_model


def _timed(call: Callable[[Batch], Tensor], batches: Sequence[Batch]) -> tuple[float, list[Tensor]]:
    """Seconds per patient, as the median of several rounds after a first call, and the results of the last round."""
    call(batches[0])
    rounds: list[float] = []
    while not rounds or (len(rounds) < MOST_ROUNDS and sum(rounds) < LEAST_SECONDS):
        start = time.perf_counter()
        found = [call(batch) for batch in batches]
        rounds.append(time.perf_counter() - start)
    return statistics.median(rounds) / sum(len(batch[KEY]) for batch in batches), found
