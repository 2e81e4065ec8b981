"""Layers that a model calls several times or never, unknown ones, and those without influence."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooks

from deeplift_fast import InterceptionError
from deeplift_fast.captum import LayerDeepLift, NeuronDeepLift

pytestmark = pytest.mark.filterwarnings("error")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(kind, *args):
    torch.manual_seed(1)
    return kind(*args).double().eval()


class Twice(nn.Module):
    """One linear layer and one ReLU, called twice each; other modules are not called, or their result is unused."""

    def __init__(self):
        super().__init__()
        self.linear, self.relu, self.unused = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)
        self.held, self.attention = nn.ModuleList([nn.Tanh()]), nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x):
        self.unused(x)
        x = self.relu(self.linear(self.relu(self.linear(x))))
        return self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0]


class TestCalls:
    X = normal(4, 3)

    def test_several_calls_need_a_name(self):
        model = built(Twice)
        for layer in (model.linear, model.relu):
            with pytest.raises(
                ValueError, match="is called 2 times in one forward pass; name the call: call=0 to call=1"
            ):
                LayerDeepLift(model, layer).attribute(self.X, target=0)
        values = []
        handle = model.linear.register_forward_hook(lambda module, args, output: values.append(output.detach()))
        model(self.X)
        handle.remove()
        for call, number in ((0, 0), (1, 1), (-1, 1), (np.int64(-2), 0)):
            explainer = LayerDeepLift(model, model.linear, call=call)
            _, delta = explainer.attribute(self.X, 0.1, 0, return_convergence_delta=True)
            assert delta.abs().max() < 1e-12
            seen = explainer.attribute(self.X, 0.1, 0, custom_attribution_func=lambda multipliers, inputs: inputs)
            torch.testing.assert_close(seen, values[number])
        with pytest.raises(ValueError, match="call is 2, and layer 'linear' is called 2 time"):
            LayerDeepLift(model, model.linear, call=2).attribute(self.X, target=0)

    def test_captum_takes_the_last_call(self):
        theirs = pytest.importorskip("captum.attr")
        model = built(Twice)
        relus = nn.Sequential(model.linear, nn.ReLU(), model.linear, nn.Sigmoid(), nn.Linear(3, 1)).double()
        expected = theirs.LayerDeepLift(relus, model.linear).attribute(self.X)
        torch.testing.assert_close(LayerDeepLift(relus, model.linear, call=-1).attribute(self.X), expected)

    @pytest.mark.parametrize("call", [0, 1, -1])
    def test_neurons_have_their_call(self, call):
        model = built(Twice)
        found = NeuronDeepLift(model, "linear", call=call).attribute(self.X, 2, 0.1)
        steps = [model.linear, model.relu, model.linear][: 1 if call == 0 else 3]
        up_to = nn.Sequential(*steps)
        difference = (up_to(self.X) - up_to(torch.full_like(self.X, 0.1)))[:, 2].detach()
        torch.testing.assert_close(found.sum(1), difference)
        with pytest.raises(ValueError, match="is called 2 times in one forward pass"):
            NeuronDeepLift(model, "linear").attribute(self.X, 2)

    @pytest.mark.parametrize("layer", ["held", "held.0", "attention.out_proj"])
    def test_a_layer_that_is_not_called(self, layer):
        with pytest.raises(AssertionError, match=f"layer '{layer}' is not called by the forward pass"):
            LayerDeepLift(built(Twice), layer).attribute(self.X, target=0)

    def test_a_layer_that_only_lends_its_weights(self):
        """Models of the library transformers have such embeddings: `get_input_embeddings()` of T5 and BART."""

        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.shared, self.used, self.head = nn.Embedding(9, 3), nn.Embedding(9, 3), nn.Linear(3, 9)
                self.used.weight = self.head.weight = self.shared.weight

            def forward(self, tokens):
                return self.head(self.used(tokens).mean(1))

        model = Tied()
        with pytest.raises(ValueError, match=r"'shared' is not called .* These modules have the same weights: 'used'$"):
            LayerDeepLift(model, model.shared).attribute(torch.ones(2, 3).long(), target=0)

    def test_a_name_in_a_function(self):
        with pytest.raises(ValueError, match="it is a function, whose modules are unknown; accepted"):
            LayerDeepLift(lambda x: x, "encoder")

    @pytest.mark.parametrize(
        ("layer", "options", "said"),
        [
            ("linea", {}, "layer is 'linea', and the model has no such module; accepted: .* 'linear'"),
            (nn.Linear(3, 3), {}, "layer is a Linear that is not part of the model"),
            ([nn.ReLU()], {}, "layer is a list; accepted: one module"),
            ("linear", {"call": "last"}, "call is 'last'; accepted"),
            ("linear", {"call": True}, "call is True; accepted"),
        ],
    )
    def test_unknown_layers(self, layer, options, said):
        with pytest.raises((ValueError, TypeError), match=said):
            LayerDeepLift(built(Twice), layer, **options)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"grad_kwargs": {"create_graph": True}}, "grad_kwargs holds create_graph"),
            ({"grad_kwargs": 1}, "grad_kwargs is a int"),
            ({}, "does not depend on the output of layer 'unused'"),
        ],
    )
    def test_unused_layers(self, options, said):
        explainer = LayerDeepLift(built(Twice), "unused")
        with pytest.raises((ValueError, TypeError, InterceptionError), match=said):
            explainer.attribute(self.X, target=0, **options)
        for name in ("materialize_grads", "allow_unused"):
            assert not explainer.attribute(self.X, target=0, grad_kwargs={name: True}).any()

    def test_inputs_without_numbers(self):
        model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten())
        with pytest.raises(TypeError, match=r"the input of layer '0' holds no floating-point tensor \(torch.int64\)"):
            LayerDeepLift(model, "0").attribute(torch.ones(2, 3).long(), target=0, attribute_to_layer_input=True)

        class Named(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.ReLU()

            def forward(self, x):
                return self.inner(input=x)

        with pytest.raises(TypeError, match="named arguments alone"):
            LayerDeepLift(Named(), "inner").attribute(self.X, target=0, attribute_to_layer_input=True)


def test_compiled_modules_do_not_warn_of_the_hooks():
    class Compiled(nn.Module):
        """Warns as `torch.compile`'s modules do."""

        def __init__(self, module):
            super().__init__()
            self._orig_mod = module

        def __call__(self, x):
            if hooks._has_any_global_hook():
                warnings.warn("Using `torch.compile(module)` when there are global hooks on modules", stacklevel=2)
            return self._orig_mod(x)

    model = Compiled(nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double())
    expected = LayerDeepLift(model._orig_mod, "0").attribute(TestCalls.X, target=0)
    assert torch.equal(LayerDeepLift(model, model._orig_mod[0]).attribute(TestCalls.X, target=0), expected)
