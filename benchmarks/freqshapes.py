"""FreqShapes: a study of attributions on time series with a known ground truth.

Queen et al. 2023, "Encoding Time-Series Explanations through Self-Supervised Model Behavior Consistency" (TimeX), whose
table is `PUBLISHED`. The class of a series depends on its spikes alone: their direction (down or up) and their period
(10 or 17 steps). The steps of the spikes are the ground truth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from captum.attr import IntegratedGradients
from sklearn.metrics import auc, average_precision_score, f1_score, precision_recall_curve
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deeplift_fast import attribute

STEPS, NOISE = 50, 0.25
DOWN = 0.25 * np.arange(-1, 2) ** 2 - 2
CLASSES = ((1, 10), (-1, 10), (1, 17), (-1, 17))  # factor of `DOWN`, and period
TRAIN, TEST, SPLITS = 5000, 1000, 5
EPOCHS, BATCH = 15, 64
INTEGRATED = 50  # steps of integrated gradients
MEASURES = ("auprc", "aup", "aur")

PUBLISHED = {
    "TimeX": (0.832, 0.722, 0.638),
    "integrated gradients": (0.752, 0.691, 0.598),
    "CoRTX": (0.698, 0.494, 0.326),
    "SGT + gradient": (0.531, 0.414, 0.393),
    "WinIT": (0.507, 0.555, 0.456),
    "Dynamask": (0.220, 0.295, 0.504),
}


@dataclass(frozen=True)
class Series:
    """A set of series.

    Attributes:
        values: float32 `[series, steps, 1]`.
        classes: int64 `[series]`.
        spikes: bool `[series, steps]`, the ground truth.
    """

    values: Tensor
    classes: Tensor
    spikes: np.ndarray


def drawn(count: int, draw: np.random.Generator) -> Series:
    """Random series; all classes are equally likely."""
    classes = draw.integers(len(CLASSES), size=count)
    values, spikes = draw.normal(scale=NOISE, size=(count, STEPS)), np.zeros((count, STEPS), bool)
    for row, (direction, period) in enumerate(CLASSES[each] for each in classes):
        for centre in range(int(draw.integers(STEPS - period)), STEPS, period):
            if 1 <= centre < STEPS - 1:  # the spike fits into the series
                values[row, centre - 1 : centre + 2] += direction * DOWN
                spikes[row, centre - 1 : centre + 2] = True
    return Series(torch.from_numpy(values).float()[..., None], torch.from_numpy(classes), spikes)


class Classifier(nn.Module):
    """A Transformer encoder of one layer, with 16 sines and cosines of the time beside the value.

    Args:
        width: number of sines and cosines; their periods grow from 2π steps to 2π times the length of the series.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        turns = torch.arange(1, STEPS + 1)[:, None] / STEPS ** torch.linspace(0, 1, width // 2)
        self.register_buffer("times", torch.cat([turns.sin(), turns.cos()], dim=1))
        self.encoder = nn.TransformerEncoderLayer(width + 1, 1, dim_feedforward=16, dropout=0.1, batch_first=True)
        self.head = nn.Sequential(nn.Linear(width + 1, width + 1), nn.ReLU(), nn.Linear(width + 1, len(CLASSES)))

    def forward(self, values: Tensor) -> Tensor:
        """From `[series, steps, 1]` to logits `[series, 4]`."""
        states = self.encoder(torch.cat([self.times.expand(len(values), -1, -1), values], dim=-1))
        return self.head(states.mean(1))


def trained(data: Series, seed: int, epochs: int) -> Classifier:
    """A classifier trained with AdamW on cross-entropy + (1 − p of the true class), in eval mode."""
    torch.manual_seed(seed)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.values)).split(BATCH):
            logits, classes = model(data.values[rows]), data.classes[rows]
            right = logits.softmax(-1).gather(1, classes[:, None])
            loss = cross_entropy(logits, classes) + (1 - right).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


Contribute = Callable[[nn.Module, Tensor, Tensor], Tensor]  # from (model, values, classes) to contributions


@dataclass(frozen=True)
class Method:
    """A method that finds contributions to the logit of the true class, with zeros as baseline.

    Attributes:
        contribute: finds the contributions, of the shape of the values.
        forwards, backwards: passes of each series through the model, by direction.
    """

    contribute: Contribute
    forwards: int
    backwards: int


def _integrated(model: nn.Module, values: Tensor, classes: Tensor) -> Tensor:
    found = IntegratedGradients(model).attribute(
        values, baselines=0.0, target=classes, n_steps=INTEGRATED, internal_batch_size=5000
    )
    return found.detach()


def _complete(model: nn.Module, values: Tensor, classes: Tensor, steps: int) -> Tensor:
    return attribute(model, values, 0.0, classes, rules="complete", steps=steps).contributions.detach()


METHODS = {
    f"integrated gradients, {INTEGRATED} steps": Method(_integrated, INTEGRATED, INTEGRATED),
    "complete, zeros, 1 step": Method(partial(_complete, steps=1), 2, 1),
    "complete, zeros, 2 steps": Method(partial(_complete, steps=2), 3, 2),
}


def run(split: int, train: int = TRAIN, test: int = TEST, epochs: int = EPOCHS) -> dict:
    """Measures one split: `f1` of the model (macro), and by `methods` the areas and passes."""
    draw = np.random.default_rng(split)
    model = trained(drawn(train, draw), split, epochs)
    data = drawn(test, draw)
    with torch.no_grad():
        found = model(data.values).argmax(-1)
    return {
        "f1": float(f1_score(data.classes, found, average="macro")),
        "methods": {
            name: {
                **areas(method.contribute(model, data.values, data.classes)[..., 0].double().numpy(), data.spikes),
                "forwards": method.forwards,
                "backwards": method.backwards,
            }
            for name, method in METHODS.items()
        },
    }


def areas(contributions: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Means over samples of AUPRC, AUP and AUR.

    AUPRC is the average precision. AUP and AUR are the areas under precision and under recall as functions of the
    threshold. The contributions of each sample are first scaled to the range from 0 to 1.

    Args:
        contributions: `[samples, steps]`.
        truth: bool `[samples, steps]`, the ground truth.
    """
    found = [_areas(*pair) for pair in zip(contributions, truth, strict=True)]
    return dict(zip(MEASURES, map(float, np.mean(found, axis=0)), strict=True))


def _areas(contributions: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    spread = np.ptp(contributions)
    if spread == 0:
        return truth.mean(), 0.0, 0.0  # one threshold spans no area
    scores = (contributions - contributions.min()) / spread
    auprc = average_precision_score(truth, scores)
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    return auprc, auc(thresholds, precision[:-1]), auc(thresholds, recall[:-1])
