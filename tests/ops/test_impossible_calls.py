"""Raw calls of torch.ops with arguments that cannot be: each gives a result or an error, and the process lives on."""

import sys
from pathlib import Path

import processes
import pytest
import torch
from valid_calls import valid_calls

from deeplift_fast import ops

TESTS = Path(__file__).parents[1]
CALLS = valid_calls()
LIMIT = 240  # seconds; about 10 of one core's

pytestmark = pytest.mark.skipif(
    ops.backend_for("secant", "cpu") != "C++", reason="the C++ library is not built; PyTorch's own operations may end"
)


@pytest.fixture(scope="module")
def outcomes():
    """How each call ended, by what it was."""
    done = processes.run([sys.executable, str(TESTS / "impossible_calls.py")], LIMIT)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"ended with {done.returncode} in: {lines[-1:]}\n{done.stderr[-2000:]}"
    return dict(line.split("\t", 1) for line in lines)


def test_every_op_is_called():
    assert {op.split(",")[0] for op in CALLS} == set(ops.SCHEMAS)
    for op, given in CALLS.items():
        schema = getattr(torch.ops.deeplift_fast, op.split(",")[0]).default._schema
        assert list(given) == [argument.name for argument in schema.arguments], op


def test_no_call_ends_the_process(outcomes):
    assert outcomes["all: done"] == "result"
    assert len(outcomes) > 3000


@pytest.mark.parametrize("op", CALLS)
def test_valid_calls_give_results_and_impossible_ones_errors(outcomes, op):
    mine = {text.removeprefix(f"{op}: "): how for text, how in outcomes.items() if text.startswith(f"{op}: ")}
    assert mine["as it is in torch.float32"] == mine["as it is in torch.float64"] == "result"
    for name, value in CALLS[op].items():
        if isinstance(value, torch.Tensor):
            assert mine[f"{name} in one more dimension"].startswith("error")
            assert mine[f"{name} in torch.int32"].startswith("error")
        if isinstance(value, int) and not isinstance(value, bool):
            for number in (-1, 2**31 - 1, 2**31, 2**62):
                assert mine[f"{name} {number}"].startswith("error") or (name, number) in (("dim", -1), ("chosen", -1))


@pytest.mark.parametrize(
    ("op", "change", "message"),
    [
        ("stage_window", {"levels": 2**31}, "levels is 2147483648; accepted: a divisor of the 8 units of h"),
        ("stage_window", {"hidden": 10}, "hidden is 10; accepted: a multiple of levels, 0 to the 8 units"),
        ("attention", {"looks": torch.ones(0, dtype=torch.bool)}, r"looks is bool of shape \[0\]; .* of shape \[3\]"),
        ("attention", {"starts": torch.tensor([0, 9, 5])}, "starts must rise from 0 to 5"),
        ("attention", {"asked": torch.zeros(2, 3, 0), "rows": torch.zeros(6, 0)}, "asked has rows of no numbers"),
        ("attention_backward", {"where": torch.tensor([0, 2])}, "where holds numbers outside 0 to 1"),
        ("gelu", {"x0": torch.zeros(5, 2).mT}, "x0 is not contiguous; pass x0.contiguous"),
        ("gelu", {"x0": torch.zeros(2, 5).half()}, r"x0 is Half of shape \[2, 5\]; accepted: float32"),
        ("recurrent, gru", {"levels": 1}, "levels is 1; accepted: 0"),
        ("recurrent, gru", {"counts": torch.tensor([2, 2**62, 1])}, "counts must fall from step to step"),
        ("recurrent, gru", {"where": torch.tensor([0, 5])}, "where names a baseline that does not exist"),
        ("recurrent_backward, gru", {"inputs": -1}, "inputs is -1; accepted: 0 or more"),
        ("lockstep", {"steps": [2**31, 2]}, "accepted"),
        ("convergence", {"totals": torch.zeros(0, 3).double()}, "totals has no row"),
        ("token_contributions", {"tokens": torch.full((3, 2), 6)}, "tokens holds numbers outside 0 to 5"),
    ],
)
def test_errors_name_the_argument(op, change, message):
    call = getattr(torch.ops.deeplift_fast, op.split(",")[0])
    with pytest.raises((RuntimeError, ValueError), match=message):
        call(*(CALLS[op] | change).values())


@pytest.mark.parametrize("op", ["secant", "gelu", "stage_window"])
def test_a_tensor_whose_memory_was_freed_is_refused(op):
    given = valid_calls()[op]
    name = next(iter(given))
    given[name].untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=f"{name} has no memory"):
        getattr(torch.ops.deeplift_fast, op)(*given.values())


def test_rows_without_slots_take_no_time():
    found = torch.ops.deeplift_fast.token_contributions(
        torch.zeros(2, 0), torch.zeros(2**60, 0, dtype=torch.int64), torch.zeros(2**60, 0, dtype=torch.int64),
        torch.zeros(2**60, 0),
    )  # fmt: skip
    assert found.shape == (2**60, 0)
