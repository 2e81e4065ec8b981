"""The planted hospital with pairs of codes that act together, and the models trained on it."""

import contextlib
import itertools
import math
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from faithfulness_hospital import BATCH, KEY, LEARNING_RATE, MODELS, Batch, Hospital, collate
from faithfulness_hospital import patients as without_pairs
from pyhealth.datasets import create_sample_dataset
from torch.utils.data import DataLoader

TRAIN, HELD_OUT = 12000, 200
PAIRS = 3
WEIGHT = 6.0  # a pair in the record adds it to the score; one of its codes alone adds nothing
OFTEN = 0.5  # the probability of each of the codes a0 … a2 and b0 … b2


def patients(seed: int, count: int, weight: float = WEIGHT) -> list[Batch]:
    """The patients of the faithfulness study, with codes of pairs in random visits and a new label."""
    draw = random.Random(f"pairs {seed}")
    return [_with_pairs(patient, draw, weight) for patient in without_pairs(seed, count)]


def _with_pairs(patient: Batch, draw: random.Random, weight: float) -> Batch:
    visits = [list(visit) for visit in patient[KEY]]
    codes = [f"{kind}{pair}" for pair in range(PAIRS) for kind in "ab" if draw.random() < OFTEN]
    for code in codes:
        draw.choice(visits).append(code)
    for visit in visits:
        draw.shuffle(visit)
    expected = PAIRS * OFTEN**2
    score = weight * (sum(is_pair(*both) for both in itertools.pairwise(codes)) - expected)
    every = [code for visit in visits for code in visit]
    score += sum({"r": 1.5, "s": -1.5}.get(code[0], 0.0) for code in every)
    return {**patient, KEY: visits, "label": int(draw.random() < 1 / (1 + math.exp(-score)))}


def is_pair(first: str | None, second: str | None) -> bool:
    """Whether two codes are a planted pair, such as a2 and b2."""
    if first is None or second is None or first[1:] != second[1:]:
        return False
    return {first[0], second[0]} == {"a", "b"}


def hospital(seed: int, weight: float = WEIGHT, train: int = TRAIN) -> Hospital:
    """12,000 patients to train on and 200 held out, as visits."""
    rows = patients(seed, train + HELD_OUT, weight)
    with contextlib.redirect_stdout(None):
        dataset = create_sample_dataset(rows, {KEY: "nested_sequence"}, {"label": "binary"}, in_memory=True)
    samples = [dataset[row] for row in range(len(rows))]
    return Hospital(dataset, samples[:train], samples[train:])


def trained(name: str, data: Hospital, seed: int, enough: Callable[[Any, int], bool]) -> Any:
    """A model as in the faithfulness study, trained until `enough(model, epochs)`, in eval mode."""
    torch.manual_seed(seed)
    model = MODELS[name].make(data.dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    epochs = 0
    while True:
        model.train()
        _epoch(model, optimizer, data.train)
        epochs += 1
        if enough(model.eval(), epochs):
            return model


def _epoch(model: Any, optimizer: torch.optim.Optimizer, samples: Sequence[Batch]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # StageNet warns in every pass about missing times
        for batch in DataLoader(samples, BATCH, shuffle=True, collate_fn=collate):  # type: ignore[arg-type]
            optimizer.zero_grad()
            model(**batch)["loss"].backward()
            optimizer.step()
