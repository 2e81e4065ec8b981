"""Batches and samples as nobody should give them: mutations of sound ones, each drawn at random.

A mutation either leaves what is meant as it is, so that the numbers must be those of the sound batch, or spoils it, so
that an error or a failure must say so.
"""

import numpy as np
import pandas as pd
import torch

IDENTIFIERS = ("patient_id", "visit_id")


def _one(value, draw, number):
    """A tensor with another number somewhere in one sample's first entry."""
    value = value.clone()
    value[(draw.randrange(len(value)), *[0] * (value.dim() - 1))] = number
    return value


def _rows(value, draw, rows):
    return value[torch.as_tensor(rows(len(value), draw))]


ENTRIES = {
    "left out": None,
    "None": lambda x, draw: None,
    "a text": lambda x, draw: "1234567"[: draw.randint(1, 7)],
    "bytes": lambda x, draw: b"1234567"[: draw.randint(1, 7)],
    "an int": lambda x, draw: draw.randint(-1, 7),
    "a float": lambda x, draw: draw.random(),
    "NaN": lambda x, draw: float("nan"),
    "a set": lambda x, draw: {1, 2, 3},
    "a dict": lambda x, draw: {},
    "a function": lambda x, draw: len,
    "an empty list": lambda x, draw: [],
    "too short": lambda x, draw: x[: draw.randrange(len(x))],
    "too long": lambda x, draw: [*x, x[0]] if isinstance(x, list) else torch.cat([x, x[:1]]),
    "a list of None": lambda x, draw: [None] * len(x),
    "a list of texts": lambda x, draw: ["x"] * len(x),
    "a tuple": lambda x, draw: tuple(x),
    "an iterator": lambda x, draw: iter(x),
    "an array": lambda x, draw: np.asarray(x),
    "an array of objects": lambda x, draw: np.array([str(each) for each in x], object),
    "a series": lambda x, draw: pd.Series([str(each) for each in x]),
    "a single entry": lambda x, draw: x[0] if isinstance(x, list) or x.dim() < 2 else x[0][: len(x) - 1],
}
"""What any entry of a batch may be instead."""

TENSORS = {
    "NaN": lambda x, draw: _one(x.float(), draw, float("nan")),
    "inf": lambda x, draw: _one(x.float(), draw, draw.choice([float("inf"), float("-inf")])),
    "bfloat16": lambda x, draw: x.to(torch.bfloat16),
    "float8": lambda x, draw: x.to(torch.float8_e4m3fn),
    "float64": lambda x, draw: x.double(),
    "complex64": lambda x, draw: x.to(torch.complex64),
    "conjugated": lambda x, draw: torch.conj(x.to(torch.complex64)),
    "quint8": lambda x, draw: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8),
    "sparse": lambda x, draw: x.to_sparse(),
    "sparse_csr": lambda x, draw: x.reshape(len(x), -1).to_sparse_csr(),
    "nested": lambda x, draw: torch.nested.nested_tensor(list(x.reshape(len(x), -1).float())),
    "meta": lambda x, draw: x.to("meta"),
    "not contiguous": lambda x, draw: x.repeat_interleave(2, 0)[::2],
    "expanded": lambda x, draw: x[:1].expand_as(x) if len(x) == 1 else x.clone().as_strided(x.shape, x.stride()),
    "a scalar": lambda x, draw: x.flatten()[0],
    "one dimension more": lambda x, draw: x.unsqueeze(draw.choice([0, -1])),
    "flat": lambda x, draw: x.flatten(),
    "no samples": lambda x, draw: x[:0],
    "no steps": lambda x, draw: x[:, :0] if x.dim() > 1 else x[:0],
    "a list of tensors": lambda x, draw: list(x),
    "nested lists": lambda x, draw: x.tolist(),
}
"""What a tensor may be instead."""

TOKENS = {
    "beyond the vocabulary": lambda x, draw: _one(x, draw, draw.choice([10_000, 2**31, 2**62])),
    "below 0": lambda x, draw: _one(x, draw, -draw.choice([1, 2, 2**40])),
    "more padding": lambda x, draw: torch.cat([x, torch.zeros_like(x[:, :2])], 1) if x.dim() > 1 else x,
    "int32": lambda x, draw: x.int(),
    "uint8": lambda x, draw: x.to(torch.uint8),
    "float32": lambda x, draw: x.float(),
}
"""What token indices may be instead."""


OTHER_SAMPLES = {"too short", "too long", "a tuple", "a single entry", "a scalar", "one dimension more"}
"""What makes of a sample's sequence of codes another sound one: fewer, more, one code, a pair, or visits of codes."""

OTHER_NAMES = {"a list of texts"}
"""What makes other identifiers of identifiers."""


def mutation(draw, name, value, but):
    """What stands in place of an entry, `(what, value)`; the value is not given where the entry is left out.

    Args:
        draw: a `random.Random`.
        name: of the entry.
        value: what it is in the sound batch, a list or a tensor.
        but: what it must not become.
    """
    kinds = [ENTRIES]
    if isinstance(value, torch.Tensor):
        kinds += [TENSORS, TENSORS]
        if not value.is_floating_point():
            kinds += [TOKENS]
    kind = draw.choice(kinds)
    what = draw.choice(sorted(kind.keys() - but))
    return f"{name!r} is {what}", [] if kind[what] is None else [kind[what](value, draw)]


def spoil(draw, batch, names, but=frozenset()):
    """A copy of a batch or a sample with one of the entries mutated, what was done, and the entry."""
    name = draw.choice(names)
    what, value = mutation(draw, name, batch[name], but | (OTHER_NAMES if name in IDENTIFIERS else set()))
    spoiled = {key: each for key, each in batch.items() if key != name} | ({name: value[0]} if value else {})
    return spoiled, what, name
