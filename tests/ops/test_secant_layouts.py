"""Which tensors secant takes: shapes, strides, dtypes, sizes; and what it says of those it does not take."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops import naive

FUNCTIONS = ("relu", "sigmoid", "tanh")
VARIANTS = ("rescale", "pyhealth")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
RTOL = {torch.float64: 1e-12, torch.float32: 5e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}


@pytest.fixture(params=["naive", "dispatched"])
def secant(request):
    return naive.secant if request.param == "naive" else ops.secant


def normal(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def definition(function, x, x0):
    """Outputs and multiplier in float64, element by element, contiguous; Δ must not be small."""
    a, b = x.detach().double().contiguous(), x0.detach().double().contiguous()
    y, y0 = getattr(torch, function)(a), getattr(torch, function)(b)
    return y, y0, (y - y0) / (a - b)


def assert_defined(results, function, x, x0):
    for found, expected in zip(results, definition(function, x, x0), strict=True):
        assert found.shape == x.shape
        assert found.dtype == x.dtype
        assert found.device == x.device
        assert found.stride() == torch.empty_like(x).stride()
        torch.testing.assert_close(found.double(), expected, rtol=RTOL[x.dtype], atol=1e-7, check_stride=False)


def pair(make):
    """An input and a baseline that `make` lays out, at least 0.5 apart."""
    x = normal(2, 3, 4, 6)
    return make(x), make(x - 0.5 - normal(2, 3, 4, 6, seed=1).abs())


LAYOUTS = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.transpose(0, 3),
    "every second": lambda t: t[..., ::2],
    "inner slice": lambda t: t[:, 1:, 1:3, 2:5],
    "flipped": lambda t: t.flip(1),
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "expanded": lambda t: t[:, :1].expand(2, 5, 4, 6),
    "one number expanded": lambda t: t[0, 0, 0, 0].expand(7, 3),
    "0-d": lambda t: t[1, 2, 3, 4],
    "offset": lambda t: t.flatten()[5:],
    "size-1 dimensions": lambda t: t[:1, :, :1].transpose(0, 2),
    "diagonal": lambda t: t[0, 0].diagonal(),
    "permuted and sliced": lambda t: t.permute(2, 0, 3, 1)[1:, :, ::3],
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(secant, layout, function):
    x, x0 = pair(LAYOUTS[layout])
    assert_defined(secant(x, x0, function, "rescale"), function, x, x0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_and_baseline_may_differ_in_strides(secant, layout, dtype):
    x, x0 = (t.to(dtype) for t in pair(LAYOUTS[layout]))
    for a, b in ((x, x0.contiguous()), (x.contiguous(), x0)):
        assert_defined(secant(a, b, "tanh", "rescale"), "tanh", a, b)


def test_arguments_may_share_memory(secant):
    x = normal(50)
    y, y0, multiplier = secant(x, x, "sigmoid", "rescale")
    assert torch.equal(y, y0)
    assert len({t.data_ptr() for t in (x, y, y0, multiplier)}) == 4
    assert torch.equal(x, normal(50))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_no_elements(secant, shape, dtype, variant):
    for result in secant(torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype), "tanh", variant):
        assert result.shape == shape
        assert result.dtype == dtype


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 7, 255, 257, 16383, 16385, 3 * 16384 + 5, 400_003])
def test_no_element_is_lost_at_the_borders_of_blocks_and_threads(size, dtype, threads):
    before = torch.get_num_threads()
    x = normal(size, dtype=dtype)
    x0 = (normal(size, dtype=dtype, seed=1).abs() * -1 - 0.5 + x).to(dtype)
    try:
        torch.set_num_threads(threads)
        results = ops.secant(x, x0, "sigmoid")
    finally:
        torch.set_num_threads(before)
    assert_defined(results, "sigmoid", x, x0)


@st.composite
def layouts(draw):
    """A shape, and a way to make a tensor of it out of a larger one, by slices with steps and a permutation."""
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    steps = draw(st.lists(st.integers(1, 3), min_size=len(shape), max_size=len(shape)))
    order = draw(st.permutations(range(len(shape))))

    def lay_out(values):
        room = [size * step for size, step in zip(shape, steps, strict=True)]
        base = torch.full([room[dim] for dim in order], math.nan, dtype=values.dtype)
        view = base.permute([order.index(dim) for dim in range(len(shape))])
        view = view[tuple(slice(None, None, step) for step in steps)]
        return view.copy_(values)

    return tuple(shape), lay_out


@given(
    layout=layouts(),
    contiguous=st.sampled_from(["x", "x0", "neither"]),
    dtype=st.sampled_from(DTYPES),
    function=st.sampled_from(FUNCTIONS),
    implementation=st.sampled_from([naive.secant, ops.secant]),
    seed=st.integers(0, 1000),
)
def test_any_shape_strides_dtype_and_values(layout, contiguous, dtype, function, implementation, seed):
    shape, lay_out = layout
    x = normal(*shape, dtype=dtype, seed=seed)
    x0 = (x - 1 - normal(*shape, dtype=dtype, seed=seed + 1).abs()).to(dtype)
    x, x0 = (t if contiguous == name else lay_out(t) for name, t in (("x", x), ("x0", x0)))
    assert_defined(implementation(x, x0, function, "rescale"), function, x, x0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_backend_gives_the_same(function, variant, dtype):
    x = normal(5000, dtype=dtype)
    x0 = x + 0.5 + normal(5000, dtype=dtype, seed=1).abs()
    for found, expected in zip(
        ops.secant(x, x0, function, variant), naive.secant(x, x0, function, variant), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=RTOL[dtype], atol=1e-6)


def test_lazily_negated_tensors_are_read_as_what_they_stand_for():
    values = torch.view_as_complex(normal(6, 2)).conj().imag
    assert values.is_neg()
    assert_defined(ops.secant(values, values - 1, "tanh"), "tanh", values, values - 1)


def test_parameters_are_tensors():
    weight = torch.nn.Parameter(normal(4))
    assert_defined(ops.secant(weight, weight - 1, "tanh"), "tanh", weight, weight - 1)


GOOD = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("x", "x0", "function", "variant", "error", "message"),
    [
        (GOOD, GOOD, "gelu", "rescale", ValueError, "function is 'gelu'; accepted: relu, sigmoid, tanh"),
        (GOOD, GOOD, "ReLU", "rescale", ValueError, "function is 'ReLU'"),
        (GOOD, GOOD, "relu", "captum", ValueError, "variant is 'captum'; accepted: rescale, pyhealth"),
        (GOOD, GOOD[:1], "relu", "rescale", ValueError, r"shape \(2, 3\) and x0 \(1, 3\).*expand"),
        (GOOD, GOOD[0], "relu", "rescale", ValueError, "shape"),
        (GOOD, GOOD.t(), "relu", "rescale", ValueError, "shape"),
        (GOOD, GOOD[0, 0], "relu", "rescale", ValueError, "shape"),
        (GOOD, GOOD.double(), "relu", "rescale", TypeError, "x is torch.float32 and x0 torch.float64"),
        (GOOD.half(), GOOD.bfloat16(), "relu", "rescale", TypeError, "dtype"),
        (GOOD.long(), GOOD.long(), "relu", "rescale", TypeError, "torch.int64; accepted: torch.float32"),
        (GOOD.bool(), GOOD.bool(), "relu", "rescale", TypeError, "torch.bool"),
        (GOOD.cfloat(), GOOD.cfloat(), "tanh", "rescale", TypeError, "torch.complex64"),
        (GOOD, GOOD.to("meta"), "relu", "rescale", ValueError, "x is on cpu and x0 on meta"),
        (GOOD.to("meta"), GOOD, "relu", "rescale", ValueError, "x is on meta and x0 on cpu"),
        (1.0, GOOD, "relu", "rescale", TypeError, "x is a float"),
        (GOOD, [0.0], "relu", "rescale", TypeError, "x0 is a list"),
    ],
)
def test_refusals_name_the_argument(secant, x, x0, function, variant, error, message):
    with pytest.raises(error, match=message):
        secant(x, x0, function, variant)


@pytest.mark.parametrize(
    ("x0", "function", "variant"),
    [
        (GOOD[:1], "relu", "rescale"),
        (GOOD.double(), "relu", "rescale"),
        (GOOD, "gelu", "rescale"),
        (GOOD, "relu", "captum"),
    ],
)
def test_the_bare_op_refuses_too(x0, function, variant):
    """What calls the op past the public function's checks must not read outside its arguments."""
    with pytest.raises((RuntimeError, ValueError, TypeError), match="secant"):
        torch.ops.deeplift_fast.secant(GOOD, x0, function, variant)
    with pytest.raises((RuntimeError, ValueError, TypeError), match="secant"):
        torch.ops.deeplift_fast.secant(GOOD.int(), GOOD.int(), "relu", "rescale")
