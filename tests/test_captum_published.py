"""Facts that the test suites of Captum (DeepLIFT) and tangermeme state, and Captum's tools around our classes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deeplift_fast import attribute
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


def classifying(case):
    """A width, inputs and baselines, as Captum's classifiers get them."""
    width, rows = (20, 1) if case == "one" else (40, 2 if case == "background" else 3)
    baselines = {
        "one baseline for all": torch.arange(1.0, width + 1).reshape(1, width),
        "background": normal(5, width),
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
        for wrong in (lambda: (0.0, 0.0001), lambda: ([[0.0] * 3], [[0.0] * 3])):
            with pytest.raises(TypeError, match="baselines"):
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
    @pytest.mark.parametrize("case", ["one", "batch", "one baseline for all", "background"])
    def test_softmax(self, case, seed, rules):
        torch.manual_seed(seed)
        width, x, x0 = classifying(case)
        explainer = (DeepLiftShap if case == "background" else DeepLift)(Softmaxed(width).double(), rules=rules)
        found, delta = explainer.attribute(x.double(), x0.double(), 2, return_convergence_delta=True)
        assert found.shape == x.shape
        assert delta.abs().max() < 1e-9

    @pytest.mark.parametrize("case", ["one", "batch", "one baseline for all", "background"])
    def test_softmax_of_logits_of_a_million_in_float32(self, case):
        torch.manual_seed(1234)
        width, x, x0 = classifying(case)
        explainer = (DeepLiftShap if case == "background" else DeepLift)(Softmaxed(width))
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


class Dna(nn.Module):
    """As tangermeme's: convolutions over one-hot sequences `[batch, 4, length]` with one activation and one pool."""

    def __init__(self, activation, pool):
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 8, 3, padding="same"), nn.Conv1d(8, 8, 3, padding="same")
        self.activation, self.pool, self.drop, self.last = activation, pool, nn.Dropout(0.5), nn.Linear(80, 2)

    def forward(self, x, shift=0.0, factor=1.0):
        x = self.pool(self.activation(self.first(x)))
        x = self.activation(self.second(x)) + x
        return self.last(self.drop(x).flatten(1)) * factor + shift


def sequences(count, length=20, seed=0):
    letters = torch.randint(0, 4, (count, length), generator=torch.Generator().manual_seed(seed))
    return F.one_hot(letters, 4).mT.float()


ACTIVATIONS = [nn.ReLU(), nn.LeakyReLU(), nn.ELU(), nn.Softplus(), nn.Tanh(), nn.Sigmoid()]


class TestTangermeme:
    @pytest.mark.parametrize("rules", ["complete", "rescale"])
    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda each: type(each).__name__)
    def test_reused_modules_converge(self, activation, rules):
        torch.manual_seed(0)
        model = Dna(activation, nn.MaxPool1d(2)).eval()
        found, delta = DeepLiftShap(model, rules=rules).attribute(
            sequences(3), sequences(4, seed=1), 1, return_convergence_delta=True
        )
        assert found.shape == (3, 4, 20)
        assert delta.abs().max() < 1e-6

    def test_a_sequence_is_attributed_by_itself(self):
        torch.manual_seed(0)
        explainer, x, background = (
            DeepLiftShap(Dna(nn.ReLU(), nn.MaxPool1d(2)).eval()),
            sequences(6),
            sequences(4, seed=1),
        )
        whole = explainer.attribute(x, background, 0)
        torch.testing.assert_close(explainer.attribute(x[2:3], background, 0), whole[2:3])
        assert not torch.allclose(whole[0], whole[1])

    def test_arguments_shift_and_scale(self):
        torch.manual_seed(0)
        explainer, x = DeepLiftShap(Dna(nn.ReLU(), nn.MaxPool1d(2)).eval()), sequences(3)
        plain = explainer.attribute(x, sequences(4, seed=1), 0)
        factor = torch.tensor([[1.0], [2.0], [-3.0]])
        found = explainer.attribute(x, sequences(4, seed=1), 0, additional_forward_args=(0.7, factor))
        torch.testing.assert_close(found, plain * factor[..., None])

    def test_a_linear_model_has_its_weights(self):
        layer, x, background = nn.Linear(80, 3), sequences(5), sequences(4, seed=1)
        found = DeepLiftShap(nn.Sequential(nn.Flatten(), layer)).attribute(x, background, 2)
        torch.testing.assert_close(found, layer.weight[2].reshape(4, 20) * (x - background.mean(0)))

    def test_a_square_root_written_as_a_function(self):
        def model(x):
            return (x.sum((1, 2), keepdim=False) + 3).sqrt()[:, None]

        found, delta = DeepLift(model).attribute(sequences(2), 0, 0, return_convergence_delta=True)
        torch.testing.assert_close(found.sum((1, 2)), torch.full((2,), 23**0.5 - 3**0.5))
        assert delta.abs().max() < 1e-6


RULED = {
    "LeakyReLU": lambda x: F.leaky_relu(x, 0.2),
    "LeakyReLU, in place": lambda x: F.leaky_relu_(x * 1, 0.2),
    "ELU": nn.ELU(0.7),
    "Softplus": nn.Softplus(beta=2),
    "softmax": lambda x: x.softmax(-1),
    "nn.Softmax": nn.Softmax(-1),
    "max pool": nn.MaxPool1d(2),
    "adaptive max pool": nn.AdaptiveMaxPool1d(3),
    "average pool": nn.AvgPool1d(2),
}


class TestRescaleOfTheFrontEnd:
    @pytest.mark.parametrize("name", RULED)
    def test_has_captums_rules(self, name):
        torch.manual_seed(0)
        first, last = nn.Linear(6, 6).double(), None

        def model(x):
            nonlocal last
            y = RULED[name](first(x.unsqueeze(1)) * 3).flatten(1)
            last = last or nn.Linear(y.shape[1], 2).double()
            return last(y)

        x, x0 = normal(4, 6, dtype=torch.float64), normal(4, 6, seed=1, dtype=torch.float64)
        found, delta = DeepLift(model, rules="rescale").attribute(x, x0, 1, return_convergence_delta=True)
        assert delta.abs().max() < 1e-12
        torch.testing.assert_close(found, DeepLift(model).attribute(x, x0, 1))

    def test_the_rest_has_its_gradient_and_nothing_is_scaled(self):
        x = torch.tensor([[1.0, 2.0]])
        found, delta = DeepLift(lambda x: x.exp().sum(1), rules="rescale").attribute(x, return_convergence_delta=True)
        torch.testing.assert_close(found, x * x.exp())
        assert delta.abs().max() > 1

    def test_attribute_means_another_set(self):
        x, x0 = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
        found = attribute(lambda x: F.leaky_relu(x, 0.5), x, x0, 0, rules="rescale")
        assert found.convergence_delta.item() == pytest.approx(3 - 2.5)

    @pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2), nn.ELU(), nn.Softplus()])
    def test_agrees_with_captum(self, activation):
        theirs = pytest.importorskip("captum.attr")
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(1, 3, 2), activation, nn.Flatten(), nn.Linear(24, 2)).double()
        x, x0 = normal(4, 1, 9, dtype=torch.float64), normal(4, 1, 9, seed=1, dtype=torch.float64)
        expected = theirs.DeepLift(model).attribute(x, x0, target=1)
        found = DeepLift(model, rules="rescale").attribute(x, x0, target=1)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(-1)).double()


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestCaptumsTools:
    X = normal(4, 6, dtype=torch.float64)

    @pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
    @pytest.mark.parametrize("rules", ["complete", "rescale"])
    def test_noise_tunnel(self, kind, rules):
        captum = pytest.importorskip("captum.attr")
        explainer = DeepLift(classifier(), rules=rules)
        options = {"target": torch.tensor([0, 1, 2, 0]), "baselines": torch.zeros_like(self.X)}
        found, delta = captum.NoiseTunnel(explainer).attribute(
            self.X, nt_type=kind, nt_samples=6, nt_samples_batch_size=4, stdevs=0.0, return_convergence_delta=True,
            **options,
        )  # fmt: skip
        plain = explainer.attribute(self.X, **options)
        expected = {"smoothgrad": plain, "smoothgrad_sq": plain**2, "vargrad": torch.zeros_like(plain)}[kind]
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
        assert delta.shape == (24,)
        assert delta.abs().max() < 1e-12

    def test_noise_is_averaged(self):
        captum = pytest.importorskip("captum.attr")
        explainer, draws = DeepLift(classifier()), torch.Generator().manual_seed(0)
        torch.manual_seed(1)
        found = captum.NoiseTunnel(explainer).attribute(self.X, nt_samples=64, stdevs=0.3, target=1)
        noisy = self.X + 0.3 * torch.randn(4000, 1, 6, generator=draws, dtype=torch.float64)
        each = explainer.attribute(noisy.flatten(0, 1), target=1).reshape(4000, 4, 6)
        assert ((found - each.mean(0)).abs() < 6 * each.std(0) / 64**0.5 + 1e-9).all()

    def test_noise_tunnel_around_a_background(self):
        captum = pytest.importorskip("captum.attr")
        found, delta = captum.NoiseTunnel(DeepLiftShap(classifier())).attribute(
            (self.X,), nt_samples=3, stdevs=0.1, baselines=(normal(5, 6, seed=1, dtype=torch.float64),), target=1,
            draw_baseline_from_distrib=True, return_convergence_delta=True,
        )  # fmt: skip
        assert found[0].shape == self.X.shape
        assert delta.abs().max() < 1e-12

    def test_sensitivity(self):
        metrics = pytest.importorskip("captum.metrics")
        explainer = DeepLift(classifier())
        for baselines in (0, torch.zeros_like(self.X), torch.zeros(1, 6, dtype=torch.float64)):
            found = metrics.sensitivity_max(explainer.attribute, self.X, target=1, baselines=baselines)
            assert found.shape == (4,)
            assert 0 < found.max() < 1

    def test_infidelity(self):
        metrics = pytest.importorskip("captum.metrics")
        torch.manual_seed(0)
        layer = nn.Linear(6, 1, bias=False).double()

        def perturbed(inputs):
            noise = 0.1 * torch.randn_like(inputs)
            return noise, inputs - noise

        multipliers = DeepLift(layer, multiply_by_inputs=False).attribute(self.X, target=0)
        assert metrics.infidelity(layer, perturbed, self.X, multipliers, target=0).max() < 1e-20
        model = classifier()
        found = metrics.infidelity(model, perturbed, self.X, DeepLift(model).attribute(self.X, target=1), target=1)
        assert found.isfinite().all()

    def test_wrapped_methods_keep_their_names_and_docstrings(self):
        for explainer in (DeepLift, DeepLiftShap):
            assert explainer.attribute.__name__ == "attribute"
            assert explainer.attribute.__doc__
            assert explainer.attribute.__wrapped__ is not explainer.attribute
            assert explainer(classifier()).forward_func is not None
