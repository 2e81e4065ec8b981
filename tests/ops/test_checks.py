"""What an op's line says: which arguments fit, how errors put it, which results a call without numbers has."""

import inspect

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from deeplift_fast import ops
from deeplift_fast.ops.checks import OPS, OpSpec, check, fake

LINE = (
    "a:f[rows size] b:f~[rows0 2*size] at:i@[rows0+1] m:w[parts(size,count) 1] count kind=near|far -> y:f[rows count]"
)


def given(rows=3, rows0=2, size=4, count=3, dtype=torch.float32, **change):
    arguments = {
        "a": torch.zeros(rows, size, dtype=dtype),
        "b": torch.zeros(2 * size, rows0, dtype=dtype).t(),
        "at": torch.zeros(rows0 + 1, dtype=torch.int64),
        "m": torch.zeros(-(-size // count), 1, dtype=torch.float64 if dtype == torch.float64 else torch.float32),
        "count": count,
        "kind": "far",
    }
    return tuple((arguments | change).values())


@pytest.fixture(scope="module")
def op():
    return OpSpec.of("op", LINE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_fits_gives_sizes(op, dtype):
    assert check(op, given(dtype=dtype)) == {"count": 3, "rows": 3, "size": 4, "rows0": 2}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": None}, TypeError, r"op: a is a NoneType; accepted: a tensor \[rows, size\]"),
        ({"a": torch.zeros(3)}, ValueError, r"op: a has shape \(3,\); accepted: \[rows, size\], 2 dimension"),
        ({"a": torch.zeros(3, 4).long()}, TypeError, "op: a is torch.int64; accepted: torch.float32, torch.float64$"),
        ({"a": torch.zeros(3, 4).half()}, TypeError, "op: a is torch.float16; accepted: torch.float32, torch.float64$"),
        ({"a": torch.zeros(4, 3).t()}, ValueError, "op: a is not contiguous; give a contiguous copy"),
        ({"b": torch.zeros(2, 7)}, ValueError, r"op: b .* \(2, 7\); accepted: \(2, 8\), that is .*, with size of a$"),
        ({"b": torch.zeros(2, 8).double()}, TypeError, "op: a is torch.float32 and b torch.float64; convert one"),
        ({"b": torch.zeros(2, 8, device="meta")}, ValueError, "op: a is on cpu and b on meta; move it to cpu"),
        ({"at": torch.zeros(2).long()}, ValueError, r"op: at has shape \(2,\); accepted: \(3,\), that is \[rows0\+1\]"),
        ({"at": torch.zeros(3)}, TypeError, "op: at is torch.float32; accepted: torch.int64"),
        ({"m": torch.zeros(1, 1)}, ValueError, r"op: m has shape \(1, 1\); accepted: \(2, 1\)"),
        ({"m": torch.zeros(2, 1).double()}, TypeError, "op: m is torch.float64; accepted: torch.float32"),
        ({"kind": "away"}, ValueError, "op: kind is 'away'; accepted: near, far"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(op, change, error, message):
    with pytest.raises(error, match=message):
        check(op, given(**change))


def test_a_tensor_may_be_elsewhere_where_the_line_says_so(op):
    check(op, given(at=torch.zeros(3, dtype=torch.int64, device="meta")))


def test_other_devices_take_half_types_and_any_strides(op):
    elsewhere = [each.to("meta") if torch.is_tensor(each) else each for each in given(dtype=torch.bfloat16)]
    elsewhere[0] = torch.zeros(4, 3, dtype=torch.bfloat16, device="meta").t()
    check(op, elsewhere)


def test_dimensions_of_any_number():
    op = OpSpec.of("op", "a:h~[2 ...] b:h~[2 ...] -> y:h[2 ...] s:h~[2 ...]")
    for shape in ((2,), (2, 3), (2, 0, 5)):
        check(op, (torch.zeros(shape).half(), torch.zeros(shape).half()))
    with pytest.raises(ValueError, match="nothing is broadcast"):
        check(op, (torch.zeros(2, 3), torch.zeros(2, 1)))
    with pytest.raises(ValueError, match=r"a has shape \(3, 3\); accepted: \(2, 3\)"):
        check(op, (torch.zeros(3, 3), torch.zeros(3, 3)))
    with pytest.raises(ValueError, match=r"a has shape \(\); accepted"):
        check(op, (torch.zeros(()), torch.zeros(())))
    y, s = fake(op)(torch.zeros(3, 2).t(), torch.zeros(2, 3))
    assert (y.shape, y.stride(), s.stride()) == ((2, 3), (3, 1), (1, 2))


def test_sizes_that_nobody_knows_yet_fit():
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True) as mode:
        some = [torch.nonzero(mode.from_tensor(torch.ones(3))) for _ in range(2)]
        x, x0 = (torch.zeros(each.shape[0], 4) for each in some)
        y, multiplier = torch.ops.deeplift_fast.gelu(x, x0, some[0][:, 0], True)
        assert y.shape == multiplier.shape == x.shape
        with pytest.raises(ValueError, match="x0 has shape"):
            torch.ops.deeplift_fast.gelu(x, torch.zeros(5, 3), some[0][:, 0], True)


def test_compiled_code_is_told_of_arguments_that_do_not_fit():
    compiled = torch.compile(lambda x, x0, at: ops.gelu(x, x0, at, True), fullgraph=True, backend="aot_eager")
    at = torch.tensor([0, 1])
    x, x0 = torch.randn(2, 4), torch.randn(3, 4)
    torch.testing.assert_close(compiled(x, x0, at), ops.gelu(x, x0, at, True))
    with pytest.raises(Exception, match=r"gelu: x0 has shape|x0.* has shape "):  # before torch 2.14 in pieces
        compiled(x, torch.randn(3, 5), at)


def test_arguments_by_place_and_by_name():
    x = torch.randn(3)
    expected = ops.secant(x, x - 1, "tanh", "rescale")
    for found in (ops.secant(x, x - 1, "tanh"), ops.secant(x, x0=x - 1, variant="rescale", function="tanh")):
        assert all(map(torch.equal, found, expected))
    for wrong in ({"x1": x}, {"x": x, "x0": x, "function": "tanh", "axis": 0}, {"x": x}):
        with pytest.raises(TypeError, match="secant"):
            ops.secant(**wrong)
    with pytest.raises(TypeError, match="secant"):
        ops.secant(x, x, "tanh", "rescale", 1)


@pytest.mark.parametrize("name", ops.SCHEMAS)
def test_documentation_has_every_argument_with_its_shape(name):
    text = inspect.getdoc(getattr(ops, name))
    described = text[text.index("Args:") : text.index("Returns:")]
    for argument in OPS[name].arguments:
        assert argument in described.replace(",", " ").replace(":", " ").split(), argument
    for _, tensor in OPS[name].tensors:
        assert f"    {tensor.name}: " in text
        assert str(tensor) in text[text.index("Tensors:") : text.index("Results:")]
    assert text.index("Raises:") > text.index("Returns:")
