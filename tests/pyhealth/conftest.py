"""Small PyHealth data sets and models, and DeepLIFT written once more, in another way, to check numbers against."""

import contextlib
import random
from datetime import datetime, timedelta
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.models import MLP, StageAttentionNet, StageNet, Transformer
from torch import nn

CODES = [f"code-{i}" for i in range(12)]
MONDAY = datetime(2024, 1, 1)
PROCESSORS = {"stagenet_nested": "stagenet", "stagenet_untimed": "stagenet_tensor", "tensor_with_zeros": "tensor"}
MIXED = {
    "StageNet": ("stagenet", "stagenet_nested", "stagenet_tensor"),
    "StageAttentionNet": ("stagenet", "stagenet_nested", "stagenet_tensor"),
    "Transformer": ("sequence", "nested_sequence", "timeseries"),
    "Transformer, 2 layers": ("sequence", "nested_sequence", "timeseries"),
    "MLP": ("sequence", "tensor", "multi_hot"),
}


def _value(kind, draw):
    steps = draw.randint(1, 5)
    times = [0.0, *(draw.random() * 3 for _ in range(steps - 1))]
    codes = [draw.choice(CODES) for _ in range(steps)]
    visits = [[draw.choice(CODES) for _ in range(draw.randint(1, 3))] for _ in range(steps)]
    rows = [[draw.gauss(0, 1) for _ in range(3)] for _ in range(steps)]
    return {
        "sequence": codes,
        "nested_sequence": visits,
        "nested_sequence_floats": rows,
        "stagenet": (times, codes),
        "stagenet_nested": (times, visits),
        "stagenet_tensor": (times, rows),
        "stagenet_untimed": (None, rows),
        "timeseries": ([MONDAY + timedelta(hours=i) for i in range(steps)], np.array(rows)),
        "tensor": [draw.gauss(0, 1) for _ in range(4)],
        "tensor_with_zeros": [draw.choice([0.0, draw.gauss(0, 1)]) for _ in range(4)],
        "multi_hot": draw.sample(["north", "south", "east", "west"], draw.randint(1, 3)),
    }[kind]


def _label(kind, patient, draw):
    if kind == "binary":
        return patient % 2
    if kind == "multiclass":
        return ["home", "ward", "icu"][patient % 3]
    return ["home", "ward", "icu"][: draw.randint(1, 3) if patient else 3]


@cache
def dataset(*kinds, patients=8, label="binary", seed=0):
    """Patients with one feature per kind, named after it."""
    draw = random.Random(seed)
    samples = [
        {
            "patient_id": f"patient-{i}",
            "visit_id": f"visit-{i}",
            **{kind: _value(kind, draw) for kind in kinds},
            "label": _label(label, i, draw),
        }
        for i in range(patients)
    ]
    schema = {kind: PROCESSORS.get(kind, kind) for kind in kinds}
    with contextlib.redirect_stdout(None):
        return create_sample_dataset(samples, schema, {"label": label}, in_memory=True)


def batch(data, rows=None):
    """What PyHealth's loader yields for these rows, floating-point numbers in the default dtype."""
    collated = collate_fn_dict_with_padding([data[i] for i in (range(len(data)) if rows is None else rows)])
    return {
        key: _map_tensors(lambda t: t.to(torch.get_default_dtype()) if t.is_floating_point() else t, part)
        for key, part in collated.items()
    }


def _map_tensors(function, given):
    if isinstance(given, tuple):
        return tuple(_map_tensors(function, part) for part in given)
    return function(given) if isinstance(given, torch.Tensor) else given


def model(name, data, seed=0, scale=1.0, **options):
    """A model in eval mode, its initial weights multiplied by `scale`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = {
            "StageNet": lambda: StageNet(data, embedding_dim=8, chunk_size=6, conv_size=4),
            "StageAttentionNet": lambda: StageAttentionNet(
                data, embedding_dim=8, chunk_size=6, conv_size=4, num_heads=3
            ),
            "Transformer": lambda: Transformer(data, embedding_dim=8, heads=2),
            "Transformer, 2 layers": lambda: Transformer(data, embedding_dim=8, heads=2, num_layers=2),
            "MLP": lambda: MLP(data, embedding_dim=8, hidden_dim=8, **options),
        }[name]()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(scale)
    return made.eval()


def value_of(feature):
    """The value tensor among what the loader yields for a feature."""
    return feature[-1] if isinstance(feature, tuple) else feature


def values(made, given):
    """The value tensors of a batch by feature key."""
    return {key: value_of(given[key]) for key in made.feature_keys}


def masked(key, feature, processors):
    """A feature's tensors with PyHealth's mask; a `[batch, n]` continuous value has no steps to mask."""
    value = value_of(feature)
    parts = feature if isinstance(feature, tuple) else (feature,)
    if processors[key].is_token():
        return (*parts, (value != 0).int())
    return (*parts, (value.abs().sum(-1) != 0).int()) if value.dim() > 2 else parts


def _derivative(module, x):
    if isinstance(module, nn.ReLU):
        return (x > 0).to(x.dtype)
    y = module(x)
    return y * (1 - y) if isinstance(module, nn.Sigmoid) else 1 - y**2


@contextlib.contextmanager
def _rescaled(made, recorded=None):
    """Forward hooks that record the activations' inputs in order, or replay secants against such a record."""
    calls = iter(recorded or ())
    found = []
    busy = []

    def hook(module, args, output):
        if busy:
            return None
        (x,) = args
        found.append(x.detach())
        if recorded is None:
            return None
        busy.append(True)
        x0, now = next(calls), x.detach()
        near = (now - x0).abs() < 1e-6
        slope = (module(now) - module(x0)) / torch.where(near, 1.0, now - x0)
        slope = torch.where(near, _derivative(module, (now + x0) / 2), slope)
        busy.pop()
        return output.detach() + slope * (x - now)

    kinds = (nn.ReLU, nn.Sigmoid, nn.Tanh)
    handles = [m.register_forward_hook(hook) for m in set(made.modules()) if isinstance(m, kinds)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def deeplift_by_hooks(made, given, baselines, target=None):
    """The Rescale rule by forward hooks on the activation modules and one backward pass.

    Returns:
        Contributions before rescaling, by feature key, `f(x)` and `f(x0)` at the target.
    """
    processors = made.dataset.input_processors
    layers = made.get_embedding_model().embedding_layers
    parts = {key: masked(key, given[key], processors) for key in made.feature_keys}
    place = {key: processors[key].schema().index("value") for key in made.feature_keys}

    def logits(leaves):
        embedded = {k: v if processors[k].is_token() else layers[k](v) for k, v in leaves.items()}
        return made.forward_from_embedding(
            **{k: (*p[: place[k]], embedded[k], *p[place[k] + 1 :]) for k, p in parts.items()}
        )["logit"]

    def leaves(raw):
        return {k: (layers[k](v) if processors[k].is_token() else v).detach() for k, v in raw.items()}

    xs, x0s = leaves(values(made, given)), leaves(baselines)
    with torch.no_grad(), _rescaled(made) as recorded:
        reference = logits(x0s)
    for x in xs.values():
        x.requires_grad_()
    with _rescaled(made, recorded):
        output = logits(xs)
    chosen = output.argmax(1) if target is None else torch.full((len(output),), target)
    rows = torch.arange(len(output))
    multipliers = torch.autograd.grad(output[rows, chosen].sum(), list(xs.values()))
    contributions = {k: m * (xs[k] - x0s[k]).detach() for k, m in zip(xs, multipliers, strict=True)}
    for key, found in contributions.items():
        if processors[key].is_token():
            contributions[key] = found.sum(-1)
    return contributions, output[rows, chosen].detach(), reference[rows, chosen]


def total(contributions):
    """Each patient's contributions, added up."""
    return sum(c.flatten(1).sum(1) for c in contributions.values())


def flat(contributions):
    """Each patient's contributions to all features, side by side."""
    return torch.cat([contributions[key].flatten(1) for key in sorted(contributions)], 1)


def relative_error(found, expected):
    """Per-patient L2 distance of two dicts of contributions, relative to the expected."""
    distance = (flat(found) - flat(expected)).norm(dim=1)
    return torch.where(distance == 0, 0.0, distance / flat(expected).norm(dim=1))


def unknown_baseline(made, given):
    """Unknown codes and 0.01 where something is, and padding where padding is."""
    found = {}
    for key, value in values(made, given).items():
        if made.dataset.input_processors[key].is_token():
            found[key] = (value != 0).long()
        else:
            filled = (value != 0).any(-1, keepdim=True) if value.dim() > 2 else value != 0
            found[key] = 0.01 * filled.to(value.dtype) * torch.ones_like(value)
    return found


@pytest.fixture(scope="session")
def cases():
    """The functions above, which test modules cannot import."""
    return SimpleNamespace(
        MIXED=MIXED,
        batch=batch,
        dataset=dataset,
        deeplift_by_hooks=deeplift_by_hooks,
        flat=flat,
        masked=masked,
        model=model,
        relative_error=relative_error,
        total=total,
        unknown_baseline=unknown_baseline,
        value_of=value_of,
        values=values,
    )


@pytest.fixture
def float64():
    """Models and batches in float64, which StageNet takes only as the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
