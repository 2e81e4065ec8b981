"""Attribution leaves no trace on the process, and does not mind its state: generators, gradient modes, threads."""

import collections
import contextlib
import random
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deeplift_fast import InterceptionError, attribute

pytestmark = pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw_all():
    return torch.rand(()).item(), random.random(), np.random.random()  # noqa: NPY002


@pytest.mark.parametrize("fails_at", [None, "baseline", "input", "target at baseline", "target at input"])
def test_random_generators_are_as_before(fails_at, untouched):
    class Fault(Exception):
        pass

    calls = collections.Counter()

    def fail(where):
        calls[where] += 1
        draw_all()
        if fails_at == f"{where}baseline" and calls[where] == 1:
            raise Fault
        if fails_at == f"{where}input" and calls[where] == 2:
            raise Fault

    def target(output):
        fail("target at ")
        return output[:, 0]

    class Drawing(nn.Module):
        def forward(self, x):
            draws.append(draw_all())
            fail("")
            return x

    draws = []
    model = Drawing()
    with untouched(model):
        if fails_at is None:
            attribute(model, normal(4, 3), target=target)
        else:
            with pytest.raises(Fault):
                attribute(model, normal(4, 3), target=target)
    assert len(set(draws)) == 1, "the two streams drew different numbers"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(mode, untouched):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    expected = attribute(model, normal(4, 3), normal(4, 3, seed=1), target=0).contributions
    with mode(), untouched(model):
        x, x0 = normal(4, 3), normal(4, 3, seed=1)
        found = attribute(model, x, x0, target=0).contributions
    torch.testing.assert_close(found, expected)


def test_everything_may_be_made_in_inference_mode():
    linear = nn.Linear(3, 3)
    with torch.inference_mode():
        x, x0, mask, target = normal(4, 3), normal(3), torch.ones(4, 3), torch.tensor([0, 1, 2, 0])
        found = attribute(lambda x, mask: torch.relu(linear(x)) * mask, x, x0, target, forward_args=(mask,))
    expected = attribute(lambda x: torch.relu(linear(x)), normal(4, 3), normal(3), torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(found.contributions, expected.contributions)


@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.parametrize("mode", [contextlib.nullcontext, torch.inference_mode])
@pytest.mark.parametrize("training", [False, True])  # in training mode statistics are written
@pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning", "ignore::deeplift_fast.TrainingModeWarning")
def test_a_model_may_be_made_in_inference_mode(mode, rules, training, untouched):
    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.5), nn.Tanh(), nn.Linear(4, 2)).train(
            training
        )

    expected = attribute(made(), normal(4, 3), target=0, rules=rules)
    with torch.inference_mode():
        model = made()
    with mode(), untouched(model):
        found = attribute(model, normal(4, 3), target=0, rules=rules)
    torch.testing.assert_close(found.contributions, expected.contributions)
    torch.testing.assert_close(found.output, expected.output)
    assert all(parameter.is_inference() for parameter in model.parameters())


@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_a_tensor_of_inference_that_no_module_holds_is_refused(rules):
    with torch.inference_mode():
        weight = normal(3, 3)

    with pytest.raises(InterceptionError, match=r"model computes with .*inference_mode.* accepted: .* Clone"):
        attribute(lambda x: torch.relu(x @ weight), normal(4, 3), target=0, rules=rules)


def test_part_of_a_model_may_run_in_inference_mode():
    scale = torch.ones(3)

    def model(x):
        with torch.inference_mode():
            gate = torch.sigmoid(scale * 2)
        return torch.relu(x) * gate.sum().item()

    found = attribute(model, normal(4, 3), target=0)
    torch.testing.assert_close(found.contributions.sum(1), found.output - found.baseline_output)


def test_a_model_that_runs_in_inference_mode_has_no_gradient():
    @torch.inference_mode()
    def model(x):
        return torch.relu(x)

    with pytest.raises(
        InterceptionError, match="the output does not depend on the inputs through PyTorch's operations"
    ):
        attribute(model, normal(4, 3), target=0)


def test_gradients_after_an_attribution_under_autocast():
    """The casts that autocast keeps must not come from a pass without gradients."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.autocast("cpu", torch.bfloat16):
        attribute(model, normal(4, 3), target=0)
        model(normal(4, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def in_threads(work, count=4):
    """The results of `count` calls at once, or the first exception."""
    results, errors = {}, []
    barrier = threading.Barrier(count)

    def run(index):
        try:
            barrier.wait()
            results[index] = work(index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[index] for index in range(count)]


def assert_threads_agree(model, repeats=25, count=4):
    inputs = [normal(4, 3, seed=index) for index in range(count)]
    state = torch.get_rng_state()
    alone = [attribute(model, x, target=0).contributions for x in inputs]

    def work(index):
        return [attribute(model, inputs[index], target=0).contributions for _ in range(repeats)]

    for expected, found in zip(alone, in_threads(work, count), strict=True):
        assert all(torch.equal(one, expected) for one in found)
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_may_share_a_model(untouched):
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    with untouched(model):
        assert_threads_agree(model)


def test_threads_may_share_a_model_that_writes_to_itself(untouched):
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.history = []
            self.cache = {}

        def forward(self, x):
            self.mean.mul_(0.9).add_(x.detach().mean(0))
            self.history.append(x)
            for index in range(20):
                setattr(self, f"seen by {threading.get_ident()}, {index}", x)
                self.cache[threading.get_ident(), index] = x
            self.hidden = hidden = x + self.mean
            return hidden.relu_()

    model = Writing()
    with untouched(model):
        assert_threads_agree(model)


def test_one_thread_may_attribute_while_another_is_inside_the_same_model(untouched):
    class Meeting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.gate = nn.Sigmoid()

        def forward(self, x):
            h = self.gate(self.linear(x))
            if threading.current_thread() is not threading.main_thread():
                inside.wait(timeout=30)  # raises unless both threads are in here at once
            self.last = h
            return F.relu(h - 0.5)

    model = Meeting()
    inside = threading.Barrier(2)
    with untouched(model):
        inputs = [normal(4, 3, seed=index) for index in range(2)]
        alone = [attribute(model, x, target=0).contributions for x in inputs]
        found = in_threads(lambda index: attribute(model, inputs[index], target=0).contributions, count=2)
    assert all(torch.equal(one, expected) for one, expected in zip(found, alone, strict=True))
    assert not hasattr(model, "last")


@pytest.mark.filterwarnings("ignore::deeplift_fast.TrainingModeWarning")
def test_threads_may_share_a_model_that_draws_random_numbers(untouched):
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    with untouched(model):
        assert_threads_agree(model)


def test_an_attribution_inside_a_model():
    inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    def model(x):
        weights = attribute(inner, x.detach(), target=0).contributions
        return torch.relu(x) * weights.detach()

    found = attribute(model, normal(4, 3), target=1)
    assert found.contributions.shape == (4, 3)
