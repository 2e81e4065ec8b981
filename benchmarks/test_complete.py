"""Times a batch under `"complete"`, in 1 and 4 steps, against `"rescale"` and integrated gradients.

Goal: `"complete"` at most 2.5 times `"rescale"` for Transformer and StageNet.
"""

import warnings

import pytest
import torch
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.interpret.methods import IntegratedGradients
from pyhealth.models import MLP, RNN, StageNet, Transformer

from deeplift_fast import ConvergenceWarning, DeepLift

STAGENET = {"codes": "stagenet", "labs": "stagenet_tensor"}
SEQUENCE = {"conditions": "sequence", "procedures": "sequence"}
CASES = {
    "StageNet, 32 patients": (StageNet, {"embedding_dim": 128, "chunk_size": 128, "levels": 3}, STAGENET, 32),
    "Transformer, 1 layer": (Transformer, {"embedding_dim": 128, "num_layers": 1}, SEQUENCE, 128),
    "Transformer, 2 layers": (Transformer, {"embedding_dim": 128, "num_layers": 2}, SEQUENCE, 128),
    "MLP": (MLP, {"embedding_dim": 128, "hidden_dim": 128, "n_layers": 2}, SEQUENCE, 256),
    "RNN, GRU": (RNN, {"embedding_dim": 128, "hidden_dim": 128}, SEQUENCE, 128),
}


@pytest.mark.parametrize("case", CASES)
def test_complete(in_turn, stagenet_samples, sequence_samples, case):
    kind, sizes, schema, batch_size = CASES[case]
    samples = stagenet_samples if schema is STAGENET else sequence_samples
    dataset = create_sample_dataset(samples, schema, {"label": "binary"}, dataset_name="bench")
    batch = next(iter(get_dataloader(dataset, batch_size=batch_size, shuffle=False)))
    torch.manual_seed(0)
    model = kind(dataset, **sizes).eval()
    complete, rescale = DeepLift(model, rules="complete"), DeepLift(model, baseline="unk")
    calls = {
        "complete": lambda: complete.attribute(**batch),
        "rescale": lambda: rescale.attribute(**batch),
        "complete, 4 steps": lambda: complete.attribute(steps=4, **batch),
    }
    if kind is Transformer or kind is MLP:
        integrated = IntegratedGradients(model, steps=50)
        calls["PyHealth's integrated gradients, 50 steps"] = lambda: integrated.attribute(**batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        in_turn(calls, rounds=2 if kind is StageNet else 5)
