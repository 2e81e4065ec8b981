"""Contributions of a layer: complete where the layer is a cut of the model, and a report of what bypasses it."""

import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooks

from deeplift_fast import InterceptionError, attribute
from deeplift_fast.captum import DeepLift, LayerDeepLift, LayerDeepLiftShap, NeuronDeepLift

pytestmark = pytest.mark.filterwarnings("error")
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 3, 5], [8, 0, 7, 2, 1]])
OTHERS = torch.tensor([[0, 2, 4, 0, 1], [7, 7, 1, 3, 0], [5, 5, 5, 5, 5]])


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(kind, *args):
    torch.manual_seed(1)
    return kind(*args).double().eval()


class Gated(nn.Module):
    """Two embeddings of the same tokens; the second one gates the first and is added to it."""

    def __init__(self):
        super().__init__()
        self.words, self.gates = nn.Embedding(9, 4), nn.Embedding(9, 4)
        self.hidden, self.relu, self.last = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)

    def joined(self, words, gates):
        return self.last(self.relu(self.hidden(words * gates + torch.tanh(gates)))).sum(1)

    def forward(self, tokens):
        return self.joined(self.words(tokens), self.gates(tokens))


def complete(model, layer, inputs, baselines, target=1, **options):
    """The attributions of a layer that is a cut; they sum to the model's difference."""
    found, delta = LayerDeepLift(model, layer).attribute(
        inputs, baselines, target, return_convergence_delta=True, **options
    )
    assert delta.abs().max() < 1e-12
    return found


@pytest.mark.parametrize("kind", [LayerDeepLift, NeuronDeepLift])
def test_the_layer_may_be_set_later(kind):
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), normal(2, 3)
    given = {"neuron_selector": 1} if kind is NeuronDeepLift else {"target": 1}
    explainer = kind(model, None)
    assert explainer.layer is None
    with pytest.raises(TypeError, match="layer is None; accepted"):
        explainer.attribute(x, **given)
    for layer in (model[0], "1"):
        explainer.layer = layer
        assert torch.equal(explainer.attribute(x, **given), kind(model, layer).attribute(x, **given))
    assert explainer.layer is model[1]
    with pytest.raises(ValueError, match="no such module"):
        explainer.layer = "2.weight"


def bypassed(explainer):
    return {row.operation: row.delta for row in explainer.report() if row.rule == "bypass"}


class TestTokens:
    @pytest.mark.parametrize("layer", ["hidden", "relu", "last"])
    def test_a_cut_is_complete(self, layer):
        model = built(Gated)
        found = complete(model, layer, TOKENS, OTHERS)
        difference = (model(TOKENS) - model(OTHERS))[:, 1].detach()
        torch.testing.assert_close(found.flatten(1).sum(1), difference)

    @pytest.mark.parametrize("place", [0, 1])
    @pytest.mark.parametrize(("steps", "at_once"), [(1, 1), (3, 1), (3, 2)])
    def test_one_of_two_embeddings_has_what_both_together_give_it(self, place, steps, at_once):
        model = built(Gated)
        layer = ("words", "gates")[place]
        explainer = LayerDeepLift(model, layer, steps=steps, segments_at_once=at_once)
        found, delta = explainer.attribute(TOKENS, OTHERS, 1, return_convergence_delta=True)
        report = explainer.report()
        assert sum(bypassed(explainer).values()) == pytest.approx(float(delta.sum()))
        assert report.delta == pytest.approx(float(delta.sum()))
        assert sum(row.delta for row in report) == pytest.approx(report.delta)
        assert set(bypassed(explainer)) == ({"mul", "add"} if place == 0 else {"mul"})
        if steps == 1:  # of several steps, tokens have only the ends
            ends = [[getattr(model, name)(t).detach() for name in ("words", "gates")] for t in (TOKENS, OTHERS)]
            both = DeepLift(model.joined).attribute(tuple(ends[0]), tuple(ends[1]), 1)
            torch.testing.assert_close(found, both[place])
            torch.testing.assert_close(delta, -both[1 - place].sum((1, 2)))

    def test_baselines(self):
        model = built(Gated)
        zeros = complete(model, "hidden", TOKENS, None)
        for given in (0, torch.zeros(5, dtype=torch.int32), torch.zeros(1, 5, dtype=torch.int64)):
            assert torch.equal(complete(model, "hidden", TOKENS, given), zeros)
        for wrong, said in ((0.5, "0.5"), (OTHERS.double(), "float64"), (OTHERS[:, :2], "shape"), ((0, 0), "2 for 1")):
            with pytest.raises((ValueError, TypeError), match=said) as error:
                LayerDeepLift(model, "hidden").attribute(TOKENS, wrong, 1)
            assert isinstance(error.value, AssertionError)

    def test_a_background_set_gives_the_mean(self):
        model = built(Gated)
        explainer = LayerDeepLiftShap(model, model.words, rows=4)
        found, deltas = explainer.attribute(TOKENS, OTHERS[:2], [0, 1, 1], return_convergence_delta=True)
        alone = [
            LayerDeepLift(model, model.words).attribute(TOKENS, row, [0, 1, 1], return_convergence_delta=True)
            for row in OTHERS[:2]
        ]
        torch.testing.assert_close(found, (alone[0][0] + alone[1][0]) / 2)
        torch.testing.assert_close(deltas, torch.stack([delta for _, delta in alone], 1).flatten())
        assert sum(bypassed(explainer).values()) == pytest.approx(float(deltas.sum()))

    def test_captum_agrees_where_its_rules_are_complete(self):
        theirs = pytest.importorskip("captum.attr")
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 6), nn.Tanh(), nn.Linear(6, 2)).double()
        for index, at_input in ((0, False), (2, False), (2, True), (3, False), (4, True)):
            expected = theirs.LayerDeepLift(model, model[index]).attribute(
                TOKENS, OTHERS, target=1, attribute_to_layer_input=at_input
            )
            found = complete(model, model[index], TOKENS, OTHERS, attribute_to_layer_input=at_input)
            torch.testing.assert_close(found, expected)

    def test_captum_has_the_gradient_at_the_input_of_an_activation(self):
        """Captum's hook on the activation does not see the copy that it attributes to: no slope, no summation to delta.

        The input of the Tanh is the output of the layer before it, whose contributions are right.
        """
        theirs = pytest.importorskip("captum.attr")
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        x = normal(3, 3)
        wrong, delta = theirs.LayerDeepLift(model, model[1]).attribute(
            x, torch.zeros_like(x), target=1, attribute_to_layer_input=True, return_convergence_delta=True
        )
        h, h0 = model[0](x).detach(), model[0](0 * x).detach()
        torch.testing.assert_close(wrong, (h - h0) * (1 - torch.tanh(h) ** 2) * model[2].weight[1].detach())
        assert delta.abs().max() > 0.01
        before = theirs.LayerDeepLift(model, model[0]).attribute(x, torch.zeros_like(x), target=1)
        torch.testing.assert_close(complete(model, model[1], x, 0, attribute_to_layer_input=True), before)


@pytest.mark.parametrize("rows", [2, 3, 5])  # of 5 steps
def test_a_layer_without_samples(rows):
    """A multiplier there would be a sum over samples; by its shape, the table's rows may be samples."""

    class Placed(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places, self.last = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Linear(4, 2)

        def forward(self, tokens):
            return self.last(torch.tanh(self.words(tokens) + self.places(torch.arange(5)))).sum(1)

    model, tokens = built(Placed), TOKENS[:1].expand(rows, 5)
    complete(model, "words", tokens, 0)
    with pytest.raises(ValueError, match=rf"\(5, 4\), in which the {rows} samples have no dimension, and is the same"):
        LayerDeepLift(model, "places", multiply_by_inputs=False).attribute(tokens, 0, 1)


def test_the_embeddings_of_bert():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_labels": 2}
    config = transformers.BertConfig(num_hidden_layers=1, max_position_embeddings=8, **sizes)
    model, mask = built(transformers.BertForSequenceClassification, config), torch.ones(3, 5)
    mask[1, 3:] = 0
    found = complete(
        model, model.bert.embeddings, TOKENS, OTHERS, lambda output: output.logits[:, 1], additional_forward_args=mask
    )
    assert found.shape == (3, 5, 8)

    def logits(tokens, mask):
        return model(tokens, mask).logits

    layer = LayerDeepLift(logits, model.bert.embeddings)
    assert torch.equal(layer.attribute(TOKENS, OTHERS, 1, additional_forward_args=mask), found)
    with pytest.raises(TypeError, match="target=lambda output"):
        LayerDeepLift(model, "bert.embeddings").attribute(TOKENS, OTHERS, 1)


class TestBypass:
    @pytest.mark.parametrize("at_input", [False, True])
    def test_a_skip_connection(self, at_input):
        class Residual(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.inner, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

            def forward(self, x):
                h = self.first(x)
                h += self.inner(h)
                return self.last(torch.tanh(h))

        model, x = built(Residual), normal(3, 3)
        explainer = LayerDeepLift(model, model.inner)
        found, delta = explainer.attribute(x, 0.5, 1, None, True, at_input)
        h, h0 = model.first(x).detach(), model.first(torch.full_like(x, 0.5)).detach()
        y, y0 = model.inner(h).detach(), model.inner(h0).detach()
        both = DeepLift(lambda h, y: model.last(torch.tanh(h + y))).attribute((h, y), (h0, y0), 1)
        torch.testing.assert_close(found.sum(1), both[1].sum(1))
        torch.testing.assert_close(delta, -both[0].sum(1))
        assert bypassed(explainer) == {"add": pytest.approx(float(delta.sum()))}
        assert "bypass" in str(explainer.report())

    def test_rescale_has_one_row_for_all(self):
        model = built(Gated)
        explainer = LayerDeepLift(model, "words", rules="rescale")
        _, delta = explainer.attribute(TOKENS, OTHERS, 1, return_convergence_delta=True)
        assert not bypassed(explainer)
        assert explainer.report().delta == pytest.approx(float(delta.sum()))

    def test_masks_from_tokens_keep_their_gradient(self):
        class Masked(nn.Module):
            def __init__(self):
                super().__init__()
                self.words, self.last = nn.Embedding(9, 4), nn.Linear(4, 2)

            def forward(self, tokens):
                return self.last(torch.tanh(self.words(tokens).masked_fill((tokens == 0)[..., None], 0.0).sum(1)))

        explainer = LayerDeepLift(built(Masked), "words", delta_tol=1e9)
        _, delta = explainer.attribute(TOKENS, OTHERS, 1, return_convergence_delta=True)
        rows = {row.operation: row for row in explainer.report()}
        assert rows["masked_fill"].rule == "gradient"
        assert rows["masked_fill"].delta == pytest.approx(float(delta.sum()))


class Written(nn.Module):
    """A linear layer and a ReLU in place, with writes around them."""

    def __init__(self, kind):
        super().__init__()
        self.linear, self.relu, self.last, self.kind = nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2), kind
        self.requires_grad_(kind != "frozen")

    def forward(self, x):
        if self.kind == "no_grad":
            with torch.no_grad():
                h = self.linear(x)
        else:
            h = self.linear(x)
        if self.kind == "ignored":  # the layer's result is not used, only its effect
            self.relu(h)
            return self.last(h)
        if self.kind == "after":
            return self.last(self.relu(h).mul_(2).sigmoid_())
        return self.last(self.relu(h))


class TestModels:
    X = normal(4, 3)

    @pytest.mark.parametrize(
        ("kind", "layer", "at_input"),
        [
            ("plain", "linear", True), ("plain", "relu", False), ("frozen", "relu", True), ("after", "relu", False),
            ("after", "linear", False), ("ignored", "linear", False), ("ignored", "relu", True),
            ("no_grad", "linear", False), ("no_grad", "relu", False),
        ],
    )  # fmt: skip
    def test_writes_and_gradient_modes(self, kind, layer, at_input):
        model = built(Written, kind)
        found = complete(model, layer, self.X, 0.5, attribute_to_layer_input=at_input)
        difference = (model(self.X) - model(torch.full_like(self.X, 0.5)))[:, 1].detach()
        torch.testing.assert_close(found.sum(1), difference)
        nobody = LayerDeepLift(model, layer).attribute(self.X[:0], 0.5, 1, attribute_to_layer_input=at_input)
        assert len(nobody) == 0

    @pytest.mark.parametrize("at_input", [False, True])
    def test_writes_that_other_tensors_share(self, at_input):
        """Another tensor at the layer would share no memory, and the model would be another function."""

        class Sharing(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last, self.inner = nn.Linear(3, 4), nn.Linear(4, 2), Shared()

            def forward(self, x):
                h = self.first(x)
                y = self.inner(h, h)
                if not at_input:
                    h.mul_(2)
                return self.last(torch.tanh(y))

        class Shared(nn.Module):
            def forward(self, a, b):
                return a.mul_(2) + b if at_input else a.view(b.shape)

        with pytest.raises(InterceptionError, match=r"writes to the memory of the .* of layer 'inner', which other"):
            LayerDeepLift(built(Sharing), "inner").attribute(self.X, 0.5, 1, attribute_to_layer_input=at_input)

    @pytest.mark.parametrize(("kind", "layer", "at_input"), [("ignored", "relu", False), ("no_grad", "linear", True)])
    def test_layers_off_the_path(self, kind, layer, at_input):
        with pytest.raises(InterceptionError, match="does not depend on the"):
            LayerDeepLift(built(Written, kind), layer).attribute(self.X, 0.5, 1, attribute_to_layer_input=at_input)

    def test_sequential_layers_are_whole(self):
        model = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Sequential(nn.Linear(4, 2))).double()
        assert torch.equal(complete(model, model[0], self.X, 0.5), complete(model, "0.1", self.X, 0.5))
        output = complete(model, "", self.X, 0.5)  # the model itself
        assert not output[:, 0].any()

    def test_the_model_and_the_process_stay_unchanged(self):
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(4)
        model = nn.Sequential(nn.Linear(3, 4), norm, nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(4, 2)).double()
        mean, draws = norm.running_mean.clone(), torch.get_rng_state()
        x = self.X.clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for at_input in (False, True):
                found, delta = LayerDeepLift(model, model[2]).attribute(x, 0.5, 1, None, True, at_input)
                assert found.any()
                assert delta.abs().max() < 1e-12
            model[4].weight.data = torch.zeros(3, 3)
            with pytest.raises(RuntimeError):
                LayerDeepLift(model, model[2]).attribute(x, 0.5, 1)
        assert torch.equal(norm.running_mean, mean)
        assert torch.equal(torch.get_rng_state(), draws)
        assert x.grad is None
        assert all(p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert not hooks._global_forward_hooks
        assert not hooks._global_forward_pre_hooks

    def test_threads_may_share_a_model(self):
        model = built(Gated)
        layers = ("words", "gates", "hidden", "relu")
        expected = {layer: LayerDeepLift(model, layer).attribute(TOKENS, OTHERS, 1) for layer in layers}
        wrong = []

        def work(layer):
            for _ in range(5):
                if not torch.equal(LayerDeepLift(model, layer).attribute(TOKENS, OTHERS, 1), expected[layer]):
                    wrong.append(layer)

        threads = [threading.Thread(target=work, args=(layer,)) for layer in layers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_the_delta_can_be_computed_afterwards(self):
        model = built(Gated)
        explainer = LayerDeepLift(model, "words")
        found, delta = explainer.attribute(TOKENS, OTHERS, 1, return_convergence_delta=True)
        torch.testing.assert_close(explainer.compute_convergence_delta(found, OTHERS, TOKENS, 1), delta)

    def test_noise_tunnels(self):
        noise = pytest.importorskip("captum.attr").NoiseTunnel
        model = built(Written, "plain")
        plain = LayerDeepLift(model, "relu").attribute(self.X, target=1)
        found = noise(LayerDeepLift(model, "relu")).attribute(self.X, nt_samples=2, stdevs=0.0, target=1)
        torch.testing.assert_close(found, plain)

    def test_a_layers_contributions_are_those_of_the_rest_of_the_model(self):
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Softmax(1)).double()
        h, h0 = (model[:2](x).detach() for x in (self.X, torch.zeros_like(self.X)))
        expected = attribute(model[2:], h, h0, 1, rules="complete").contributions
        torch.testing.assert_close(complete(model, model[1], self.X, 0), expected)
