"""secant under autograd, torch.compile, torch.func.grad and fake tensors."""

import pytest
import torch
from torch.func import grad, jvp

from deeplift_fast import ops

FUNCTIONS = ("relu", "sigmoid", "tanh")
VARIANTS = ("rescale", "pyhealth")


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("required", [(True, True), (True, False), (False, True)])
def test_results_carry_no_gradient(function, variant, required):
    x, x0 = (normal(3, 4, seed=i).requires_grad_(flag) for i, flag in enumerate(required))
    for result in (*ops.secant(x, x0, function, variant), *ops.secant(x * 2, x0 * 2, function, variant)):
        assert not result.requires_grad
        assert result.grad_fn is None
        assert not result.is_inference()


def test_results_can_be_written_to_and_saved():
    weight = normal(5).requires_grad_()
    y, _, multiplier = ops.secant(weight, weight - 1, "tanh")
    (weight * multiplier).sum().backward()
    assert torch.equal(weight.grad, multiplier)
    y.zero_()


def test_inference_mode():
    with torch.inference_mode():
        x = normal(5)
        found = ops.secant(x, x - 1, "tanh")
    assert_same(found, ops.secant(normal(5), normal(5) - 1, "tanh"))


def test_functional_derivatives_are_zero_not_false():
    x = normal(5)
    assert torch.equal(grad(lambda t: ops.secant(t, t - 1, "tanh")[2].sum())(x), torch.zeros(5))
    value, tangent = jvp(lambda t: ops.secant(t, t - 1, "tanh")[0].sum(), (x,), (x,))
    torch.testing.assert_close(value, torch.tanh(x).sum())
    assert tangent == 0


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_into_one_graph(backend):
    @torch.compile(fullgraph=True, backend=backend)
    def compiled(x, x0):
        y, y0, multiplier = ops.secant(x * 2, x0 * 2, "tanh")
        return y + 1, y0, multiplier * ops.secant(x, x0, "relu", "pyhealth")[2]

    for shape in ((4, 5), (6, 5), (3, 2)):
        x, x0 = normal(*shape), normal(*shape, seed=1)
        y, y0, multiplier = ops.secant(x * 2, x0 * 2, "tanh")
        assert_same(compiled(x, x0), (y + 1, y0, multiplier * ops.secant(x, x0, "relu", "pyhealth")[2]))


def test_compiled_results_carry_no_gradient():
    compiled = torch.compile(lambda x, x0: ops.secant(x, x0, "tanh"), fullgraph=True, backend="aot_eager")
    x = normal(4).requires_grad_()
    found = compiled(x, x - 1)
    assert not any(result.requires_grad for result in found)
    assert_same(found, ops.secant(x, x - 1, "tanh"))


def test_compiles_with_strides_of_any_kind():
    compiled = torch.compile(lambda x, x0: ops.secant(x, x0, "sigmoid"), fullgraph=True, backend="aot_eager")
    x, x0 = normal(6, 8).t()[::2], normal(4, 6, seed=1)
    for a, b in zip(compiled(x, x0), ops.secant(x, x0, "sigmoid"), strict=True):
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


def test_compiling_tells_of_arguments_that_do_not_fit():
    compiled = torch.compile(lambda x, x0: ops.secant(x, x0, "relu"), fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="nothing is broadcast"):
        compiled(normal(2, 3), normal(1, 3))


def test_meta_tensors_give_shapes():
    x = torch.empty(3, 4, device="meta", dtype=torch.float16)
    for result in ops.secant(x, x, "tanh"):
        assert (result.shape, result.dtype, result.device.type) == ((3, 4), torch.float16, "meta")


SAMPLES = {
    "plain": lambda: (normal(3, 4), normal(3, 4, seed=1)),
    "float64": lambda: (normal(3, dtype=torch.float64), normal(3, seed=1, dtype=torch.float64)),
    "float16": lambda: (normal(5, dtype=torch.float16), normal(5, seed=1, dtype=torch.float16)),
    "bfloat16": lambda: (normal(5, dtype=torch.bfloat16), normal(5, seed=1, dtype=torch.bfloat16)),
    "requires grad": lambda: (normal(3, 4).requires_grad_(), normal(3, 4, seed=1).requires_grad_()),
    "baseline requires grad": lambda: (normal(3, 4), normal(3, 4, seed=1).requires_grad_()),
    "transposed": lambda: (normal(4, 3).t(), normal(3, 4, seed=1)),
    "sliced": lambda: (normal(6, 8)[::2, 1::3], normal(6, 8, seed=1)[::2, 1::3]),
    "expanded": lambda: (normal(1, 4).expand(3, 4), normal(3, 4, seed=1)),
    "channels last": lambda: (normal(2, 3, 4, 4).contiguous(memory_format=torch.channels_last), normal(2, 3, 4, 4)),
    "0-d": lambda: (normal(), normal(seed=1)),
    "no elements": lambda: (normal(0, 3), normal(0, 3, seed=1)),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_opcheck(sample, variant):
    torch.library.opcheck(torch.ops.deeplift_fast.secant, (*SAMPLES[sample](), "tanh", variant))
