"""Random models built from all kinds of layers are complete."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from deeplift_fast import attribute

SHARED = nn.GELU()


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Gate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.value, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return self.value(x) * torch.sigmoid(self.gate(x)) / (1 + F.softplus(self.value(x)))


class Functional(nn.Module):
    """Odd forms: in place, reused, as methods and operators."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        h = self.linear(x).tanh_()
        h = h.mul(F.silu(x))
        h += SHARED(self.linear(h))
        held = torch.zeros_like(h)
        held[:, ::2] = h[:, ::2].exp().clamp(max=3)
        return SHARED(held - h.abs().sqrt())


class SelfAttention(nn.Module):
    def __init__(self, width, sequence_first):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=not sequence_first)
        self.sequence_first = sequence_first

    def forward(self, x):
        if self.sequence_first:
            x = x.transpose(0, 1)
        y = self.attention(x, x, x)[0]
        return y.transpose(0, 1) if self.sequence_first else y


class Recurrent(nn.Module):
    def __init__(self, width, kind, sequence_first):
        super().__init__()
        self.layer = kind(width, width, batch_first=not sequence_first)
        self.sequence_first = sequence_first

    def forward(self, x):
        if self.sequence_first:
            return self.layer(x.transpose(0, 1))[0].transpose(0, 1)
        return self.layer(x)[0]


class Channels(nn.Module):
    """Convolution and pooling over time."""

    def __init__(self, width, average):
        super().__init__()
        self.convolution = nn.Conv1d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(2, width)
        self.pool = nn.AvgPool1d(3, 1, 1) if average else nn.MaxPool1d(3, 1, 1)

    def forward(self, x):
        return self.pool(self.norm(F.leaky_relu(self.convolution(x.transpose(1, 2))))).transpose(1, 2)


LAYERS = {
    "linear": lambda w, flag: nn.Linear(w, w),
    "relu": lambda w, flag: nn.ReLU(inplace=flag),
    "shared": lambda w, flag: SHARED,
    "elu": lambda w, flag: nn.ELU(),
    "softmax": lambda w, flag: nn.Softmax(1 if flag else -1),
    "layer norm": lambda w, flag: nn.LayerNorm(w),
    "rms norm": lambda w, flag: nn.RMSNorm(w),
    "gate": lambda w, flag: Gate(w),
    "functional": lambda w, flag: Functional(w),
    "attention": SelfAttention,
    "lstm": lambda w, flag: Recurrent(w, nn.LSTM, flag),
    "gru": lambda w, flag: Recurrent(w, nn.GRU, flag),
    "rnn": lambda w, flag: Recurrent(w, nn.RNN, flag),
    "channels": Channels,
    "encoder": lambda w, flag: nn.TransformerEncoderLayer(w, 2, 2 * w, batch_first=True, norm_first=flag),
    "dropout": lambda w, flag: nn.Dropout(0.3, inplace=flag),
}
layer = st.tuples(st.sampled_from(sorted(LAYERS)), st.booleans(), st.booleans())


def build(layers, width, seed, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = [nn.Linear(3, width)]
        for name, flag, residual in layers:
            one = LAYERS[name](width, flag)
            made.append(Residual(nn.Sequential(nn.Linear(width, width), one)) if residual else one)
        return nn.Sequential(*made, nn.Flatten(), nn.LazyLinear(2)).to(dtype).eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=st.lists(layer, min_size=1, max_size=5),
    width=st.sampled_from([2, 4, 6]),
    steps=st.sampled_from([1, 1, 3]),
    share_same=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_any_model_is_complete(dtype, tolerance, layers, width, steps, share_same, seed):
    draw = torch.Generator().manual_seed(seed)
    x, x0 = (torch.randn(3, 5, 3, generator=draw).to(dtype) for _ in range(2))
    x0 = torch.where(torch.rand(3, 5, 1, generator=draw) < share_same, x, x0)
    model = build(layers, width, seed, dtype)
    with torch.no_grad():
        model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attribute(model, x, x0, 1, rules="complete", steps=steps)
    change = found.output - found.baseline_output
    assert (found.convergence_delta.abs() <= tolerance * change.abs().clamp(min=1)).all(), found.report
    assert (found.contributions[x == x0] == 0).all()
    assert found.contributions.isfinite().all()
    with torch.no_grad():
        torch.testing.assert_close(found.output, model(x)[:, 1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.baseline_output, model(x0)[:, 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_images_in_either_layout(memory_format):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 4, 3),
        nn.Hardswish(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    model = model.double().eval().to(memory_format=memory_format)
    x, x0 = (torch.randn(2, 3, 9, 9, dtype=torch.float64).to(memory_format=memory_format) for _ in range(2))
    found = attribute(model, x, x0, 1, rules="complete")
    assert found.convergence_delta.abs().max() < 1e-12
    assert found.contributions.shape == x.shape


def test_a_model_that_mixes_samples_is_complete_for_each():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double().train()
    x, x0 = torch.randn(4, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
    with pytest.warns(UserWarning, match="mixes the samples of a batch"):
        found = attribute(model, x, x0, rules="complete")
    assert found.convergence_delta.abs().max() < 1e-12
    for i in range(4):
        alone = x.clone()
        alone[i] = x0[i]
        with torch.no_grad():
            expected = nn.Sequential(*model)(alone)[i, 0]
        torch.testing.assert_close(found.baseline_output[i], expected)
