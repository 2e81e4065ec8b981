"""What Captum's own tests say of DeepLift and DeepLiftShap, as facts.

57 tests of Captum 0.9 make one of the two classes: 19 in `test_deeplift_basic.py`, 12 in
`test_deeplift_classification.py`, 17 of targets, 4 of hooks, 2 of wrapped models, 3 of metrics. The cases of 56 are
here, in `test_deeplift.py` (exact values) and in `test_tools.py` (NoiseTunnel, wrapped models, metrics). Left out:

- that a module which is used twice is refused: here it has its rule at each use (`test_deeplift.py`);
- tests of attribution to layers and neurons, which are other classes of Captum's.
"""

import pytest
import torch
from torch import nn

from deeplift_fast.captum import DeepLift, DeepLiftShap

COMPLETE = 0.003  # what Captum allows its classifiers


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class ReluLinear(nn.Module):
    """Captum's: relu of two weighted sums, added up."""

    def __init__(self, inplace=False):
        super().__init__()
        self.a, self.b = torch.tensor([3.0, 1.0, 0.0]), torch.tensor([2.0, 3.0, 0.0])
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x1, x2, factor=1):
        return self.relu(torch.stack([x1 @ self.a, factor * (x2 @ self.b)], 1)).sum(1, keepdim=True)


class Softmaxed(nn.Module):
    """Captum's classifier: two hidden layers and ten classes; every weight is 1."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, 20), nn.Linear(20, 20), nn.Linear(20, 10)])
        self.relus, self.softmax = nn.ModuleList([nn.ReLU(), nn.ReLU()]), nn.Softmax(dim=1)
        for layer in self.layers:
            nn.init.ones_(layer.weight)

    def forward(self, x):
        for layer, relu in zip(self.layers, self.relus, strict=False):
            x = relu(layer(x))
        return self.softmax(self.layers[-1](x))


class Convolved(nn.Module):
    """Captum's convolutional classifier, in one, two or three dimensions."""

    def __init__(self, dims):
        super().__init__()
        conv, pool = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1], (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1]
        self.body = nn.Sequential(
            conv(1, 2, 3), nn.ReLU(), pool(2), conv(2, 4, 3), nn.ReLU(), pool(2), nn.Flatten(), nn.Linear(4, 8),
            nn.ReLU(), nn.Linear(8, 10), nn.Softmax(dim=1),
        )  # fmt: skip
        nn.init.ones_(self.body[7].weight)
        nn.init.ones_(self.body[9].weight)

    def forward(self, x):
        return self.body(x)


X1 = torch.tensor([[-10.0, 1.0, -5.0], [2.0, 3.0, 4.0]])
X2 = torch.tensor([[3.0, 3.0, 1.0], [2.3, 5.0, 4.0]])
BACKGROUND = (torch.tensor([[0.0] * 3, [1.0] * 3]),) * 2


CLASSIFYING = ["one", "batch", "one baseline for all", "background", "one, background"]


def classifying(case):
    """A width, inputs and baselines, as Captum's classifiers get them."""
    width = 20 if case == "one" else 40
    rows = {"one": 1, "one, background": 1, "background": 2}.get(case, 3)
    baselines = {
        "one baseline for all": torch.arange(1.0, width + 1).reshape(1, width),
        "background": normal(5, width),
        "one, background": normal(5, width),
    }
    return width, torch.arange(float(width * rows)).reshape(rows, width), baselines.get(case, torch.zeros(1, width))


class TestCaptum:
    def test_relu_linear(self):
        found, delta = DeepLift(ReluLinear()).attribute((X1[:1], X2[:1]), (0, 0.0001), return_convergence_delta=True)
        assert not found[0].any()
        torch.testing.assert_close(found[1], torch.tensor([[2.0, 3.0, 0.0]]) * (X2[:1] - 0.0001))
        assert delta.abs().max() < 1e-5

    def test_repeated_calls_and_calls_with_the_delta_are_equal(self):
        explainer = DeepLift(ReluLinear(inplace=True))
        first = explainer.attribute((X1, X2), (torch.zeros(1, 3), normal(1, 3) * 1e-3))
        for _ in range(3):
            found, delta = explainer.attribute(
                (X1, X2), (torch.zeros(1, 3), normal(1, 3) * 1e-3), return_convergence_delta=True
            )
            assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True))
            assert delta.shape == (2,)
            assert delta.abs().max() < 1e-5

    @pytest.mark.parametrize(("explainer", "baselines"), [(DeepLift, None), (DeepLiftShap, BACKGROUND)])
    def test_in_place_changes_nothing(self, explainer, baselines):
        plain, in_place = (explainer(ReluLinear(inplace)).attribute((X1, X2), baselines) for inplace in (False, True))
        assert all(torch.equal(a, b) for a, b in zip(plain, in_place, strict=True))

    def test_relus_are_two_and_a_half(self):
        def model(a, b):
            return 2 * torch.relu(a) + 2 * torch.relu(b - 1.5)

        found, delta = DeepLift(model).attribute(
            (torch.ones(4, 1), torch.full((4, 1), 2.0)), (torch.zeros(4, 1),) * 2, return_convergence_delta=True
        )
        assert [each.flatten().tolist() for each in found] == [[2.0] * 4, [1.0] * 4]
        assert delta.tolist() == [0.0] * 4
        inputs, background = (torch.tensor([[1.0]]), torch.tensor([[2.0]])), (torch.zeros(4, 1),) * 2
        found, delta = DeepLiftShap(model).attribute(inputs, background, return_convergence_delta=True)
        assert [float(each) for each in found] == [2.0, 1.0]
        assert delta.tolist() == [0.0] * 4

    def test_backgrounds_from_functions(self):
        def of_inputs(inputs):
            return tuple(torch.cat([x, x - 10]) for x in inputs)

        explainer = DeepLiftShap(ReluLinear(inplace=True))
        for function in (lambda: BACKGROUND, of_inputs):
            _, delta = explainer.attribute((X1[:1], X2[:1]), function, return_convergence_delta=True)
            assert delta.shape == (2,)
            assert delta.abs().max() < 1e-5
        given = explainer.attribute((X1[:1], X2[:1]), BACKGROUND)
        found = explainer.attribute((X1[:1], X2[:1]), lambda: BACKGROUND)
        assert all(torch.equal(a, b) for a, b in zip(given, found, strict=True))
        for wrong in (lambda: (0.0, 0.0001), lambda: ([[0.0] * 3], [[0.0] * 3])):
            with pytest.raises(AssertionError, match="baselines"):
                explainer.attribute((X1[:1], X2[:1]), wrong)

    def test_custom_functions(self):
        def nothing(multipliers, inputs, baselines):
            return tuple(multiplier * 0.0 for multiplier in multipliers)

        found = DeepLiftShap(ReluLinear()).attribute((X1, X2), BACKGROUND, custom_attribution_func=nothing)
        assert not any(each.any() for each in found)

    @pytest.mark.parametrize("explainer", [DeepLift, DeepLiftShap])
    def test_hypothetical_contributions(self, explainer):
        model = nn.Sequential(nn.Conv1d(4, 2, 1), nn.ReLU(), nn.Linear(100, 1))

        def hypothetical(multipliers, inputs, baselines):
            letters = torch.eye(4).reshape(4, 1, 4, 1)
            return (((letters - baselines[0]) * multipliers[0]).sum(2).transpose(0, 1),)

        x, x0 = normal(2, 4, 100).abs(), normal(2, 4, 100, seed=1).abs()
        found = explainer(model).attribute(x, x0, target=(1, 0), custom_attribution_func=hypothetical)
        assert found.shape == x.shape

    @pytest.mark.parametrize("rules", ["complete", "rescale"])
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("case", CLASSIFYING)
    def test_softmax(self, case, seed, rules):
        torch.manual_seed(seed)
        width, x, x0 = classifying(case)
        explainer = (DeepLiftShap if "background" in case else DeepLift)(Softmaxed(width).double(), rules=rules)
        found, delta = explainer.attribute(x.double(), x0.double(), 2, return_convergence_delta=True)
        assert found.shape == x.shape
        assert delta.abs().max() < 1e-9

    @pytest.mark.parametrize("case", CLASSIFYING)
    def test_softmax_of_logits_of_a_million_in_float32(self, case):
        torch.manual_seed(1234)
        width, x, x0 = classifying(case)
        explainer = (DeepLiftShap if "background" in case else DeepLift)(Softmaxed(width))
        for target in (torch.tensor(2), torch.tensor(1), [2] * len(x)):
            _, delta = explainer.attribute(x, x0, target, return_convergence_delta=True)
            assert delta.abs().max() < COMPLETE

    @pytest.mark.parametrize("rules", ["complete", "rescale"])
    @pytest.mark.parametrize("scale", [20, 500])
    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_max_pools_under_softmax(self, dims, scale, rules):
        torch.manual_seed(dims)
        model, shape = Convolved(dims), (2, 1, *[10] * dims)
        for target in (torch.tensor(2), torch.tensor(1)):
            found, delta = DeepLift(model, rules=rules).attribute(
                100 * normal(*shape), scale * normal(*shape, seed=1), target, return_convergence_delta=True
            )
            assert found.shape == shape
            assert delta.abs().max() < COMPLETE

    def test_sigmoid(self):
        def model(x):
            return torch.sigmoid(torch.relu(x.sum(1, keepdim=True).expand(-1, 5)).sum(1, keepdim=True))

        _, delta = DeepLift(model).attribute(torch.arange(20.0)[None], target=0, return_convergence_delta=True)
        assert delta.abs().max() < COMPLETE


class Layered(nn.Module):
    """Captum's: linear, ReLU and linear, of one input or a weighted sum of two; two outputs, or two by two by two."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, a, b=None, added=None, stacked=False, scale=1):
        x = a if b is None else scale * (a + b)
        y = self.last(self.relu(self.first(x if added is None else x + added)))
        return torch.stack([torch.stack([y, 2 * y], 2), torch.stack([3 * y, y**2], 2)], 3) if stacked else y


TUPLES = [(1, 0, 0), (0, 1, 1), (1, 1, 1), (0, 0, 0)]
TARGETS = {
    "an int": 1,
    "ints": [0, 1, 1, 0],
    "a tensor of one": torch.tensor([0]),
    "a tensor": torch.tensor([0, 1, 1, 0]),
    "a tuple": (0, 1, 1),
    "tuples": TUPLES,
}


def of_row(value, i):
    return value[i : i + 1] if isinstance(value, list | torch.Tensor) and len(value) == 4 else value


class TestTargets:
    """Every row of a batch has the attributions that it has alone, with its own target."""

    @pytest.mark.parametrize("kind", ["zeros", "baselines", "background", "two inputs", "noise"])
    @pytest.mark.parametrize("name", TARGETS)
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_rows_alone(self, name, kind):
        target, x = TARGETS[name], normal(4, 3)
        stacked = isinstance(target, tuple) or target is TUPLES
        inputs = (10 * x, normal(4, 3, seed=2)) if kind == "two inputs" else (x,)
        further = (None,) * (2 - len(inputs)) + (normal(4, 3, seed=3), stacked, 5)
        baselines = {"baselines": normal(4, 3, seed=1), "background": normal(6, 3, seed=1)}.get(kind)
        explainer = (DeepLiftShap if kind == "background" else DeepLift)(Layered())
        options = {}
        if kind == "noise":
            explainer = pytest.importorskip("captum.attr").NoiseTunnel(explainer)
            options = {"nt_samples": 3, "stdevs": 0.0}

        def attributed(take):
            given = {} if baselines is None else {"baselines": baselines if kind == "background" else take(baselines)}
            return explainer.attribute(
                tuple(map(take, inputs)), target=take(target), additional_forward_args=tuple(map(take, further)),
                **given, **options,
            )  # fmt: skip

        whole = attributed(lambda value: value)
        for i in range(4):
            alone = attributed(lambda value, i=i: of_row(value, i))
            for a, b in zip(alone, whole, strict=True):
                torch.testing.assert_close(a, b[i : i + 1], rtol=1e-5, atol=1e-5)
        assert all(each.any() for each in whole)


class TestErrors:
    """What Captum raises for a wrong argument, ours is too."""

    X, BACKGROUND = normal(4, 3), normal(3, 3, seed=1)
    EVERYWHERE = (
        ([[1.0] * 3], 0, 1), (3, 0, 1), ((1.0,), 0, 1), (X, "zero", 1), (X, [[0.0] * 3], 1), (X, torch.zeros(4, 5), 1),
        (X, torch.zeros(4, 3, 1), 1), (X, (BACKGROUND, BACKGROUND), 1), (X, BACKGROUND, None), (X, BACKGROUND, (1, 0)),
        (X, BACKGROUND, (9999,) * 20), (X, BACKGROUND, [0, 1]), (X, BACKGROUND, torch.tensor([0, 1])),
        (X, BACKGROUND, 1.0), (X, BACKGROUND, "1"), (X, BACKGROUND, 9), (X, BACKGROUND, (9,)),
    )  # fmt: skip
    OF_BACKGROUNDS = ((X, None, 1), (X, 0.0, 1), (X, BACKGROUND[:0], 1), (X, lambda: 0.0, 1))

    @pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_are_captums(self, name):
        theirs, ours = getattr(pytest.importorskip("captum.attr"), name), {"DeepLift": DeepLift}.get(name, DeepLiftShap)
        cases = self.EVERYWHERE + (self.OF_BACKGROUNDS if name == "DeepLiftShap" else ())
        for x, x0, target in cases:
            if name == "DeepLift" and x0 is self.BACKGROUND:
                x0 = 0
            with pytest.raises((AssertionError, IndexError)) as expected:
                theirs(Layered()).attribute(x, x0, target)
            with pytest.raises(expected.type) as found:
                ours(Layered()).attribute(x, x0, target)
            assert isinstance(found.value, ValueError | TypeError)

    @pytest.mark.parametrize("explainer", [DeepLift, DeepLiftShap])
    @pytest.mark.parametrize("target", [1, (9999,) * 20])
    def test_leave_no_hook_behind(self, explainer, target):
        model = Layered()
        if target == 1:
            explainer(model).attribute(self.X, self.BACKGROUND[:1], target)
        else:
            with pytest.raises(AssertionError, match=r"target gives 20 index\(es\) per sample"):
                explainer(model).attribute(self.X, self.BACKGROUND[:1], target)
        for module in model.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert not module._backward_hooks

    def test_of_lists_of_targets_name_the_inputs(self):
        with pytest.raises(ValueError, match=r"target has shape \(2,\) for 4 inputs"):
            DeepLiftShap(Layered()).attribute(self.X, self.BACKGROUND, [0, 1])
        with pytest.raises(TypeError, match="a list must hold one int per sample"):
            DeepLift(Layered()).attribute(self.X, 0, [0, (1, 0), 2, 0])
        with pytest.raises(ValueError, match=r"baselines hold shape \(3, 5\) for inputs of shape \(4, 3\)"):
            DeepLiftShap(Layered()).attribute(self.X, torch.zeros(3, 5), 1)
