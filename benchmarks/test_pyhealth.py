"""Attribution of one batch per PyHealth model: ours, PyHealth's DeepLift, and the model's own forward pass."""

import warnings

import pytest
import torch
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from pyhealth.models import MLP, StageAttentionNet, StageNet, Transformer

from deeplift_fast import ConvergenceWarning, DeepLift

STAGENET = {"codes": "stagenet", "labs": "stagenet_tensor"}
SEQUENCE = {"conditions": "sequence", "procedures": "sequence"}
CASES = {
    "StageNet": (StageNet, {"embedding_dim": 128, "chunk_size": 128, "levels": 3}, STAGENET, 128),
    "StageAttentionNet": (StageAttentionNet, {"embedding_dim": 128, "chunk_size": 128, "levels": 3}, STAGENET, 128),
    "Transformer, 1 layer": (Transformer, {"embedding_dim": 128, "num_layers": 1}, SEQUENCE, 128),
    "Transformer, 2 layers": (Transformer, {"embedding_dim": 128, "num_layers": 2}, SEQUENCE, 128),
    "Transformer, 1 layer, StageNet data": (Transformer, {"embedding_dim": 128, "num_layers": 1}, STAGENET, 128),
    "MLP": (MLP, {"embedding_dim": 128, "hidden_dim": 128, "n_layers": 2}, SEQUENCE, 256),
}


@pytest.mark.parametrize("case", CASES)
def test_attribute(in_turn, stagenet_samples, sequence_samples, case):
    kind, sizes, schema, batch_size = CASES[case]
    samples = stagenet_samples if schema is STAGENET else sequence_samples
    dataset = create_sample_dataset(samples, schema, {"label": "binary"}, dataset_name="bench")
    batch = next(iter(get_dataloader(dataset, batch_size=batch_size, shuffle=False)))
    torch.manual_seed(0)
    model = kind(dataset, **sizes).eval()
    rescale, pyhealth = DeepLift(model), DeepLift(model, rules="pyhealth")
    theirs = PyHealthDeepLift(model)

    def forward():
        with torch.no_grad():
            return model(**batch)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        in_turn(
            {
                "deeplift_fast": lambda: rescale.attribute(**batch),
                'deeplift_fast, rules="pyhealth"': lambda: pyhealth.attribute(**batch),
                "PyHealth": lambda: theirs.attribute(**batch),
                "forward pass": forward,
            },
            rounds=3 if kind is Transformer and schema is STAGENET else 2 if schema is STAGENET else 7,
        )
