"""Times modules without PyHealth on one thread: ours by rule set, Captum's DeepLift, tangermeme, forward + backward.

The calls take turns in one process. Goals are in `generic_cases.py`; nothing is asserted on speed. `BENCH_ROUNDS` sets
the number of rounds, and `python benchmarks/generic_results.py` shows the results of `results/generic.json`.
"""

import copy
import functools
import importlib
import importlib.util
import warnings

import generic_results
import pytest
import torch
from generic_cases import CASES, Case, make
from generic_results import BOTH_WAYS, CAPTUM, MISSING, OURS, TANGERMEME
from timing import ROUNDS, Call

from deeplift_fast import attribute

TARGET = 1
NOT_ONE_HOT = "no one-hot sequence"


@pytest.fixture(autouse=True)
def _one_thread_and_no_warnings():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


def _both_ways(model, x) -> Call:
    """The output, and its gradient at the input."""

    def call():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(model(leaf)[:, TARGET].sum(), leaf)

    return call


def _captum(model, x, baseline) -> Call | str:
    if importlib.util.find_spec("captum") is None:
        return MISSING
    explainer = importlib.import_module("captum.attr").DeepLift(copy.deepcopy(model))
    return functools.partial(explainer.attribute, x, baseline, target=TARGET)


def _tangermeme(case: Case, model, x, baseline) -> Call | str:
    if not case.letters:
        return NOT_ONE_HOT
    if importlib.util.find_spec("tangermeme") is None:
        return MISSING
    explain = importlib.import_module("tangermeme.deep_lift_shap").deep_lift_shap
    options = {"references": baseline.unsqueeze(1), "target": TARGET, "device": "cpu", "batch_size": len(x)}
    return functools.partial(explain, copy.deepcopy(model), x, **options)


@pytest.mark.parametrize("name", CASES)
def test_attribute(in_turn, benchmark, name):
    benchmark.group = "modules without PyHealth"
    case = CASES[name]
    model, x, baseline = make(case)
    ours = {rules: functools.partial(attribute, model, x, baseline, target=TARGET, rules=rules) for rules in OURS}
    others = {CAPTUM: _captum(model, x, baseline), TANGERMEME: _tangermeme(case, model, x, baseline)}
    calls = ours | {key: call for key, call in others.items() if not isinstance(call, str)}
    medians = in_turn(calls | {BOTH_WAYS: _both_ways(model, x)}, ROUNDS)
    generic_results.update(name, {key: medians.get(key, others.get(key)) for key in generic_results.NAMES}, ROUNDS)
