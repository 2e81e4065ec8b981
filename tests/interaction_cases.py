"""Small patients and models whose codes act together, for `DeepLift.interactions`."""

import torch
from pyhealth import models
from pyhealth.datasets import create_sample_dataset
from pyhealth.datasets.utils import collate_fn_dict_with_padding

MANY_CODES = [
    ["a", "b", "c", "a", "d"],
    ["e", "f"],
    ["b", "g", "b", "b", "h", "a", "c", "i"],
    ["c"],
]


def samples_of(kind, patients):
    """Samples with one feature `codes`; nested ones hold a patient's first code in a visit of its own."""
    made = {
        "sequence": lambda codes: codes,
        "nested_sequence": lambda codes: [codes[:1], codes[1:]] if len(codes) > 1 else [codes],
        "stagenet": lambda codes: ([float(i) for i in range(len(codes))], codes),
    }[kind]
    samples = [{"patient_id": f"p{i}", "codes": made(codes), "label": i % 2} for i, codes in enumerate(patients)]
    return create_sample_dataset(samples, {"codes": kind}, {"label": "binary"}, in_memory=True)


def model_of(name, data, padding=0.0):
    """A small model with weights large enough for interactions, and an embedding of padding of this size."""
    kind, options = {
        "StageNet": (models.StageNet, {"embedding_dim": 8, "chunk_size": 6, "conv_size": 4}),
        "Transformer": (models.Transformer, {"embedding_dim": 8, "heads": 2}),
        "MLP": (models.MLP, {"embedding_dim": 8, "hidden_dim": 8}),
        "RNN": (models.RNN, {"embedding_dim": 8, "hidden_dim": 8}),
        "LogisticRegression": (models.LogisticRegression, {"embedding_dim": 8}),
        "RETAIN": (models.RETAIN, {"embedding_dim": 8}),
    }[name]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        made = kind(data, **options).eval()
        for parameter in made.parameters():
            parameter.mul_(2)
        if padding:
            made.embedding_model.embedding_layers["codes"].weight[0] = padding
    return made


def whole(data):
    return collate_fn_dict_with_padding([data[i] for i in range(len(data))])


def close(a, b, tolerance=1e-8):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def value_of(given):
    return given["codes"][1] if isinstance(given["codes"], tuple) else given["codes"]


def positions_of(player, like, sample):
    mask = torch.zeros_like(like, dtype=torch.bool)
    for position in player.positions:
        mask[(sample, *position)] = True
    return mask
