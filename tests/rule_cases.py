"""Calls of every kind of operation, as functions of one tensor of shape `[5, 4, 6]`."""

import torch
import torch.nn.functional as F
from torch import nn

aten = torch.ops.aten
EYE = torch.eye(4, 6).bool()


def positive(x):
    return x.abs() + 0.5


def _module(kind, *args, pick=lambda y: y, seed=0, **options):
    """A module made anew for each dtype, so that calls share nothing."""

    def call(x):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = kind(*args, **options).to(x.dtype).eval()
        return pick(made(x))

    return call


def _attention(pick=0, **options):
    def call(x):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = nn.MultiheadAttention(6, 2, **options).to(x.dtype).eval()
        mask = torch.tensor([[0, 0, 1, 1]] * 5).bool()
        extra = {"key_padding_mask": mask} if options.get("batch_first") else {}
        return made(x, x, x, **extra)[pick]

    return call


def _packed(x):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True).to(x.dtype)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2, 3, 1, 4]), batch_first=True, enforce_sorted=False)
    return nn.utils.rnn.pad_packed_sequence(made(packed)[0], batch_first=True)[0]


def _index_assignment(x):
    held = torch.zeros_like(x)
    held[:, 1] = x[:, 0].exp()
    held[:, 2:, ::2] = x[:, :2, ::2]
    held[:, EYE] = held[:, EYE] * 2
    return held * held


def _in_place(x):
    held = x * 1
    held += x.exp()
    held *= x
    held -= 1
    held /= positive(x)
    held **= 2
    return held


def _bag(x):
    table = torch.linspace(-1, 1, 60, dtype=x.dtype).reshape(20, 3)
    return F.embedding_bag(torch.arange(20).reshape(5, 4), table, mode="sum", per_sample_weights=x[:, :, 0])


def _masked_encoder(x):
    mask = torch.tensor([[0, 0, 0, 1]] * 3 + [[0, 0, 1, 1]] * 2).bool()
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    made = nn.TransformerEncoder(layer, 2).to(x.dtype).eval()
    for parameter, value in zip(made.parameters(), range(1000), strict=False):
        nn.init.uniform_(parameter, -0.5, 0.5, generator=torch.Generator().manual_seed(value))
    return made(x, src_key_padding_mask=mask)


def _recurrent(kind, pick=0, **options):
    return _module(kind, 6, 5, pick=lambda y: y[pick] if isinstance(pick, int) else pick(y), **options)


FUNCTIONAL = (
    "relu relu6 leaky_relu elu selu celu gelu silu mish softplus softsign hardtanh hardsigmoid hardswish logsigmoid "
    "tanhshrink softshrink hardshrink"
).split()
ANYWHERE = "exp exp2 expm1 square abs sin cos erf sinh cosh atan asinh sigmoid tanh round floor sign".split()
POSITIVE = "log log2 log10 log1p sqrt rsqrt reciprocal".split()

ELEMENTWISE = {
    **{f"F.{name}": getattr(F, name) for name in FUNCTIONAL},
    **{name: getattr(torch, name) for name in ANYWHERE},
    **{name: (lambda f: lambda x: f(positive(x)))(getattr(torch, name)) for name in POSITIVE},
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "prelu": _module(nn.PReLU, 4),
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "rrelu in eval": lambda x: F.rrelu(x),
    "rrelu in training": lambda x: F.rrelu(x, training=True),
    "cube": lambda x: x**3,
    "power 1/2": lambda x: positive(x) ** 0.5,
    "2 to the x": lambda x: 2**x,
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "clamp_min": lambda x: x.clamp_min(-0.3),
    "remainder": lambda x: x % 0.3,
    "floor division": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "relu, in place": lambda x: nn.ReLU(inplace=True)(x * 1),
    "leaky_relu, in place by position": lambda x: F.leaky_relu(x * 1, 0.1, True),
    "hardtanh, in place": lambda x: nn.Hardtanh(-0.5, 0.5, True)(x * 1),
    "elu_": lambda x: F.elu_(x * 1),
    "exp_": lambda x: (x * 1).exp_(),
    "clamp_": lambda x: (x * 1).clamp_(-0.1, 0.1),
    "aten.silu": aten.silu,
    "aten.gelu.default": aten.gelu.default,
    "aten.exp_": lambda x: aten.exp_(x * 1),
}

PRODUCTS = {
    "product": lambda x: x * x.flip(-1),
    "product with itself": lambda x: x * x,
    "broadcast product": lambda x: x * x[:, :1, :1],
    "product in place": lambda x: (x * 1).mul_(x.flip(-1)),
    "quotient": lambda x: x / positive(x.flip(-1)),
    "quotient in place": lambda x: (x * 1).div_(positive(x)),
    "number over": lambda x: 3 / positive(x),
    "over a number": lambda x: x / 3,
    "matmul": lambda x: x @ x.mT,
    "matmul, broadcast": lambda x: x @ x[0].mT,
    "matmul with a vector": lambda x: x @ x[0, 0],
    "bmm": lambda x: torch.bmm(x, x.mT),
    "mm": lambda x: torch.mm(x.flatten(1), x.flatten(1).t()),
    "baddbmm": lambda x: torch.baddbmm(x[:, :, :4], x, x.mT, beta=0.5, alpha=2.0),
    "addcmul": lambda x: torch.addcmul(x, x, x.flip(1), value=0.3),
    "addcdiv": lambda x: torch.addcdiv(x, x, positive(x.flip(1)), value=0.3),
    "lerp": lambda x: torch.lerp(x, x.flip(1), x.flip(2)),
    "einsum of one": lambda x: torch.einsum("bij->bji", x),
    "einsum of two": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "einsum of three": lambda x: torch.einsum("bij,bkj,bkl->bil", x, x, x),
    "einsum with an ellipsis": lambda x: torch.einsum("...ij,...kj,kl->...il", x, x.flip(1), x[0]),
    "einsum, implicit": lambda x: torch.einsum("ij,kj", x.flatten(1), x[0].reshape(2, 12).repeat(1, 2)),
    "bilinear": lambda x: F.bilinear(x, x.flip(1), torch.ones(2, 6, 6, dtype=x.dtype)),
    "cross": lambda x: torch.linalg.cross(x[:, :, :3], x[:, :, 3:]),
    "tensordot": lambda x: torch.tensordot(x, x[0], dims=([2], [1])),
    "convolution with a moved kernel": lambda x: F.conv1d(x, x[:3, :, :2]),
    "stopped": lambda x: x * x.detach(),
    "straight through": lambda x: (x.sign() - x).detach() + x,
    "glu": lambda x: F.glu(x, -1),
    "aten.mul": lambda x: aten.mul(x, x.flip(1)),
}

SOFTMAX = {
    "softmax": lambda x: x.softmax(-1),
    "F.softmax": lambda x: F.softmax(x, 1),
    "nn.Softmax": nn.Softmax(-1),
    "log_softmax": lambda x: x.log_softmax(1),
    "softmin": lambda x: F.softmin(x, -1),
    "logsumexp": lambda x: x.logsumexp((1, 2), keepdim=True),
    "logsumexp, keepdim": lambda x: torch.logsumexp(x, 1, keepdim=True),
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(1)),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x, dim=-1),
    "cross_entropy": lambda x: F.cross_entropy(x, torch.zeros(5, 6, dtype=torch.int64), reduction="none"),
    "masked": lambda x: x.masked_fill(EYE, -torch.inf).softmax(-1),
    "masked with a large number": lambda x: x.masked_fill(EYE, -1e9).softmax(-1),
    "aten.softmax": lambda x: aten.softmax.int(x, -1),
}

NORMS = {
    "layer_norm": _module(nn.LayerNorm, 6),
    "layer_norm over two": _module(nn.LayerNorm, (4, 6)),
    "rms_norm": _module(nn.RMSNorm, 6),
    "group_norm": _module(nn.GroupNorm, 2, 4),
    "batch_norm in eval": _module(nn.BatchNorm1d, 4),
    "instance_norm": _module(nn.InstanceNorm1d, 4),
    "norm": lambda x: x.norm(dim=-1),
    "norm of order 1": lambda x: x.norm(1, dim=1),
    "norm of order 3": lambda x: x.norm(3, dim=1),
    "vector_norm of order inf": lambda x: torch.linalg.vector_norm(x, torch.inf, dim=1),
    "linalg.norm": lambda x: torch.linalg.norm(x, dim=-1),
    "Frobenius norm": lambda x: torch.linalg.norm(x, dim=(-2, -1)).unsqueeze(1),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "cosine_similarity": lambda x: F.cosine_similarity(x, x.flip(1), dim=-1),
    "pairwise_distance": lambda x: F.pairwise_distance(x, x.flip(2)),
    "cdist": lambda x: torch.cdist(x, x.flip(2)),
    "var": lambda x: x.var(-1),
    "std": lambda x: x.std((1, 2), keepdim=True),
    "var, corrected": lambda x: torch.var(x, 1, correction=0),
    "var_mean": lambda x: sum(torch.var_mean(x, -1)),
    "absolute value of complex": lambda x: torch.fft.rfft(x).abs(),
}

EXTREMES = {
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin((1, 2), keepdim=True),
    "max over one": lambda x: x.max(1)[0],
    "min over one": lambda x: x.min(-1).values,
    "max over all": lambda x: x.exp() * x.max(),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "max of two": lambda x: torch.max(x, x.flip(1)),
    "minimum with a constant": lambda x: torch.minimum(x, torch.linspace(-1, 1, 6, dtype=x.dtype)),
    "clamp between tensors": lambda x: torch.clamp(x, x.flip(1) - 0.5, x.flip(1) + 0.5),
    "max_pool1d, overlapping": lambda x: F.max_pool1d(x, 3, stride=1),
    "max_pool1d with indices": lambda x: F.max_pool1d(x, 3, return_indices=True)[0],
    "max_pool2d, padded": lambda x: F.max_pool2d(x.unsqueeze(1), 2, stride=1, padding=1),
    "nn.MaxPool2d": nn.MaxPool2d(2, 1),
    "max_pool3d": lambda x: F.max_pool3d(x.reshape(5, 1, 2, 2, 6), 2, 1),
    "adaptive_max_pool1d, overlapping": lambda x: F.adaptive_max_pool1d(x, 4),
    "nn.AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d((2, 4)),
}

LINE = torch.tensor([2, 0, 2, 1])  # groups of the second dimension; the fourth has none
GRID = torch.randint(0, 4, (5, 6, 5), generator=torch.Generator().manual_seed(3))
BAGS = torch.tensor([[0, 3, 1], [2, 2, 0], [1, 1, 1]])


def _scattered(how, **options):
    """Into a constant, or, with `moved`, into the tensor itself."""

    def call(x):
        into = x.exp() if options.get("moved") else torch.linspace(-1, 1, 120, dtype=x.dtype).reshape(5, 4, 6)
        source = torch.cat([x, x[:, : options.get("more", 1)]], 1)
        return into.scatter_reduce(1, GRID.mT, source, how, include_self=options.get("include_self", True))

    return call


def _indexed(how, include_self=True):
    return lambda x: torch.full_like(x, 0.3).index_reduce(1, LINE, x, how, include_self=include_self)


def _segmented(how, **options):
    return lambda x: torch.segment_reduce(x.transpose(0, 1).contiguous(), how, **options).transpose(0, 1)


def _bags(x):
    return torch.stack([F.embedding_bag(BAGS, each, mode="max", padding_idx=2) for each in x])


EXTREMES.update(
    {
        "cummax": lambda x: x.cummax(1).values,
        "cummin": lambda x: torch.cummin(x, -1)[0],
        "cummax of one number": lambda x: torch.stack([each[1, 0].cummax(0).values for each in x]),
        "aminmax": lambda x: sum(torch.aminmax(x, dim=1)),
        "scatter_reduce, amax": _scattered("amax"),
        "scatter_reduce, amin, without self": _scattered("amin", include_self=False),
        "scatter_reduce, amax, into what moves": _scattered("amax", moved=True),
        "scatter_reduce, amax, of a part": _scattered("amax", more=3),
        "scatter_reduce_": lambda x: torch.zeros_like(x).scatter_reduce_(
            2, GRID.mT[:, :4], x, "amax", include_self=False
        ),
        "index_reduce, amax": _indexed("amax"),
        "index_reduce, amin, without self": _indexed("amin", False),
        "segment_reduce, max": _segmented("max", lengths=torch.tensor([1, 0, 3]), initial=0.1),
        "segment_reduce, min, by offsets": _segmented("min", offsets=torch.tensor([0, 3, 4])),
        "segment_reduce, max, of each row": lambda x: torch.segment_reduce(
            x, "max", lengths=torch.tensor([[1, 3], [2, 2], [0, 4], [3, 1], [4, 0]]), axis=1, initial=-1.0
        ),
        "aten.scatter_reduce": lambda x: aten.scatter_reduce(x.exp(), 2, GRID.mT[:, :4], x, "amax"),
        "embedding_bag, max": _bags,
        "embedding_bag, max, in a line": lambda x: torch.stack(
            [F.embedding_bag(BAGS.flatten(), each, torch.tensor([0, 4, 4]), mode="max") for each in x]
        ),
    }
)
PRODUCTS.update(
    {
        "scatter_reduce, prod": _scattered("prod"),
        "scatter_reduce, prod, into what moves": _scattered("prod", moved=True, include_self=False),
        "index_reduce, prod": _indexed("prod"),
        "segment_reduce, prod": _segmented("prod", lengths=torch.tensor([1, 0, 3])),
    }
)

LAYERS = {
    "scatter with multiply": lambda x: x.exp().scatter(2, GRID.mT[:, :4], x, reduce="multiply"),
    "scatter of a number with add": lambda x: x.exp().scatter_(2, GRID.mT[:, :4], 0.5, reduce="add"),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x.flip(1), x),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "attention with a mask": lambda x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=torch.ones(4, 4).bool().tril(), scale=0.3
    ),
    "MultiheadAttention": _attention(batch_first=True),
    "MultiheadAttention, sequence first": _attention(),
    "MultiheadAttention's weights": _attention(pick=1, batch_first=True, add_bias_kv=True, add_zero_attn=True),
    "TransformerEncoderLayer": _module(nn.TransformerEncoderLayer, 6, 2, 8, batch_first=True),
    "TransformerEncoderLayer, gelu, norm first": _module(
        nn.TransformerEncoderLayer, 6, 2, 8, batch_first=True, norm_first=True, activation="gelu"
    ),
    "TransformerEncoder with padding": _masked_encoder,
    "LSTM": _recurrent(nn.LSTM, batch_first=True),
    "LSTM, two layers, two directions": _recurrent(nn.LSTM, num_layers=2, bidirectional=True, batch_first=True),
    "LSTM, projected": _recurrent(nn.LSTM, proj_size=3, batch_first=True),
    "LSTM's last cell state": _recurrent(nn.LSTM, pick=lambda y: y[1][1].transpose(0, 1), batch_first=True),
    "LSTM, packed": _packed,
    "GRU": _recurrent(nn.GRU, batch_first=True),
    "GRU without biases": _recurrent(nn.GRU, bias=False, batch_first=True),
    "GRU, sequence first": lambda x: _recurrent(nn.GRU)(x.transpose(0, 1)).transpose(0, 1),
    "RNN": _recurrent(nn.RNN, batch_first=True),
    "RNN, relu": _recurrent(nn.RNN, nonlinearity="relu", batch_first=True),
    "LSTMCell": lambda x: _recurrent(nn.LSTMCell)(x[:, 1]),
    "GRUCell": lambda x: _module(nn.GRUCell, 6, 5)(x[:, 1]),
    "RNNCell": lambda x: _module(nn.RNNCell, 6, 5)(x[:, 1]),
    "Conv1d": _module(nn.Conv1d, 4, 3, 2),
    "ConvTranspose1d": _module(nn.ConvTranspose1d, 4, 3, 2),
}

LINEAR = {
    "avg_pool1d": lambda x: F.avg_pool1d(x, 3),
    "nn.AvgPool2d": nn.AvgPool2d(2),
    "cumsum": lambda x: x.cumsum(1),
    "interpolate": lambda x: F.interpolate(x, 9, mode="linear"),
    "where": lambda x: torch.where(EYE, x, x.exp()),
    "index assignment": _index_assignment,
    "in-place arithmetic": _in_place,
    "embedding_bag": _bag,
    "real part of a transform": lambda x: torch.fft.rfft(x).real,
    "scatter_reduce, sum": _scattered("sum"),
    "scatter_reduce, mean": _scattered("mean", include_self=False),
    "index_reduce, mean": _indexed("mean"),
    "segment_reduce, sum": _segmented("sum", lengths=torch.tensor([1, 0, 3])),
    "segment_reduce, mean": _segmented("mean", offsets=torch.tensor([0, 3, 4])),
    "gather": lambda x: x.gather(1, torch.ones(5, 2, 6, dtype=torch.int64)),
}

QUADRATURE = {
    "prod": lambda x: x.prod(-1),
    "cumprod": lambda x: x.cumprod(-1),
    "inverse": lambda x: torch.linalg.inv(x[:, :, :4] @ x[:, :, :4].mT + 4 * torch.eye(4, dtype=x.dtype)),
    "power of both": lambda x: positive(x) ** x.flip(1),
    "atan2": lambda x: torch.atan2(positive(x), positive(x.flip(1))),
    "hypot": lambda x: torch.hypot(positive(x), positive(x.flip(1))),
    "local_response_norm": lambda x: F.local_response_norm(x, 2),
    "binary cross entropy": lambda x: F.binary_cross_entropy_with_logits(x, torch.ones_like(x), reduction="none"),
}

FAMILIES = {
    "elementwise": ELEMENTWISE,
    "products": PRODUCTS,
    "softmax": SOFTMAX,
    "norms": NORMS,
    "extremes": EXTREMES,
    "layers": LAYERS,
    "linear": LINEAR,
    "quadrature": QUADRATURE,
}
# A sample's result depends on other samples.
MIXING = {
    "matmul, broadcast",
    "matmul with a vector",
    "mm",
    "einsum with an ellipsis",
    "einsum, implicit",
    "tensordot",
    "convolution with a moved kernel",
    "max over all",
    "MultiheadAttention, sequence first",
}
CALLS = {f"{family}: {name}": call for family, calls in FAMILIES.items() for name, call in calls.items()}
