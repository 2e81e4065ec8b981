"""The report names what no rule makes complete, with its share; and what users can do about it."""

import pytest
import torch
from torch import nn

from deeplift_fast import ConvergenceWarning, attribute
from deeplift_fast.core.cancellation import Cancellation
from deeplift_fast.core.diagnostics import Tally, of_one
from deeplift_fast.rules import register_rule, unregister_rule

MIX = torch.linspace(-1, 1, 25, dtype=torch.float64).reshape(5, 5)
COLUMNS = torch.arange(1.0, 6.0, dtype=torch.float64)


class Exponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].exp()


@torch.library.custom_op("deeplift_fast_tests::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


cube.register_autograd(
    lambda ctx, gradient: gradient * 3 * ctx.saved_tensors[0] ** 2,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def normal(seed):
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def found_with(call, **options):
    return attribute(
        lambda x: (call(x) * COLUMNS).sum(1, keepdim=True), normal(0), normal(1), 0, rules="complete", **options
    )


def _no_gradient(x):
    with torch.no_grad():
        spread = (x @ MIX).std(1, keepdim=True)
    return (x @ MIX) * spread


def _assigned(x):
    h = x @ MIX
    h[x > 0] = 0.0
    return h


INCOMPLETE = {
    "sort": (lambda x: (x @ MIX).exp().sort(-1)[0], "sort", "gradient"),
    "topk": (lambda x: torch.cat([(x @ MIX).topk(2, -1).values.exp(), x[:, :3]], 1), "topk", "gradient"),
    "a custom function": (lambda x: Exponential.apply(x @ MIX), "Exponential", "own backward"),
    "a mask that differs": (lambda x: (x @ MIX) * (x > 0), "mul", "gradient"),
    "a floating-point mask that differs": (lambda x: (x @ MIX) * (x > 0).double(), "mul", "gradient"),
    "where": (lambda x: torch.where(x > 0, x @ MIX, x.exp()), "where", "gradient"),
    "masked_fill": (lambda x: (x @ MIX).masked_fill(x > 0.3, -1.0), "masked_fill", "gradient"),
    "index assignment": (_assigned, "setitem", "gradient"),
    "an index from argmax": (lambda x: (x @ MIX).gather(1, x.argmax(1, keepdim=True)).exp() + x, "gather", "gradient"),
    "a number out of the data": (lambda x: (x @ MIX) * float(x.sum()), "mul", "gradient"),
    "values without gradient": (_no_gradient, "mul", "gradient"),
}


@pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")
@pytest.mark.parametrize("name", INCOMPLETE)
def test_what_is_incomplete_is_attributed_named_and_weighed(name):
    call, operation, rule = INCOMPLETE[name]
    found = found_with(call)
    assert found.convergence_delta.abs().max() > 1e-3
    worst = next(iter(found.report))
    assert (worst.operation, worst.rule) == (operation, rule)
    assert worst.delta == pytest.approx(float(found.convergence_delta.sum()), rel=1e-9)
    assert worst.share == pytest.approx(1.0)
    assert all(row.delta == 0 for row in list(found.report)[1:])
    assert f"{operation}  " in str(found.report)
    assert "100.0%" in str(found.report)


@pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")
def test_shares_add_up():
    found = found_with(lambda x: (x @ MIX).exp().sort(-1)[0] + Exponential.apply(x) * (x > 0))
    rows = {row.operation: row for row in found.report}
    assert {"sort", "mul", "Exponential"} <= set(rows)
    assert sum(row.delta for row in found.report) == pytest.approx(float(found.convergence_delta.sum()))
    assert sum(row.share for row in found.report) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")
@pytest.mark.parametrize("steps", [1, 3])
def test_control_flow_that_differs_is_attributed_by_gradient(steps):
    def call(x):
        h = x @ MIX
        h = h.exp().sigmoid() if float(x[0, 0]) == float(normal(0)[0, 0]) else h.tanh()
        return (h @ MIX).sigmoid()

    found = found_with(call, steps=steps)
    assert any(row.rule == "gradient, no partner" for row in found.report)
    assert found.contributions.isfinite().all()
    assert found.contributions.abs().max() > 0


def test_the_report_counts_every_operation_and_its_rule():
    found = found_with(lambda x: torch.softmax(torch.relu(x @ MIX) * x, -1))
    rows = {(row.operation, row.rule): row.count for row in found.report}
    assert rows["relu", "secant"] == 1
    assert rows["softmax", "log-mean"] == 1
    assert rows["mul", "midpoint"] == 1
    assert rows["matmul", "linear"] == 1
    assert len(found.report) == len(rows)


def test_rescale_reports_its_activations_and_the_rest_together():
    found = attribute(lambda x: (torch.relu(x @ MIX) ** 2).sum(1), normal(0), normal(1))
    rows = {row.operation: row for row in found.report}
    assert rows["relu"].rule == "secant"
    assert rows["relu"].delta == 0
    assert rows["(elsewhere)"].delta == pytest.approx(float(found.convergence_delta.sum()))


class TestWarning:
    def test_comes_with_the_number_of_samples(self):
        with pytest.warns(ConvergenceWarning, match=r"of 6 samples: contributions miss .* by more than 0.01 of it"):
            found_with(lambda x: (x @ MIX) * (x > 0))

    def test_goes_by_its_tolerance(self, recwarn):
        found_with(lambda x: (x @ MIX) * (x > 0), delta_tol=1e6)
        found_with(torch.exp, delta_tol=0)
        assert not recwarn.list


class TestRegisteredRules:
    @pytest.fixture(autouse=True)
    def forget(self):
        yield
        for fn in (Exponential, cube, torch.sort, torch.special.log_ndtr):
            unregister_rule(fn)

    def test_a_custom_function_becomes_complete(self):
        register_rule(Exponential, torch.exp)
        found = found_with(lambda x: Exponential.apply(x @ MIX))
        assert found.convergence_delta.abs().max() < 1e-10
        torch.testing.assert_close(found.contributions, found_with(lambda x: torch.exp(x @ MIX)).contributions)
        leaf = torch.ones(2, requires_grad=True)
        Exponential.apply(leaf).sum().backward()  # outside attribution, all is as it was
        torch.testing.assert_close(leaf.grad, torch.ones(2).exp())

    @pytest.mark.parametrize("rule", ["elementwise", "quadrature"])
    def test_a_custom_operator_by_the_name_of_a_rule(self, rule):
        register_rule(cube, rule)
        found = found_with(lambda x: cube(x @ MIX))
        assert found.convergence_delta.abs().max() < 1e-9
        rule = {"elementwise": "secant"}.get(rule, rule)
        assert ("deeplift_fast_tests::cube", rule) in {(row.operation, row.rule) for row in found.report}

    def test_as_a_decorator_written_in_other_operations(self):
        @register_rule(torch.special.log_ndtr)
        def log_ndtr(x):
            return torch.log(torch.special.ndtr(x))

        found = found_with(torch.special.log_ndtr)
        assert found.convergence_delta.abs().max() < 1e-10
        assert {"special_ndtr", "log"} <= {row.operation for row in found.report}

    @pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")
    def test_takes_the_place_of_the_rule_that_was_there(self):
        register_rule(torch.exp, "gradient")
        try:
            assert found_with(torch.exp).convergence_delta.abs().max() > 1e-2
        finally:
            unregister_rule(torch.exp)
        assert found_with(torch.exp).convergence_delta.abs().max() < 1e-10

    def test_refusals(self):
        with pytest.raises(TypeError, match="PyTorch cannot intercept"):
            register_rule(lambda x: x, "linear")
        with pytest.raises(ValueError, match="rule is 'secant'; accepted: 'linear'"):
            register_rule(torch.exp, "secant")
        with pytest.raises(TypeError, match="rule is a int"):
            register_rule(torch.exp, 3)


def test_compiled_models_are_looked_into():
    model = torch.compile(nn.Sequential(nn.Linear(5, 4), nn.Softmax(-1)).double())
    assert attribute(model, normal(0), normal(1), 0, rules="complete").convergence_delta.abs().max() < 1e-12


@pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning", "ignore::deeplift_fast.ConvergenceWarning")
def test_a_path_that_differs_keeps_the_counts_of_earlier_segments():
    def branching(x):
        y = torch.tanh(x)
        return (torch.sigmoid(y) if bool((x > 0.75).all()) else y).sum(1, keepdim=True)

    x = torch.ones(2, 3, dtype=torch.float64)
    found = attribute(branching, x, 0.0, 0, rules="complete", steps=4)
    counts = {row.operation: row.count for row in found.report if row.rule == "secant"}
    assert counts["tanh"] == 4


@pytest.mark.parametrize("delta", [0.5, -0.5, 0.05, 0.0, float("nan"), float("inf")])
def test_a_report_of_one_kind_of_operation_is_that_of_a_tally(delta):
    tally = Tally()
    for _ in range(2):
        tally.count("layer", "fused")
    one = torch.ones(1)
    assert repr(of_one("layer", "fused", 2, delta, 0.1, None)) == repr(tally.report_of(delta, 0.1))
    assert of_one("layer", "fused", 2, delta, 0.1, Cancellation([one], one, one)).cancellation.median == float("inf")
