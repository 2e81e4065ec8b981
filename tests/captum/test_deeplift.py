"""Captum's interface: its published expected values, and models that it refuses or gets wrong."""

import inspect

import pytest
import torch
from torch import nn

from deeplift_fast import captum
from deeplift_fast.captum import DeepLift, DeepLiftShap


class TwoReLUs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.ReLU(), nn.ReLU()

    def forward(self, a, b, factor=2):
        return factor * self.first(a) + factor * self.second(b - 1.5)


class Tanhs(nn.Module):
    def forward(self, a, b):
        return 2 * torch.tanh(a) + 2 * torch.tanh(b - 1.5)


class MaxPooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.pool, self.last = nn.Linear(4, 4, bias=False), nn.MaxPool1d(4), nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(4))
            self.last.weight.fill_(1.0)

    def forward(self, x):
        return self.last(self.pool(self.first(x.unsqueeze(1)))[:, 0])


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last, self.relu = nn.Linear(3, 2), nn.Linear(2, 2), nn.ReLU()

    def forward(self, x):
        return self.relu(self.last(self.relu(self.first(x))))


def classifier(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Softmax(-1)).double()


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestPublishedValues:
    def test_relu(self):
        inputs, baselines = (torch.tensor([1.0]), torch.tensor([2.0])), (torch.zeros(1), torch.zeros(1))
        found, delta = DeepLift(TwoReLUs()).attribute(inputs, baselines, return_convergence_delta=True)
        assert [float(a) for a in found] == [2.0, 1.0]
        assert delta.tolist() == [0.0]

    def test_relu_without_multiplying_by_inputs(self):
        found = DeepLift(TwoReLUs(), multiply_by_inputs=False).attribute((torch.tensor([1.0]), torch.tensor([2.0])))
        assert [float(a) for a in found] == [2.0, 0.5]

    def test_max_pool(self):
        baselines = torch.tensor([[1.0, 2.0, 3.0, 9.0], [4.0, 8.0, 6.0, 7.0]])
        found, delta = DeepLift(MaxPooled()).attribute(
            torch.ones(2, 4), baselines, target=0, return_convergence_delta=True
        )
        assert found.tolist() == [[0.0, 0.0, 0.0, -8.0], [0.0, -7.0, 0.0, 0.0]]
        assert delta.tolist() == [0.0, 0.0]

    def test_shap_of_four_dimensions(self):
        inputs, baselines = (torch.ones(4, 1, 1, 1), torch.full((4, 1, 1, 1), 2.0)), (torch.zeros(4, 1, 1, 1),) * 2
        found, delta = DeepLiftShap(TwoReLUs()).attribute(inputs, baselines, return_convergence_delta=True)
        assert found[0].flatten().tolist() == [2.0] * 4
        assert found[1].flatten().tolist() == [1.0] * 4
        assert delta.shape == (16,)
        assert (delta == 0).all()
        bare = DeepLiftShap(TwoReLUs(), multiply_by_inputs=False).attribute(inputs, baselines)
        assert bare[0].flatten().tolist() == [2.0] * 4
        assert bare[1].flatten().tolist() == [0.5] * 4

    @pytest.mark.parametrize("model", [TwoReLUs(), Tanhs()])
    def test_the_returned_delta_is_the_computed_one(self, model):
        inputs, explainer = (torch.tensor([-1.0, 0.3]), torch.tensor([-2.0, 4.0])), DeepLift(model)
        found, delta = explainer.attribute(inputs, (0, 0.0001), return_convergence_delta=True)
        assert torch.equal(delta, explainer.compute_convergence_delta(found, (0, 0.0001), inputs))
        assert delta.abs().max() < 1e-5


def test_modules_that_are_used_twice():
    found, delta = DeepLift(Reused()).attribute(torch.rand(4, 3), target=0, return_convergence_delta=True)
    assert found.shape == (4, 3)
    assert delta.abs().max() < 1e-6


def test_softmax_does_not_depend_on_the_rest_of_the_batch():
    model, x = classifier(), normal(5, 6)
    whole = DeepLift(model).attribute(x, target=1)
    for i in range(5):
        torch.testing.assert_close(DeepLift(model).attribute(x[i : i + 1], target=1)[0], whole[i])


@pytest.mark.parametrize("kind", ["gate", "lstm", "attention", "functional"])
def test_models_that_captum_has_no_rules_for(kind):
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 4, batch_first=True).double()
    attention = nn.MultiheadAttention(6, 2, batch_first=True).double()
    model = {
        "gate": lambda x: (x * torch.sigmoid(x.flip(-1))).sum((1, 2)),
        "lstm": lambda x: lstm(x)[0][:, -1].sum(-1),
        "attention": lambda x: attention(x, x, x)[0].sum((1, 2)),
        "functional": lambda x: nn.functional.gelu(x).exp().sum((1, 2)),
    }[kind]
    found, delta = DeepLift(model).attribute(normal(3, 4, 6), normal(3, 4, 6, seed=1), return_convergence_delta=True)
    assert delta.abs().max() < 1e-12
    assert found.abs().max() > 0


TARGETS = [2, torch.tensor(2), torch.tensor([2]), [2] * 5, torch.full((5,), 2)]


@pytest.mark.parametrize("target", TARGETS)
def test_targets_in_captums_forms(target):
    expected = DeepLift(classifier()).attribute(normal(5, 6), target=2)
    assert torch.equal(DeepLift(classifier()).attribute(normal(5, 6), target=target), expected)


def test_targets_of_outputs_with_more_dimensions():
    def model(x):
        return torch.stack([x.exp(), x.square()], 2)

    x = normal(3, 4)
    found = DeepLift(model).attribute(x, target=(1, 0))
    torch.testing.assert_close(found[:, 1], x[:, 1].exp() - 1)
    each = DeepLift(model).attribute(x, target=[(1, 0), (2, 1), (3, 0)])
    torch.testing.assert_close(each[1, 2], x[1, 2] ** 2)


def test_one_target_is_needed_where_there_are_several_outputs():
    with pytest.raises(ValueError, match=r"target is None, and the model returned shape \(5, 3\)"):
        DeepLift(classifier()).attribute(normal(5, 6))
    with pytest.raises(TypeError, match=r"returned a dict; accepted: .* target=lambda output: output\['logits'\]"):
        DeepLift(lambda x: {"logits": x}).attribute(normal(5, 1))
    with pytest.raises(ValueError, match="target is None, and the model returned one number for 5 samples"):
        DeepLift(torch.sum).attribute(normal(5, 1))
    assert DeepLift(torch.sum).attribute(normal(1, 2)).shape == (1, 2)


def test_further_arguments():
    inputs = (torch.tensor([1.0]), torch.tensor([2.0]))
    found = DeepLift(TwoReLUs()).attribute(inputs, additional_forward_args=(6,))
    assert [float(a) for a in found] == [6.0, 3.0]
    assert [float(a) for a in DeepLift(TwoReLUs()).attribute(inputs, additional_forward_args=6)] == [6.0, 3.0]


def test_custom_attribution_function():
    model, x = classifier(), normal(5, 6)
    bare = DeepLift(model, multiply_by_inputs=False).attribute(x, target=1)

    def hypothetical(multipliers, inputs, baselines):
        assert inputs[0].shape == baselines[0].shape == multipliers[0].shape
        return tuple(m * (1 - b) for m, b in zip(multipliers, baselines, strict=True))

    found = DeepLift(model).attribute(x, 0.25, target=1, custom_attribution_func=lambda m: (m[0] * 2,))
    assert found.shape == x.shape
    torch.testing.assert_close(DeepLift(model).attribute(x, target=1, custom_attribution_func=hypothetical), bare)


@pytest.mark.parametrize("explainer", [DeepLift, DeepLiftShap])
def test_path_steps(explainer):
    x, background = normal(5, 6), normal(5, 6, seed=1)
    found, delta = explainer(classifier(), steps=4).attribute(x, background, target=1, return_convergence_delta=True)
    assert delta.abs().max() < 1e-12
    assert not torch.allclose(found, explainer(classifier()).attribute(x, background, target=1))
    batched = explainer(classifier(), steps=4, segments_at_once=4).attribute(x, background, target=1)
    torch.testing.assert_close(batched, found)


def test_rescale_is_not_scaled():
    def model(x):
        return (torch.relu(x) ** 2).sum(1)

    x = torch.tensor([[1.0, 2.0]])
    found, delta = DeepLift(model, rules="rescale").attribute(x, return_convergence_delta=True)
    assert found.tolist() == [[2.0, 8.0]]
    assert delta.tolist() == [5.0]


class TestShap:
    @pytest.mark.parametrize("rows", [1, 7, 64, 1000])
    def test_is_the_mean_over_the_background_whatever_the_chunks(self, rows):
        model, x, background, target = classifier(), normal(7, 6), normal(11, 6, seed=1), torch.arange(7) % 3
        found, delta = DeepLiftShap(model, rows=rows).attribute(
            x, background, target=target, return_convergence_delta=True
        )
        each = torch.stack([DeepLift(model).attribute(x, one, target=target) for one in background])
        torch.testing.assert_close(found, each.mean(0))
        assert delta.shape == (77,)
        assert delta.abs().max() < 1e-12

    def test_backgrounds_from_functions(self):
        model, x, background = classifier(), normal(3, 6), normal(4, 6, seed=1)
        expected = DeepLiftShap(model).attribute(x, background, target=0)
        assert torch.equal(DeepLiftShap(model).attribute(x, lambda: background, target=0), expected)
        assert torch.equal(DeepLiftShap(model).attribute(x, lambda inputs: background, target=0), expected)

    def test_arguments_per_input_follow_their_input(self):
        x, scale = normal(3, 6), torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
        found = DeepLiftShap(lambda x, s: (x.exp() * s).sum(1), rows=4).attribute(
            x, normal(5, 6, seed=1), additional_forward_args=(scale,)
        )
        plain = DeepLiftShap(lambda x: x.exp().sum(1)).attribute(x, normal(5, 6, seed=1))
        torch.testing.assert_close(found, plain * scale)

    @pytest.mark.parametrize("given", [None, 0.0, [[0.0]], torch.zeros(0, 6, dtype=torch.float64)])
    def test_a_background_is_needed(self, given):
        with pytest.raises((ValueError, TypeError), match="baselines"):
            DeepLiftShap(classifier()).attribute(normal(3, 6), given, target=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": "pyhealth"}, 'accepted: "complete", "rescale"'),
        ({"rules": "captum"}, "rules is 'captum'"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DeepLift(classifier(), **options)


def test_wrong_arguments_are_named():
    explainer = DeepLift(classifier())
    with pytest.raises(ValueError, match="baselines holds 2 for 1 input"):
        explainer.attribute(normal(3, 6), (0, 0), target=0)
    with pytest.raises(TypeError, match="inputs holds a list"):
        explainer.attribute([[1.0]], target=0)
    with pytest.raises(RuntimeError, match="call attribute first"):
        explainer.report()
    with pytest.raises(NotImplementedError):
        explainer.attribute_future()
    assert explainer.has_convergence_delta()
    assert explainer.multiplies_by_inputs


@pytest.mark.parametrize("name", captum.__all__)
def test_arguments_are_captums(name):
    ours, theirs = getattr(captum, name), getattr(pytest.importorskip("captum.attr"), name)
    for method in ("__init__", "attribute"):
        expected = list(inspect.signature(getattr(theirs, method)).parameters)
        assert list(inspect.signature(getattr(ours, method)).parameters)[: len(expected)] == expected


def test_agrees_with_captum_on_what_captum_supports():
    theirs = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 3)).double()
    x, x0 = normal(5, 6), normal(5, 6, seed=1)
    expected = theirs.DeepLift(model).attribute(x, x0, target=1)
    torch.testing.assert_close(DeepLift(model).attribute(x, x0, target=1), expected, rtol=1e-6, atol=1e-8)
    shap = theirs.DeepLiftShap(model).attribute(x, normal(4, 6, seed=2), target=1)
    found = DeepLiftShap(model).attribute(x, normal(4, 6, seed=2), target=1)
    torch.testing.assert_close(found, shap, rtol=1e-6, atol=1e-8)


class Counting(nn.Module):
    """Counts its calls outside of what PyTorch sees, and moves its statistics and draws as it runs."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.last, self.calls = nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2), [0]

    def forward(self, x):
        calls.append(len(x))
        return self.last(self.drop(torch.tanh(self.norm(x))))


calls: list[int] = []


class TestReturnedDelta:
    @pytest.mark.parametrize("explainer", [DeepLift, DeepLiftShap])
    @pytest.mark.parametrize("function", [None, lambda m, x, x0: ((x[0] - x0[0]) * m[0],)])
    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.filterwarnings("ignore::deeplift_fast.TrainingModeWarning")
    @pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning")
    def test_runs_nothing_more(self, explainer, function, training):
        torch.manual_seed(0)
        model = Counting().double().train(training)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        x, x0, counts = normal(4, 6), normal(4, 6, seed=1), []
        for wanted in (False, True):
            calls.clear()
            torch.manual_seed(1)
            found = explainer(model).attribute(
                x, x0, 1, return_convergence_delta=wanted, custom_attribution_func=function
            )
            counts.append(list(calls))
        assert counts[0] == counts[1]
        assert found[1].abs().max() < 1e-12
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), key

    @pytest.mark.parametrize("explainer", [DeepLift, DeepLiftShap])
    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.filterwarnings("ignore::deeplift_fast.TrainingModeWarning")
    @pytest.mark.filterwarnings("ignore::deeplift_fast.InterceptionWarning")
    def test_runs_nothing_more_of_several_inputs_with_further_arguments(self, explainer, training, steps):
        torch.manual_seed(0)
        model = Counting().double().train(training)

        class Several(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.seen = model, 0

            def forward(self, a, b, scale, shift=0.0):
                self.seen += 1
                return self.inner(a * b.exp()) * scale + shift

        outer, runs = Several().train(training), []
        before = {key: value.clone() for key, value in outer.state_dict().items()}
        inputs, background = (normal(4, 6), normal(4, 6, seed=2)), (normal(4, 6, seed=1), normal(4, 6, seed=3))
        for wanted in (False, True):
            calls.clear()
            torch.manual_seed(1)
            found = explainer(outer, steps=steps).attribute(
                inputs, background, [0, 1, 1, 0], (normal(4, 1, seed=4), 0.5), return_convergence_delta=wanted
            )
            runs.append((list(calls), torch.get_rng_state(), outer.seen, found[0] if wanted else found))
        assert runs[0][0] == runs[1][0]
        assert torch.equal(runs[0][1], runs[1][1])
        assert runs[0][2] == runs[1][2] == 0
        for a, b in zip(runs[0][3], runs[1][3], strict=True):
            assert torch.equal(a, b)
        assert found[1].abs().max() < 1e-12
        for key, value in outer.state_dict().items():
            assert torch.equal(value, before[key]), key

    def test_is_that_of_what_a_custom_function_made(self):
        explainer, x = DeepLift(classifier()), normal(5, 6)
        found, delta = explainer.attribute(
            x, 0.25, 1, return_convergence_delta=True, custom_attribution_func=lambda m: (m[0] * 2,)
        )
        torch.testing.assert_close(delta, explainer.compute_convergence_delta(found, 0.25, x, target=1))
        assert delta.abs().max() > 1e-3
        _, deltas = DeepLiftShap(classifier()).attribute(
            x, x[:2], 1, return_convergence_delta=True, custom_attribution_func=lambda m: (m[0] * 2,)
        )
        assert deltas.abs().max() > 1e-3

    @pytest.mark.filterwarnings("ignore::deeplift_fast.TrainingModeWarning")
    def test_computed_apart_leaves_nothing_behind_and_sees_the_same_draws(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, affine=False), nn.Dropout(0.5), nn.Linear(6, 2))
        model = model.double()
        model[1].eval()
        explainer, x = DeepLift(model), normal(4, 6)
        found, delta = explainer.attribute(x, target=1, return_convergence_delta=True)
        before, state = torch.get_rng_state(), model[1].running_mean.clone()
        model[1].train()
        explainer.compute_convergence_delta(found, 0, x, target=1)
        assert torch.equal(model[1].running_mean, state)
        assert torch.equal(torch.get_rng_state(), before)
        model[1].eval()
        assert explainer.compute_convergence_delta(found, 0, x, target=1).abs().max() < 1e-12
        assert delta.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("shape", [(3, 4), (1, 4)])
def test_integer_baselines_are_those_numbers(dtype, shape):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(3, 4)
    baseline = torch.arange(shape[0] * 4).reshape(shape).to(dtype)
    expected = DeepLift(model).attribute(x, baseline.float(), target=1)
    assert torch.equal(DeepLift(model).attribute(x, baseline, target=1), expected)
    (found,) = DeepLift(model).attribute((x,), (baseline,), target=1)
    assert torch.equal(found, expected)
    if shape == (3, 4):
        several = DeepLiftShap(model).attribute(x, baseline, target=1)
        assert torch.equal(several, DeepLiftShap(model).attribute(x, baseline.float(), target=1))
