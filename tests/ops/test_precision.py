"""The precision of float32 products: full inside, as before outside, whatever was set and however one leaves."""

import ast
import threading
import warnings
from pathlib import Path

import pytest
import torch
from precision_cases import SETTINGS, all_full, fresh_settings, in_force, readable, reset, state

import deeplift_fast
from deeplift_fast.ops import naive, registry
from deeplift_fast.ops.precision import description, full_precision, in_full_precision, reduced

OPS = Path(deeplift_fast.__file__).parent / "ops"
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm", "matmul", "einsum", "linear", "mv", "addmv"}

pytestmark = pytest.mark.usefixtures("fresh_settings")
__all__ = ["fresh_settings"]


@pytest.mark.parametrize("first", SETTINGS)
def test_full_inside_and_as_before_outside(first):
    for second in SETTINGS:
        reset()
        SETTINGS[first]()
        SETTINGS[second]()
        before, known = state(), readable()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with full_precision():
                assert all_full()
                # A model may read the older settings, which contradict nothing.
                assert readable().items() >= dict.fromkeys(known, False).items() - {("matmul_precision", False)}
        assert state() == before, (first, second)


def test_an_error_restores_the_settings():
    SETTINGS["medium"]()
    before = state()
    with pytest.raises(KeyError), full_precision():
        raise KeyError
    assert state() == before


def test_a_call_within_a_call_restores_nothing():
    SETTINGS["high"]()
    before = state()
    with full_precision():
        with full_precision():
            pass
        assert all_full()
    assert state() == before


def test_the_last_of_several_threads_restores_the_settings():
    SETTINGS["high"]()
    before = state()
    entered, leave = threading.Event(), threading.Event()
    inside = []

    @in_full_precision
    def other():
        entered.set()
        leave.wait()
        inside.append(all_full())

    thread = threading.Thread(target=other)
    with full_precision():
        thread.start()
        entered.wait()
    assert all_full()
    leave.set()
    thread.join()
    assert inside == [True]
    assert state() == before


def test_a_thread_that_comes_later_sets_what_was_changed_meanwhile():
    entered, leave = threading.Event(), threading.Event()
    torch.backends.cudnn.allow_tf32 = False

    @in_full_precision
    def other():
        entered.set()
        leave.wait()

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    SETTINGS["high"]()
    before = state()
    with full_precision():
        assert all_full()
    leave.set()
    thread.join()
    assert state() == before


def test_a_setting_that_the_model_changes_stays():
    SETTINGS["high"]()
    with full_precision():
        SETTINGS["medium"]()
    assert torch.get_float32_matmul_precision() == "medium"
    assert in_force()["mkldnn.matmul"] == "bf16"


def test_settings_that_are_full_are_left_alone(monkeypatch):
    torch.backends.cudnn.allow_tf32 = False

    def refuse(*given):
        raise AssertionError(given)

    monkeypatch.setattr("deeplift_fast.ops.precision._set", refuse)
    with full_precision():
        assert all_full()


def test_reduced_settings_are_named_inside_too():
    SETTINGS["medium"]()
    expected = {"mkldnn.matmul": "bf16", "cudnn.conv": "tf32", "cudnn.rnn": "tf32", "cuda.matmul": "tf32"}
    assert reduced() == expected
    with full_precision():
        assert reduced() == expected
        assert description("cpu") == "full (ieee), although torch.backends sets mkldnn.matmul to bf16"
    on_gpu = "cudnn.conv to tf32, cudnn.rnn to tf32, cuda.matmul to tf32"
    assert description("cuda") == f"full (ieee), although torch.backends sets {on_gpu}"
    reset()
    SETTINGS["all"]()
    with full_precision():
        assert reduced()["all"] == "tf32"
        assert "sets all to tf32" in description("cpu")
    SETTINGS["highest"]()
    torch.backends.fp32_precision = "ieee"
    torch.backends.cudnn.allow_tf32 = False
    assert description("cpu") == description("cuda") == "full (ieee), as set"


def _calls(path):
    """The calls and operators of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, {keyword.arg: keyword.value for keyword in node.keywords}
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            yield "matmul", {}


@pytest.mark.parametrize("folder", ["naive", "triton"])
def test_ops_with_products_are_named(folder):
    found = {path.stem for path in (OPS / folder).glob("*.py") if any(name in PRODUCTS for name, _ in _calls(path))}
    assert found <= {*registry.PRODUCTS}


def test_products_in_kernels_name_their_precision():
    """Triton's own choice for float32 is TF32."""
    for path in (OPS / "triton").glob("*.py"):
        for name, named in _calls(path):
            if name == "dot":
                value = named.get("input_precision")
                text = "" if value is None else ast.unparse(value)
                assert "tf32x3" in text or "ieee" in text or text.isidentifier(), f"{path.name}: {text}"


def test_an_op_with_products_runs_in_full_precision(monkeypatch):
    SETTINGS["medium"]()
    seen = []
    monkeypatch.setitem(naive.FUNCTIONS, "attention", lambda *given: seen.append(in_force()))
    monkeypatch.setattr(registry, "check", lambda *given: {})
    monkeypatch.setattr(registry, "VALUES", {})
    monkeypatch.setattr(registry, "_launcher", lambda op: lambda *given: seen.append(in_force()))
    registry._guarded("attention")()
    registry._triton_kernel("attention_backward")()
    assert [set(each.values()) for each in seen] == [{"ieee", "none"}] * 2
    assert not all_full()
