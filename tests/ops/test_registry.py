"""Which implementation serves which op on which device, and that all of them answer to one signature.

What happens where a backend is missing stands in `tests/test_package.py`.
"""

import inspect
import os
from pathlib import Path

import pytest
import torch

from deeplift_fast import ops
from deeplift_fast.ops import naive, registry
from deeplift_fast.ops.specs import stem_of

ROOT = Path(__file__).parents[2]
IN_CPP = {op for op in ops.SCHEMAS if any(f'm.impl("{op}",' in f.read_text() for f in (ROOT / "csrc").glob("*.cpp"))}
IN_TRITON = [op for op in ops.SCHEMAS if (ROOT / f"deeplift_fast/ops/triton/{stem_of(op)}.py").exists()]


def test_every_backend_is_listed_and_says_why_it_is_missing():
    found = {backend.name: backend for backend in ops.backends()}
    assert {name: backend.device for name, backend in found.items()} == {"naive": "any", "C++": "cpu", "Triton": "cuda"}
    assert found["naive"].missing is None
    for backend in found.values():
        assert backend.missing is None or len(backend.missing) > 10


@pytest.mark.parametrize("op", ops.SCHEMAS)
def test_the_cpp_library_serves_the_cpu(op):
    missing = next(backend.missing for backend in ops.backends() if backend.name == "C++")
    if missing and os.environ.get("DEEPLIFT_FAST_REQUIRE_CPP", "0") in ("", "0"):
        pytest.skip(missing)
    assert missing is None
    assert ops.backend_for(op, "cpu") == ("C++" if op in IN_CPP else "naive")


@pytest.mark.parametrize("op", ops.SCHEMAS)
def test_plain_torch_serves_devices_without_a_kernel(op):
    assert ops.backend_for(op, "xpu") == "naive"
    assert ops.backend_for(op, "meta") == "naive"


@pytest.mark.parametrize("device", ["cpu", "cuda", "elsewhere"])
def test_unknown_ops_are_refused(device):
    with pytest.raises(KeyError, match="op is 'softplus'; accepted: secant"):
        ops.backend_for("softplus", device)


def test_kernels_are_found():
    """In plain torch on the CPU: where kernels would save little, and what only the route for GPUs takes.

    In plain torch on CUDA: what only the route for CPUs takes.
    """
    plain = {"gated_sum", "lockstep", "lockstep_backward"}
    plain |= {"token_survey", "value_survey", "token_rows", "value_rows", "target"}
    on_cpu = {"few_rows", "few_rows_backward", "token_layers", "token_layers_backward"}
    assert IN_CPP | plain == {*IN_TRITON, *on_cpu}
    assert not IN_CPP & plain


@pytest.mark.parametrize("op", ops.SCHEMAS)
def test_the_naive_implementation_has_the_signature_of_the_schema(op):
    schema = getattr(torch.ops.deeplift_fast, op).default._schema
    assert list(inspect.signature(getattr(naive, op)).parameters) == [argument.name for argument in schema.arguments]
    written = [argument.name for argument in schema.arguments if argument.is_write]
    assert written == (["coefficients"] if op in ("recurrent", "lockstep") else [])


@pytest.mark.parametrize("op", IN_TRITON)
def test_triton_serves_cuda_with_the_signature_of_the_schema(op):
    pytest.importorskip("triton")
    schema = getattr(torch.ops.deeplift_fast, op).default._schema
    launcher = registry._launcher(op)
    assert ops.backend_for(op, "cuda") == "Triton"
    assert list(inspect.signature(launcher).parameters) == [argument.name for argument in schema.arguments]


def test_the_dispatcher_calls_the_cpp_library_on_the_cpu():
    if ops.backend_for("secant", "cpu") != "C++":
        pytest.skip("the C++ library is not built")
    x = torch.linspace(-20, 20, 4001)
    by_dispatch, by_naive = ops.secant(x, x - 1, "tanh"), naive.secant(x, x - 1, "tanh", "rescale")
    assert any(not torch.equal(a, b) for a, b in zip(by_dispatch, by_naive, strict=True)), "naive served the CPU"
