"""The timed modules without PyHealth, their inputs and their goals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MOST = 3  # `complete` takes at most so many times forward + backward


class ConvolutionNet(nn.Module):
    """Residual dilated 1-D convolutions over one-hot sequences, `[batch, 4, steps]` to `[batch, 2]`."""

    def __init__(self, channels: int = 64, layers: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, channels, 15, padding=7)
        self.layers = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=2**i, dilation=2**i) for i in range(1, layers + 1)
        )
        self.activations = nn.ModuleList(nn.ReLU() for _ in range(layers + 1))
        self.last = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activations[0](self.first(x))
        for layer, activation in zip(self.layers, self.activations[1:], strict=True):
            x = x + activation(layer(x))
        return self.last(x.mean(-1))


class Encoder(nn.Module):
    """A Transformer encoder over embedded steps, `[batch, steps, width]` to `[batch, 2]`."""

    def __init__(self, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.encoder(x).mean(1))


class LastState(nn.Module):
    """An LSTM over steps, `[batch, steps, width]`, and a linear layer of its last state, `[batch, 2]`."""

    def __init__(self, width: int = 32, hidden: int = 64) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.last = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.lstm(x)[0][:, -1])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2))


class OwnMLP(nn.Module):
    """The MLP in a class of its own, which may do anything, so that its state and random draws are protected."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 128),
        nn.ReLU(),
        nn.Linear(128, 2),
    )


@dataclass(frozen=True)
class Case:
    """One module on one batch.

    Attributes:
        make: makes the module.
        shape: that of its input, `[batch, …]`.
        most_ms: the most milliseconds of `complete`; `None` for :data:`MOST` times forward + backward, and less than
            Captum's.
        letters: whether the input is a one-hot sequence, as tangermeme assumes; its baseline is the reversed sequence.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    most_ms: float | None = None
    letters: bool = False


CASES: Mapping[str, Case] = {
    "MLP, batch 256": Case(mlp, (256, 128)),
    "MLP, batch 1": Case(mlp, (1, 128), 0.5),
    "MLP in its own class, batch 1": Case(OwnMLP, (1, 128), 0.5),
    "convolutions, batch 16, 1,000 steps": Case(ConvolutionNet, (16, 4, 1000), letters=True),
    "CNN with pools, batch 64": Case(cnn, (64, 3, 32, 32)),
    "Transformer encoder, batch 32": Case(Encoder, (32, 32, 64)),
    "LSTM, batch 64": Case(LastState, (64, 50, 32)),
}


def make(case: Case) -> tuple[nn.Module, Tensor, Tensor]:
    """A fresh module in eval mode, a batch and its baseline; the same each time."""
    torch.manual_seed(0)
    model = case.make().eval()
    if not case.letters:
        x = torch.randn(case.shape)
        return model, x, torch.zeros_like(x)
    batch, letters, steps = case.shape
    x = nn.functional.one_hot(torch.randint(letters, (batch, steps)), letters).mT.float().contiguous()
    return model, x, x.flip(-1)
