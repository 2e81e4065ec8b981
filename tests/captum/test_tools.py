"""Captum's own tools around our classes: NoiseTunnel, metrics, wrappers of models."""

import pytest
import torch
from torch import nn

from deeplift_fast import captum as fast
from deeplift_fast.captum import DeepLift, DeepLiftShap, LayerDeepLift


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(-1)).double()


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.relu, self.last = nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2)

    def forward(self, a, b, scale=1):
        return self.last(self.relu(self.first(torch.cat([a, b], 1)))) * scale


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestCaptumsTools:
    X = normal(4, 6)

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
            (self.X,), nt_samples=3, stdevs=0.1, baselines=(normal(5, 6, seed=1),), target=1,
            draw_baseline_from_distrib=True, return_convergence_delta=True,
        )  # fmt: skip
        assert found[0].shape == self.X.shape
        assert delta.abs().max() < 1e-12

    @pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
    @pytest.mark.parametrize("multiplied", [True, False])
    def test_noise_tunnel_is_as_around_captums(self, kind, multiplied):
        """The same draws of noise give the same numbers, of two inputs and a further argument too."""
        captum, found = pytest.importorskip("captum.attr"), []
        model, inputs = TwoInputs().double(), (self.X, normal(4, 6, seed=1))
        for explainer in (DeepLift(model, multiplied), captum.DeepLift(model, multiplied)):
            torch.manual_seed(0)
            found.append(
                captum.NoiseTunnel(explainer).attribute(
                    inputs, nt_type=kind, nt_samples=5, stdevs=(0.1, 0.3), target=[0, 1, 1, 0],
                    additional_forward_args=(normal(4, 1, seed=2),),
                )
            )  # fmt: skip
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
            assert ours.any()

    @pytest.mark.parametrize("explainer", [DeepLift, DeepLiftShap])
    def test_a_wrapped_model(self, explainer):
        """Captum's ModelInputWrapper gives every input a module of its own."""
        wrapper = pytest.importorskip("captum.attr._utils.input_layer_wrapper").ModelInputWrapper
        model, inputs = TwoInputs().double(), (self.X, normal(4, 6, seed=1))
        baselines = (torch.zeros_like(self.X),) * 2
        expected = explainer(model).attribute(inputs, baselines, target=0)
        found = explainer(wrapper(model)).attribute(inputs, baselines, target=0)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    @pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
    def test_sensitivity_is_as_of_captums(self, name):
        captum, metrics = pytest.importorskip("captum.attr"), pytest.importorskip("captum.metrics")
        model, found = TwoInputs().double(), []
        baselines = normal(1 if name == "DeepLift" else 3, 6, seed=1)
        for explainer in ({"DeepLift": DeepLift}.get(name, DeepLiftShap), getattr(captum, name)):
            torch.manual_seed(0)
            found.append(
                metrics.sensitivity_max(
                    explainer(model).attribute, (self.X, normal(4, 6, seed=3)), target=[0, 1, 1, 0],
                    baselines=(baselines, baselines), additional_forward_args=(normal(4, 1, seed=2),),
                    n_perturb_samples=5,
                )
            )  # fmt: skip
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)
        assert (found[0] > 0).all()

    def test_infidelity_is_as_of_captums(self):
        captum, metrics = pytest.importorskip("captum.attr"), pytest.importorskip("captum.metrics")
        model, inputs, found = TwoInputs().double(), (self.X, normal(4, 6, seed=3)), []

        def perturbed(inputs):
            a, b = inputs
            noise = 0.1 * torch.randn_like(a), 0.1 * torch.randn_like(b)
            return noise, (a - noise[0], b - noise[1])

        for explainer in (DeepLift(model), captum.DeepLift(model)):
            torch.manual_seed(0)
            options = {"target": [0, 1, 1, 0], "additional_forward_args": (normal(4, 1, seed=2),)}
            attributions = explainer.attribute(inputs, **options)
            found.append(metrics.infidelity(model, perturbed, inputs, attributions, n_perturb_samples=5, **options))
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)
        assert (found[0] > 0).all()

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


@pytest.mark.parametrize("name", fast.__all__)
def test_names_are_captums(name):
    theirs = getattr(pytest.importorskip("captum.attr"), name)
    assert getattr(fast, name).get_name() == theirs.get_name()


@pytest.mark.filterwarnings("ignore")
def test_concepts(tmp_path, monkeypatch):
    """Captum's TCAV replaces the layer of the explainer that it is given."""
    captum, concept = pytest.importorskip("captum.attr"), pytest.importorskip("captum.concept")
    monkeypatch.chdir(tmp_path)
    model, found = TwoInputs().double(), []
    rest = nn.Sequential(model.first, model.relu, model.last)

    class Scores(concept.Classifier):
        """Concepts with fixed vectors."""

        def __init__(self):
            pass

        def train_and_eval(self, *_, **__):
            return None

        def weights(self):
            return normal(2, 5, seed=1)

        def classes(self):
            return [0, 1]

    for explainer in (captum.LayerDeepLift, LayerDeepLift):
        concepts = [concept.Concept(n, str(n), [normal(3, 12, seed=n)]) for n in range(2)]
        method = explainer(rest, None, multiply_by_inputs=False)
        tcav = concept.TCAV(rest, ["0", "1"], classifier=Scores(), layer_attr_method=method, save_path=str(tmp_path))
        scores = tcav.interpret(normal(6, 12), [concepts], target=1)["0-1"]
        found.append(torch.stack([scores[layer]["magnitude"] for layer in ("0", "1")]))
    torch.testing.assert_close(*found)
    assert not torch.equal(*found[0])
