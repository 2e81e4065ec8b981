"""Small PyHealth data sets and models for fused layers against the generic route."""

import random
import warnings

import torch
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer

from deeplift_fast import ConvergenceWarning, DeepLift, FusionWarning

STAGENET = {"codes": "stagenet", "labs": "stagenet_tensor"}
THREE = {"vitals": "stagenet_tensor", **STAGENET}
SEQUENCE = {"a": "sequence", "b": "sequence"}
NESTED = {"visits": "nested_sequence", "a": "sequence"}


def patients(count=6, longest=14, seed=1):
    """Patients with every kind of feature; the first has the shortest sequences and the second the longest."""
    draw = random.Random(seed)
    found = []
    for i in range(count):
        visits, steps = (1, 1) if i == 0 else (4, longest) if i == 1 else (draw.randint(1, 4), draw.randint(1, longest))
        nested = [[f"c{draw.randint(0, 30)}" for _ in range(draw.randint(1, 5))] for _ in range(visits)]
        labs = [[draw.gauss(0, 1) for _ in range(3)] for _ in range(steps)]
        found.append(
            {
                "patient_id": f"p{i}",
                "codes": ([24.0 * k for k in range(visits)], nested),
                "labs": ([k * draw.choice([1.0, 1.0, 2.0]) for k in range(steps)], labs),
                "visits": nested,
                "a": [f"c{draw.randint(0, 30)}" for _ in range(draw.randint(1, 9))],
                "b": [f"c{draw.randint(0, 9)}" for _ in range(draw.randint(1, 5))],
                "row": [draw.gauss(0, 1) for _ in range(4)],
                "label": i % 3,
            }
        )  # fmt: skip
    return found


def with_vitals(samples, longest):
    """Patients with one more feature, of up to so many steps; the third patient has so many."""
    draw = random.Random(3)
    for i, each in enumerate(samples):
        steps = longest if i == 2 else draw.randint(1, longest)
        values = [[draw.gauss(0, 1) for _ in range(5)] for _ in range(steps)]
        each["vitals"] = ([0.5 * k for k in range(steps)], values)
    return samples


def dataset(schema, samples=None, label="multiclass"):
    samples = [{key: each[key] for key in ("patient_id", *schema, "label")} for each in samples or patients()]
    return create_sample_dataset(samples, schema, {"label": label}, dataset_name="fused", in_memory=True)


def batch_of(data, dtype=torch.float64):
    batch = next(iter(get_dataloader(data, batch_size=len(data), shuffle=False)))
    return {key: _converted(value, dtype) for key, value in batch.items()}


def _converted(value, dtype):
    if isinstance(value, tuple | list):
        return tuple(_converted(part, dtype) for part in value)
    return value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value


def chosen(batch, some):
    """Some samples of a batch, by a slice."""
    return {key: tuple(part[some] for part in value) if isinstance(value, tuple) else value[some]
            for key, value in batch.items()}  # fmt: skip


def make(kind, data, dtype=torch.float64, scale=1.5, **sizes):
    torch.manual_seed(0)
    model = kind(data, **sizes).eval().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def both_routes(model, batch, rules, **options):
    """What the fused and the generic route find; the first must be fused."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FusionWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="pyhealth")
        fused = DeepLift(model, rules=rules).explain(**options, **batch)
        generic = DeepLift(model, rules=rules, fuse=False).explain(**options, **batch)
    assert {row.rule for row in fused.report if row.operation != "(elsewhere)"} == {"fused"}
    return fused, generic


def distance(found, expected):
    """The largest relative L2 distance of a sample's contributions."""
    return float(distances(found, expected).max())


def distances(found, expected):
    """The relative L2 distance of each sample's contributions."""
    rows = [torch.cat([c.flatten(1) for c in each.contributions.values()], 1).double() for each in (found, expected)]
    assert list(found.contributions) == list(expected.contributions)
    return (rows[0] - rows[1]).norm(dim=1) / rows[1].norm(dim=1).clamp(min=1e-30)


MODELS = {
    "StageNet": (StageNet, STAGENET, {"embedding_dim": 8, "chunk_size": 6, "levels": 3}),
    "StageNet, 1 level": (StageNet, STAGENET, {"embedding_dim": 5, "chunk_size": 16, "levels": 1}),
    "StageNet, 3 units": (StageNet, STAGENET, {"embedding_dim": 3, "chunk_size": 3, "levels": 1, "conv_size": 1}),
    "StageNet, 5 levels, short window": (
        StageNet, STAGENET, {"embedding_dim": 8, "chunk_size": 7, "levels": 5, "conv_size": 3, "dropres": 0.0},
    ),
    "StageNet, no dropout": (
        StageNet, STAGENET,
        {"embedding_dim": 8, "chunk_size": 6, "levels": 2, "dropout": 0.0, "dropconnect": 0.0, "dropres": 0.0},
    ),
    "StageAttentionNet": (StageAttentionNet, STAGENET, {"embedding_dim": 8, "chunk_size": 8, "levels": 3}),
    "StageAttentionNet, 4 levels": (
        StageAttentionNet, STAGENET, {"embedding_dim": 8, "chunk_size": 3, "levels": 4, "num_heads": 3, "conv_size": 4},
    ),
    "Transformer": (Transformer, SEQUENCE, {"embedding_dim": 8}),
    "Transformer, 2 layers": (Transformer, SEQUENCE, {"embedding_dim": 8, "num_layers": 2, "heads": 2}),
    "Transformer, 3 layers, StageNet data": (Transformer, STAGENET, {"embedding_dim": 8, "num_layers": 3}),
    "Transformer, one row": (Transformer, {"a": "sequence", "row": "tensor"}, {"embedding_dim": 8, "num_layers": 2}),
    "MLP": (MLP, SEQUENCE, {"embedding_dim": 8, "hidden_dim": 6, "n_layers": 3}),
    "MLP, elu": (MLP, SEQUENCE, {"embedding_dim": 8, "hidden_dim": 6, "activation": "elu"}),
    "MLP, one layer": (MLP, {"a": "sequence", "row": "tensor"}, {"embedding_dim": 8, "hidden_dim": 6, "n_layers": 1}),
    "MLP, nested": (MLP, NESTED, {"embedding_dim": 8, "hidden_dim": 6}),
    "RNN, GRU": (RNN, SEQUENCE, {"embedding_dim": 8, "hidden_dim": 6}),
    "RNN, GRU, both directions": (
        RNN, STAGENET, {"embedding_dim": 8, "hidden_dim": 20, "num_layers": 2, "bidirectional": True},
    ),
    "RNN, LSTM": (
        RNN, NESTED, {"embedding_dim": 8, "hidden_dim": 6, "rnn_type": "LSTM", "num_layers": 2, "bidirectional": True},
    ),
    "RNN, tanh": (RNN, {"a": "sequence", "row": "tensor"}, {"embedding_dim": 8, "hidden_dim": 6, "rnn_type": "RNN"}),
}  # fmt: skip
