"""The timed models, their data and their goals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from model_results import FORWARD, PYHEALTH
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer

SCHEMAS = {
    "StageNet": {"codes": "stagenet", "labs": "stagenet_tensor"},
    "sequence": {"conditions": "sequence", "procedures": "sequence"},
    "long sequence": {"conditions": "sequence", "procedures": "sequence"},
}


@dataclass(frozen=True)
class Case:
    """One model on one batch.

    Attributes:
        data: a key of `SCHEMAS`.
        goals: by rule set, the least ratio of PyHealth's time to ours; if `against` is the forward pass, the largest
            ratio of our time to its.
    """

    kind: type
    sizes: Mapping[str, Any]
    data: str
    batch_size: int
    goals: Mapping[str, float]
    against: str = PYHEALTH


def _goals(most: float, complete: float) -> dict[str, float]:
    return {"rescale": most, "pyhealth": most, "complete": complete}


_STAGES = {"embedding_dim": 128, "chunk_size": 128, "levels": 3}
_ONE, _TWO = {"embedding_dim": 128, "num_layers": 1}, {"embedding_dim": 128, "num_layers": 2}
_GRU, _LSTM = ({"embedding_dim": 128, "hidden_dim": 128, "rnn_type": cell} for cell in ("GRU", "LSTM"))
_LAYERS = {"embedding_dim": 128, "hidden_dim": 128, "n_layers": 2}
_OF_FORWARD = {"rescale": 3, "complete": 3.5}

CASES = {
    "StageNet, batch 128": Case(StageNet, _STAGES, "StageNet", 128, _goals(45, 45)),
    "StageNet, batch 32": Case(StageNet, _STAGES, "StageNet", 32, _goals(45, 45)),
    "StageNet, batch 512": Case(StageNet, _STAGES, "StageNet", 512, _goals(45, 45)),
    "StageNet, batch 1": Case(StageNet, _STAGES, "StageNet", 1, _goals(45, 45)),
    "StageAttentionNet, batch 128": Case(StageAttentionNet, _STAGES, "StageNet", 128, _goals(25, 22)),
    "Transformer, 1 layer, batch 128": Case(Transformer, _ONE, "sequence", 128, _goals(15, 10)),
    "Transformer, 2 layers, batch 128": Case(Transformer, _TWO, "sequence", 128, _goals(6, 5)),
    "Transformer, 1 layer, StageNet data, batch 128": Case(Transformer, _ONE, "StageNet", 128, _goals(15, 10)),
    "Transformer, 1 layer, 60 and 30 codes, batch 128": Case(Transformer, _ONE, "long sequence", 128, _goals(17, 17)),
    "MLP, batch 256": Case(MLP, _LAYERS, "sequence", 256, _goals(5, 5)),
    "MLP, 60 and 30 codes, batch 256": Case(MLP, _LAYERS, "long sequence", 256, _goals(5, 5)),
    "MLP, batch 1": Case(MLP, _LAYERS, "sequence", 1, {"rescale": 4, "complete": 4}, FORWARD),
    "RNN (GRU), batch 128": Case(RNN, _GRU, "sequence", 128, _OF_FORWARD, FORWARD),
    "RNN (LSTM), batch 128": Case(RNN, _LSTM, "sequence", 128, _OF_FORWARD, FORWARD),
}
STAGENET = CASES["StageNet, batch 128"]


def make_dataset(samples: Sequence[dict], data: str) -> Any:
    return create_sample_dataset(samples, SCHEMAS[data], {"label": "binary"}, dataset_name="bench")


def first_batch(dataset: Any, batch_size: int) -> dict[str, Any]:
    return next(iter(get_dataloader(dataset, batch_size=batch_size, shuffle=False)))


def make_model(case: Case, dataset: Any) -> Any:
    """A fresh model in eval mode, with the same weights each time."""
    torch.manual_seed(0)
    return case.kind(dataset, **case.sizes).eval()
