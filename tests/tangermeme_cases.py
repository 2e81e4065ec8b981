"""The models, sequences and expected values of tangermeme's tests of DeepLIFT, as data.

Every model is drawn with `torch.manual_seed(0)`. Sequences have 100 letters; the values are those of the first
positions of the first sequences, rounded to four decimals. tangermeme writes a position's contribution, the sum over
its four letters, to the letter that stands there; so one number per position is all that it publishes.

`tangermeme_shuffles.fa` holds the backgrounds that its dinucleotide shuffle draws with `random_state=0`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from naive_deeplift import Residual, SquareRoot
from torch import Tensor, nn


class Sum(nn.Module):
    """One number per sample."""

    def forward(self, x):
        return x.flatten(1).sum(1, keepdim=True)


class Plus(nn.Module):
    def forward(self, x):
        return x + 5


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Double(nn.Module):
    """Linear, and written as an autograd function."""

    def forward(self, x):
        return _Double.apply(x)


class First(nn.Module):
    """The first of several outputs."""

    def forward(self, x):
        return x[:, :1]


def _one_hot(letters) -> Tensor:
    return F.one_hot(torch.as_tensor(letters), 4).transpose(-1, -2).float()


def sequences() -> Tensor:
    """`[16, 4, 100]`: random letters with ACGTACGT in the middle."""
    draws = np.random.RandomState(0)
    letters = np.stack([draws.choice(4, size=100) for _ in range(16)])
    letters[:, 46:54] = [0, 1, 2, 3] * 2
    return _one_hot(letters)


def shuffles(count: int) -> Tensor:
    """`[16, count, 4, 100]`: the sequences' positions, in `count` orders that are the same for all."""
    draws, found = np.random.RandomState(0), []
    for _ in range(count):
        order = np.arange(100)
        draws.shuffle(order)
        found.append(sequences()[:, :, torch.from_numpy(order)])
    return torch.stack(found, 1)


def dinucleotide_shuffles(count: int) -> list[Tensor]:
    """Of each sequence, `[count, 4, 100]`; there are 20 of the first two and 3 of the next two."""
    lines = (Path(__file__).parent / "tangermeme_shuffles.fa").read_text().splitlines()
    found: dict[int, list[list[int]]] = {}
    for name, letters in zip(lines[::2], lines[1::2], strict=True):
        found.setdefault(int(name.split()[1].rstrip(",")), []).append(["ACGT".index(letter) for letter in letters])
    return [_one_hot(rows[:count]) for rows in found.values() if len(rows) >= count]


@dataclass(frozen=True)
class Case:
    """A published test.

    Attributes:
        layers: makes the model's layers, in the order in which tangermeme's model draws them.
        published: by sequence, the contribution of each of the first positions.
        background: by sequence, `[baselines, 4, 100]`.
        rescale: whether every activation is one that the Captum front end has a rule for under `"rescale"`.
    """

    layers: Callable[[], list[nn.Module]]
    published: list[list[float]]
    background: Callable[[], list[Tensor] | Tensor] = lambda: dinucleotide_shuffles(20)
    rescale: bool = True

    def model(self) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(*self.layers()).eval()


def _conv(**options) -> nn.Module:
    return nn.Conv1d(4, 8, 5, **options)


def _same(inside: int = 8, outside: int = 8) -> nn.Module:
    return nn.Conv1d(inside, outside, 3, padding="same")


def _dense(inside: int, outside: int = 1) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(inside, outside)]


def _pooled(before: list[nn.Module], after: list[nn.Module]) -> list[nn.Module]:
    return [*before, nn.MaxPool1d(4), *after]


def deepsea() -> list[nn.Module]:
    """Two convolutions with pools before their activations, and two dense layers."""
    return [
        nn.Conv1d(4, 32, 3, padding="same"), nn.MaxPool1d(3), nn.ReLU(), nn.Conv1d(32, 16, 3, padding="same"),
        nn.MaxPool1d(3), nn.ReLU(), *_dense(176, 20), nn.ReLU(), nn.Linear(20, 1),
    ]  # fmt: skip


def dense_beside_conv() -> list[nn.Module]:
    """The dense output of a model that has a convolution, drawn after it, as its other output."""
    return _dense(400)


def conv_beside_dense() -> list[nn.Module]:
    """The other output of that model, summed up."""
    nn.Linear(400, 1)
    return [nn.Conv1d(4, 12, 3), Sum()]


def dense_of_two_outputs() -> list[nn.Module]:
    """The dense output of a model whose convolution is drawn before it."""
    nn.Conv1d(4, 12, 3)
    return [*_dense(400, 3), First()]


def residual(activation: type[nn.Module]) -> Callable[[], list[nn.Module]]:
    """A residual block around two convolutions with an activation between them."""
    return lambda: [Residual(nn.Sequential(_same(4, 4), activation(), _same(4, 4))), *_dense(400)]


def _five() -> Tensor:
    return shuffles(5)


_FLAT = [
    [0.0, -0.0184, 0.0095, -0.0326, 0.0318, -0.0368, 0.0162, 0.0053, -0.0107, -0.0079],
    [0.0, 0.0047, -0.0085, 0.0377, -0.0015, 0.0324, 0.0151, -0.0032, 0.0031, 0.0107],
]
_RELU_POOL = [
    [0.0, -0.0408, -0.0643, 0.1021, -0.182, -0.1912, -0.1507, -0.2448, -0.1375, -0.1143],
    [0.0, -0.0806, 0.0591, 0.0013, 0.3041, 0.0403, 0.0826, -0.1534, -0.2105, 0.0267],
]

CASES = {
    "deepsea": Case(deepsea, [
        [0.0, -0.0004, -0.0025, -0.0006, -0.0014], [0.0, 0.0012, 0.0006, -0.002, 0.002],
        [0.0, 0.0027, -0.0014, 0.0044, 0.0033], [0.0, -0.0008, -0.0003, 0.0029, 0.0],
    ], lambda: dinucleotide_shuffles(3)),
    "dense": Case(lambda: _dense(400), _FLAT),
    "dense, one background": Case(lambda: _dense(400), [
        [-0.007, -0.0125, 0.0085, -0.0177, 0.039, -0.031, 0.0152, 0.0005, -0.0115, -0.0105],
        [0.0488, 0.0108, -0.0074, 0.0258, -0.0044, 0.0288, 0.0081, -0.0055, 0.0078, 0.0045],
    ], lambda: shuffles(20)),
    "dense beside conv": Case(dense_beside_conv, _FLAT),
    "conv beside dense": Case(conv_beside_dense, [
        [0.0, 0.9606, -1.0909, -0.6734, 0.5665, 0.6879, 0.3987, 0.766, -0.8449, 0.4161],
        [0.0, 0.9682, -0.7982, 0.6645, -0.7982, 0.6486, -0.7027, 0.2482, 0.0919, -0.9312],
    ]),
    "dense of two outputs": Case(
        dense_of_two_outputs, [[0.0411, 0.0129, 0.0011, -0.0138], [-0.03, 0.0258, 0.0156, -0.0028]], _five
    ),
    "linear relu": Case(lambda: [*_dense(400, 5), nn.ReLU(), Sum()], [
        [0.0, -0.0495, 0.097, -0.0562, -0.0207, -0.028, -0.0184, 0.0326, -0.0124, 0.0357],
        [0.0, -0.0136, 0.0177, 0.0122, 0.0027, 0.0353, 0.0168, 0.0083, -0.0053, -0.0092],
    ]),
    "linear without bias, relu": Case(lambda: [nn.Flatten(), nn.Linear(400, 5, bias=False), nn.ReLU(), Sum()], [
        [0.0, -0.0477, 0.0934, -0.0505, -0.0212, -0.025, -0.0182, 0.0317, -0.0117, 0.0349],
        [0.0, -0.013, 0.0136, 0.0104, 0.0016, 0.0285, 0.015, 0.007, -0.0041, -0.0073],
    ]),
    "conv relu": Case(lambda: [_conv(), nn.ReLU(), Sum()], [
        [0.0, -0.6341, -0.126, 0.9025, -0.0966, -0.1356, -0.1817, -0.1439, -0.0379, -0.3838],
        [0.0, -0.3457, 0.459, -0.2266, 0.6733, 0.0731, 0.5197, -0.3457, -0.1228, 0.3142],
    ]),
    "conv of dilation 5, relu": Case(lambda: [_conv(dilation=5), nn.ReLU(), Sum()], [
        [0.0, -0.1592, 0.0112, 0.5778, 0.0564, -0.2365, -0.1947, -0.2984, -0.1658, 0.0283],
        [0.0, -0.2153, 0.3452, -0.137, 0.3758, -0.0166, 0.7259, -0.0588, -0.0551, 0.6784],
    ]),
    "conv of stride 5, relu": Case(lambda: [_conv(stride=5), nn.ReLU(), Sum()], [
        [0.0, -0.2509, -0.2351, 0.0998, -0.0655, -0.15, -0.0718, -0.0009, -0.029, -0.068],
        [0.0, -0.0254, 0.0049, -0.1044, -0.0378, -0.0873, 0.1322, 0.0755, -0.0991, -0.1232],
    ]),
    "conv without bias, relu": Case(lambda: [_conv(bias=False), nn.ReLU(), Sum()], [
        [0.0, -0.5924, -0.1397, 0.8116, -0.1294, -0.2071, -0.222, -0.2076, -0.0176, -0.4544],
        [0.0, -0.3874, 0.4262, -0.3004, 0.5746, 0.2103, 0.3762, -0.4046, -0.2499, 0.3317],
    ]),
    "conv of padding 5, relu": Case(lambda: [_conv(padding=5), nn.ReLU(), Sum()], [
        [0.0, -0.4021, -0.309, 0.7698, -0.0966, -0.1356, -0.1817, -0.1439, -0.0379, -0.3838],
        [0.0, -0.2294, 0.3432, -0.2165, 0.6733, 0.0731, 0.5197, -0.3457, -0.1228, 0.3142],
    ]),
    "conv of the same length, relu": Case(
        lambda: [_conv(padding="same"), nn.Flatten(), nn.ReLU(), nn.Linear(800, 1)], [
        [0.0, 0.013, 0.0012, 0.0002, -0.0099, -0.0026, -0.008, 0.0025, -0.0006, -0.0021],
        [0.0, -0.0031, -0.0049, -0.0123, -0.0027, -0.0019, 0.0167, -0.0069, -0.0056, 0.0043],
    ]),
    "max pool": Case(lambda: [nn.MaxPool1d(4), Sum()], [
        [0.0, 0.05, 0.2, 0.0, -0.55, -0.7, -0.45, -0.1, 0.2, 0.1],
        [0.0, 0.2, 0.3, 0.55, 0.3, -0.05, -0.2, 0.15, -0.35, 0.0],
    ]),
    "conv relu pool": Case(lambda: _pooled([_conv(), nn.ReLU()], [Sum()]), _RELU_POOL),
    "conv relu pool relu": Case(lambda: _pooled([_conv(), nn.ReLU()], [nn.ReLU(), Sum()]), _RELU_POOL),
    "relu conv relu pool relu": Case(
        lambda: _pooled([nn.ReLU(), _conv(), nn.ReLU()], [nn.ReLU(), Sum()]), _RELU_POOL
    ),
    "relu conv pool relu": Case(lambda: _pooled([nn.ReLU(), _conv()], [nn.ReLU(), Sum()]), _RELU_POOL),
    "relu conv pool relu relu": Case(
        lambda: _pooled([nn.ReLU(), _conv()], [nn.ReLU(), nn.ReLU(), Sum()]), _RELU_POOL
    ),
    "conv tanh pool": Case(lambda: _pooled([_conv(), nn.Tanh()], [Sum()]), [
        [0.0, -0.0738, -0.0354, 0.1069, -0.3306, -0.4012, -0.2828, -0.427, -0.2147, -0.1415],
        [0.0, -0.0908, 0.0031, -0.0304, 0.263, 0.1219, 0.0245, -0.1598, -0.2506, -0.0002],
    ]),
    "conv elu pool": Case(lambda: _pooled([_conv(), nn.ELU()], [Sum()]), [
        [0.0, -0.0742, -0.0512, 0.1168, -0.3211, -0.3888, -0.2736, -0.4213, -0.2202, -0.1462],
        [0.0, -0.0936, 0.0247, -0.0296, 0.2891, 0.104, 0.0166, -0.1684, -0.2534, -0.0036],
    ]),
    "conv relu tanh pool": Case(lambda: _pooled([_conv(), nn.ReLU(), nn.Tanh()], [Sum()]), [
        [0.0, -0.0344, -0.0539, 0.0922, -0.1765, -0.1837, -0.1488, -0.2312, -0.1299, -0.1048],
        [0.0, -0.0769, 0.0408, 0.0038, 0.2812, 0.0481, 0.1009, -0.1424, -0.2023, 0.0331],
    ]),
    "conv relu pool linear": Case(lambda: _pooled([_conv(), nn.ReLU()], _dense(192)), [
        [0.0, 0.0009, -0.001, 0.0011, -0.0076, -0.0049, -0.0026, -0.0039, 0.0024, -0.0029],
        [0.0, 0.0006, 0.0086, 0.0021, 0.0153, -0.0054, 0.0036, -0.0028, -0.0025, -0.0041],
    ]),
    "conv relu pool linear linear": Case(
        lambda: _pooled([_conv(), nn.ReLU()], [*_dense(192, 10), nn.Linear(10, 1)]), [
        [0.0, 0.0002, -0.001, -0.0013, -0.0002, -0.002, -0.0013, -0.0047, -0.0009, -0.0009],
        [0.0, -0.0011, -0.0074, -0.0016, -0.0044, -0.0014, 0.0029, -0.0004, 0.0009, 0.0001],
    ]),
    "conv relu pool linear relu linear": Case(
        lambda: _pooled([_conv(), nn.ReLU()], [*_dense(192, 10), nn.ReLU(), nn.Linear(10, 1)]), [
        [0.0, 0.0004, -0.001, -0.0001, -0.0017, -0.0009, -0.0004, -0.0014, 0.0003, -0.0012],
        [0.0, -0.0004, -0.0031, -0.0001, -0.0002, 0.0001, 0.0016, 0.0, 0.0001, -0.0006],
    ]),
    "residual": Case(
        residual(nn.ReLU), [[-0.0409, -0.0394, -0.0201, -0.0443], [-0.0345, -0.0089, -0.0313, 0.0414]], _five
    ),
    "conv in two dimensions": Case(
        lambda: [nn.Unflatten(1, (1, 4)), nn.Conv2d(1, 8, (4, 3)), nn.ReLU(), *_dense(784)],
        [[0.0086, 0.0119, 0.0059, 0.0043], [0.0016, -0.0079, 0.0029, 0.0036]], _five,
    ),
    "linear autograd function": Case(
        lambda: [Double(), _same(4, 4), nn.ReLU(), *_dense(400)],
        [[-0.0177, -0.0033, 0.022, -0.0008], [-0.0083, -0.0334, 0.0011, 0.0266]], _five,
    ),
    "square root": Case(
        lambda: [_same(4, 4), Plus(), SquareRoot(), *_dense(400)],
        [[-0.002, 0.0005, 0.0033, -0.003], [-0.0029, -0.0042, -0.0001, 0.0072]], _five, rescale=False,
    ),
    "gelu, silu and tanh": Case(
        lambda: [_same(4), nn.GELU(), _same(), nn.SiLU(), _same(), nn.Tanh(), *_dense(800)],
        [[-0.0007, 0.0005, -0.0009, -0.0001], [0.0009, -0.0016, 0.0001, -0.0006]], _five, rescale=False,
    ),
    "dropout": Case(
        lambda: [_same(4), nn.Dropout(0.5), nn.ReLU(), *_dense(800)],
        [[0.0038, -0.0016, 0.0232, 0.0013], [0.0031, 0.0062, -0.0021, 0.0008]], _five,
    ),
}  # fmt: skip

# A residual block with each activation; the first sequence's first four positions.
_SWEEP = {
    nn.ReLU: [-0.0409, -0.0394, -0.0201, -0.0443],
    nn.ReLU6: [-0.0409, -0.0394, -0.0201, -0.0443],
    nn.RReLU: [-0.0414, -0.0396, -0.018, -0.0455],
    nn.SELU: [-0.045, -0.0409, -0.0067, -0.0528],
    nn.CELU: [-0.0432, -0.0402, -0.0124, -0.049],
    nn.GELU: [-0.0415, -0.0391, -0.0171, -0.0448],
    nn.SiLU: [-0.0416, -0.0389, -0.0162, -0.0447],
    nn.Mish: [-0.0419, -0.0394, -0.0159, -0.0457],
    nn.ELU: [-0.0432, -0.0402, -0.0124, -0.049],
    nn.LeakyReLU: [-0.0409, -0.0394, -0.02, -0.0444],
    nn.Sigmoid: [-0.0411, -0.0376, -0.0165, -0.0418],
    nn.Tanh: [-0.0436, -0.0399, -0.0106, -0.049],
    nn.Softplus: [-0.0417, -0.0388, -0.0155, -0.0445],
    nn.Softshrink: [-0.0398, -0.0376, -0.0195, -0.0401],
    nn.LogSigmoid: [-0.042, -0.0384, -0.0138, -0.0443],
    nn.PReLU: [-0.0415, -0.0396, -0.0178, -0.0456],
}
_RULED = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus)
CASES |= {
    f"residual with {kind.__name__}": Case(residual(kind), [row], _five, kind in _RULED) for kind, row in _SWEEP.items()
}

# With further arguments: the dense model's output plus alpha, times beta; both are drawn after the model.
SCALED = [
    [0.0, -0.018, 0.0093, -0.032, 0.0312, -0.0361, 0.0159, 0.0052, -0.0105, -0.0077],
    [0.0, -0.0051, 0.009, -0.0401, 0.0016, -0.0346, -0.0161, 0.0034, -0.0033, -0.0114],
]

# Three uses of one ReLU between convolutions of dilation 1, 2 and 4. Its published values are NOT those of DeepLIFT.
SHARED_RELU = [[0.0, 0.0016, -0.0004, -0.0008], [0.0004, -0.0016, -0.0024, -0.0006]]


def shared_relu() -> nn.Sequential:
    torch.manual_seed(0)
    relu = nn.ReLU()
    convs = [nn.Conv1d(4 if d == 1 else 8, 8, 3, dilation=d, padding="same") for d in (1, 2, 4)]
    return nn.Sequential(*[each for conv in convs for each in (conv, relu)], *_dense(800))


# What each letter would contribute at the first positions, were it there, of the dense model: letters by positions.
HYPOTHETICAL = [
    [
        [0.0, -0.0005, -0.0098, -0.0326, 0.0027, 0.0137, 0.0069, 0.0236, -0.0124, 0.0117],
        [0.0474, 0.0063, 0.0095, -0.0084, -0.0257, -0.0006, -0.0298, -0.0546, -0.0107, 0.0059],
        [0.0025, 0.0049, -0.0065, -0.0302, -0.0071, 0.0353, -0.0101, 0.0262, 0.0102, 0.0048],
        [-0.0237, -0.0184, 0.0054, 0.0157, 0.0318, -0.0368, 0.0162, 0.0053, 0.0119, -0.0079],
    ],
    [
        [-0.0474, -0.0007, -0.0085, -0.0107, -0.0015, 0.0108, 0.0151, 0.0152, -0.0211, 0.0107],
        [0.0, 0.0062, 0.0109, 0.0135, -0.0299, -0.0035, -0.0216, -0.063, -0.0194, 0.005],
        [-0.0449, 0.0047, -0.0051, -0.0082, -0.0113, 0.0324, -0.0019, 0.0177, 0.0014, 0.0038],
        [-0.0712, -0.0185, 0.0067, 0.0377, 0.0275, -0.0397, 0.0244, -0.0032, 0.0031, -0.0088],
    ],
]

# The same of a model whose multipliers are drawn (`torch.manual_seed(0)`, then `torch.randn(16, 4, 100)`).
HYPOTHETICAL_OF_DRAWS = [
    [[1.4875, 0.5441, -0.0223], [0.0, 0.0, 0.0], [2.5389, 0.6043, 0.6203], [4.0762, 1.076, 1.2166]],
    [[-0.6003, 0.0, 0.0], [0.0, -1.2123, -1.1973], [0.3125, 2.1779, 1.1614], [2.0122, -2.6358, 0.2413]],
    [[0.0, -1.3459, 0.3138], [-0.7441, -0.1906, 0.6102], [1.7111, 0.0, 0.5598], [1.5918, 0.4912, 0.0]],
]

# Multipliers of "deepsea" by sequence and baseline: letters by positions. tangermeme publishes (1, 1) and (1, 2) too.
# In these a pool's winner at the baseline does not move (Δ = 0) while another one wins at the input. The rule gives it
# the multiplier 0 whatever its Δ; tangermeme takes a gradient there, which contributes nothing and is no limit of the
# rule.
RAW = {
    (0, 0): [
        [-1.2537e-03, 8.9214e-04, -1.7216e-03, 1.5525e-03, -3.6719e-04],
        [-3.8154e-05, 3.1158e-03, -2.1447e-03, -2.7676e-04, -8.2222e-04],
        [2.5748e-04, -1.9488e-03, 2.5187e-05, -8.2059e-04, 2.1972e-03],
        [-1.3317e-03, 3.2600e-03, -1.1217e-03, 3.2719e-03, -2.3754e-03],
    ],
    (0, 1): [
        [-4.1715e-04, -1.9015e-04, -2.3618e-04, -2.2531e-03, -4.3028e-05],
        [-2.2356e-04, 1.0974e-03, -2.0263e-03, -1.3769e-03, 2.0427e-03],
        [5.0492e-05, 1.0809e-04, 7.8811e-05, 2.5151e-03, -1.7192e-03],
        [-6.9432e-04, -3.1055e-04, 1.3494e-03, -2.7921e-03, 1.0637e-03],
    ],
    (0, 2): [
        [5.5009e-04, -2.1254e-03, 8.3236e-04, -3.1150e-03, 3.4247e-04],
        [-8.2968e-04, 2.1356e-04, -2.9452e-03, -1.2408e-03, 1.2951e-03],
        [1.0232e-03, -1.2134e-03, -2.7766e-03, 3.2607e-03, 8.7921e-04],
        [-1.3670e-03, 1.4417e-04, 3.1089e-04, -2.6112e-03, -2.8219e-04],
    ],
    (0, 3): [
        [-6.9273e-04, 8.5304e-04, -5.0310e-04, 6.1833e-04, -5.7676e-04],
        [-6.7235e-04, 2.2613e-03, -1.9021e-03, -9.0644e-04, -1.2571e-03],
        [1.8075e-04, -1.4490e-03, -3.9057e-04, 4.8862e-04, 3.4969e-03],
        [-1.0567e-03, 1.7016e-03, -3.3688e-04, 2.5392e-03, -2.1464e-03],
    ],
    (1, 0): [
        [1.2693e-03, -1.0453e-03, 8.5213e-04, 1.8026e-03, 1.5205e-03],
        [2.0764e-03, -1.2293e-03, -4.5820e-04, -1.9499e-03, -2.0205e-04],
        [-2.1099e-04, 2.3054e-03, 2.5276e-04, -5.3881e-05, 6.6704e-04],
        [-1.3540e-03, -1.2551e-03, -7.0425e-04, -2.6836e-04, 3.1554e-03],
    ],
    (1, 3): [
        [1.7860e-03, 3.3834e-05, 2.8281e-03, -1.5901e-03, 1.5896e-03],
        [-2.2288e-03, -1.3378e-03, 2.1684e-03, -4.2975e-04, -4.2876e-03],
        [5.8548e-04, 2.8428e-03, 3.0198e-04, 1.1508e-03, 2.5912e-04],
        [9.2957e-05, -7.6795e-04, -1.2443e-04, -3.7598e-04, -9.3731e-04],
    ],
}
