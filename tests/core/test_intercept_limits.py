"""Where a model cannot be looked into, it is refused, warned of, or run as written: compiled, scripted, transformed."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from deeplift_fast import InterceptionError, InterceptionWarning, attribute

pytestmark = pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")


def normal(*shape, seed=0, dtype=torch.float32):
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mlp(activation=nn.Tanh):
    return nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))


def delta(model, x=None, x0=None, **options):
    """Nearly zero where every activation was met."""
    x = normal(5, 4) if x is None else x
    found = attribute(model, x, normal(*x.shape[1:], seed=1) if x0 is None else x0, target=0, **options)
    return found.convergence_delta.abs().max().item()


class TestPairing:
    """The two streams must meet the same activations; where they do not, the error says which and leaves no trace."""

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (
                lambda x: torch.relu(x) if x.sum() > 0 else x * 1,
                r"activation 1 of the forward pass is relu of shape \(2, 3\) at the input but no activation at the bas",
            ),
            (
                lambda x: torch.tanh(x) * 1 if x.sum() > 0 else torch.relu(torch.tanh(x)),
                r"activation 2 of the forward pass is no activation at the input but relu of shape \(2, 3\) at the bas",
            ),
            (
                lambda x: torch.relu(x).sigmoid() if x.sum() > 0 else torch.relu(x).tanh(),
                r"activation 2 .* is sigmoid of shape \(2, 3\) at the input but tanh of shape \(2, 3\) at the baseline",
            ),
            (
                lambda x: torch.relu(x[:, : 1 + int(x.sum() > 0)]).sum(1, keepdim=True),
                r"activation 1 .* is relu of shape \(2, 2\) at the input but relu of shape \(2, 1\) at the baseline",
            ),
            (
                lambda x: torch.relu(x if x.sum() > 0 else x.double()).float(),
                r"is relu of shape \(2, 3\) \(torch.float32\) at the input but relu of shape .* \(torch.float64\) at",
            ),
        ],
    )
    def test_another_path_at_the_baseline(self, model, message, untouched):
        class Model(nn.Module):
            def forward(self, x):
                return model(x)

        module = Model()
        with untouched(module), pytest.raises(InterceptionError, match=message) as caught:
            attribute(module, torch.ones(2, 3), target=0)
        assert "baseline that takes the same path" in str(caught.value)
        assert torch.tanh(torch.ones(1)).item() == pytest.approx(0.76159, abs=1e-4)

    def test_the_next_attribution_starts_afresh(self):
        def model(x):
            return torch.relu(x) if x.sum() > 0 else x * 1

        with pytest.raises(InterceptionError):
            attribute(model, torch.ones(2, 3), target=0)
        assert (
            attribute(model, torch.ones(2, 3), torch.ones(3) / 2, target=0).contributions.tolist() == [[0.5, 0, 0]] * 2
        )

    def test_shapes_of_outputs_must_agree(self):
        with pytest.raises(ValueError, match=r"shape \(2, 2\) at the input and \(2, 1\) at the baseline"):
            attribute(lambda x: x[:, : 1 + int(x.sum() > 0)], torch.ones(2, 3), target=0)

    def test_paths_that_agree_may_depend_on_other_values(self):
        def model(x, steps):
            for _ in range(steps):
                x = torch.tanh(2 * x)
            return x

        assert delta(model, forward_args=(3,)) < 1e-6


@pytest.mark.parametrize("on_cpu", [True, False])
def test_attention_that_compiles_itself_is_refused(on_cpu):
    """The two errors of `flex_attention`, without the ten seconds that its first call takes."""

    def model(x):
        if on_cpu:
            raise NotImplementedError("FlexAttention does not support backward on CPU.")
        raise torch._dynamo.exc.TorchRuntimeError("attempted to call a function that is marked as skipped")

    with pytest.raises(InterceptionError, match=r"such as flex_attention.*attn_implementation=\"sdpa\""):
        attribute(model, normal(2, 3), target=0)


@pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
def test_hidden_operations_are_an_error_in_place_of_plain_gradients(rules):
    model, x = mlp(), normal(3, 4)
    with torch._C.DisableTorchFunction(), pytest.raises(InterceptionError, match="DisableTorchFunction"):
        attribute(model, x, target=0, rules=rules)
    expected = attribute(model, x, target=0, rules=rules).contributions
    with torch._C.DisableTorchFunctionSubclass():  # hides nothing from modes
        assert torch.equal(attribute(model, x, target=0, rules=rules).contributions, expected)


class TestCheckpointing:
    """A checkpointed segment runs anew in the backward pass, past the interception."""

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_it_is_refused(self, reentrant, untouched):
        class Checkpointed(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = mlp()

            def forward(self, x):
                return checkpoint(self.layers, x, use_reentrant=reentrant)

        model = Checkpointed()
        with untouched(model), pytest.raises(InterceptionError, match=r"checkpointing.*switch them off"):
            attribute(model, normal(5, 4), target=0)

    def test_checkpointed_sequences_are_refused(self):
        model = mlp()
        with pytest.raises(InterceptionError, match="checkpointing"):
            attribute(lambda x: checkpoint_sequential(model, 2, x, use_reentrant=False), normal(5, 4), target=0)

    def test_other_saved_tensor_hooks_are_refused(self):
        def model(x):
            with torch.autograd.graph.save_on_cpu():
                return torch.relu(x) * x

        with pytest.raises(InterceptionError, match="saved-tensor hooks"):
            attribute(model, normal(5, 4), target=0)

    def test_errors_of_the_model_itself_pass_through(self):
        def model(x):
            raise RuntimeError("the model's own checkpoint is corrupt")

        with pytest.raises(RuntimeError, match="own checkpoint is corrupt") as caught:
            attribute(model, normal(5, 4), target=0)
        assert caught.type is RuntimeError


class TestTransformed:
    @pytest.mark.parametrize("function", ["relu", "sigmoid", "tanh"])
    def test_vmap_is_refused(self, function):
        with pytest.raises(InterceptionError, match=f"{function} is called on a transformed tensor"):
            attribute(torch.vmap(getattr(torch, function)), normal(5, 4), target=0)

    def test_nested_tensors_are_refused(self):
        def model(x, layout):
            nested = torch.nested.as_nested_tensor([x[0], x[1, :2]], layout=layout)
            return torch.relu(nested).to_padded_tensor(0.0)

        for layout in (torch.strided, torch.jagged):
            with pytest.raises(InterceptionError, match="nested"):
                attribute(model, normal(2, 4), target=0, forward_args=(layout,))

    def test_sparse_tensors_are_refused(self):
        with pytest.raises(InterceptionError, match="sparse"):
            attribute(lambda x: torch.relu(x.to_sparse()).to_dense(), normal(5, 4), target=0)

    def test_a_lazy_module_is_refused(self):
        model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
        with pytest.raises(InterceptionError, match=r"module '0' is lazy .*; run the model once"):
            attribute(model, normal(5, 4), target=0)
        model(normal(5, 4))
        assert delta(model) < 1e-6

    def test_data_parallel_over_several_devices_is_refused(self):
        model = nn.Sequential(nn.DataParallel(nn.Linear(4, 2)))
        assert attribute(model, normal(5, 4), target=0)
        model[0].device_ids = [0, 1]
        with pytest.raises(InterceptionError, match=r"module '0' is a DataParallel.*\.module"):
            attribute(model, normal(5, 4), target=0)


class TestCompiled:
    """Compiled models run as written."""

    @pytest.fixture
    def eager(self):
        return mlp()

    def assert_like_eager(self, model, eager, **options):
        found = attribute(model, normal(5, 4), normal(4, seed=1), target=0, **options)
        expected = attribute(eager, normal(5, 4), normal(4, seed=1), target=0)
        assert torch.equal(found.contributions, expected.contributions)
        assert torch.equal(found.convergence_delta, expected.convergence_delta)

    @pytest.mark.parametrize("used", [False, True])
    def test_whole(self, eager, used):
        compiled = torch.compile(eager, backend="aot_eager")
        if used:
            compiled(normal(5, 4)).sum().backward()
        self.assert_like_eager(compiled, eager)

    def test_part(self, eager):
        compiled = nn.Sequential(eager[0], torch.compile(eager[1:], backend="eager", fullgraph=True))
        compiled(normal(5, 4))
        self.assert_like_eager(compiled, eager)

    def test_in_place_compilation(self):
        torch.manual_seed(0)
        model, same = mlp(), mlp()
        same.load_state_dict(model.state_dict())
        model[1].compile(backend="eager")
        model.compile(backend="eager")
        model(normal(5, 4))
        self.assert_like_eager(model, same)

    def test_function(self, eager):
        activation = torch.compile(torch.tanh, backend="eager")
        activation(normal(2))
        self.assert_like_eager(lambda x: eager[2:](activation(eager[0](x))), eager)

    def test_compiled_code_serves_others_again_afterwards(self, eager):
        graphs = []

        def backend(module, inputs):
            graphs.append(module)
            return module.forward

        compiled = torch.compile(mlp(), backend=backend)
        attribute(compiled, normal(5, 4), target=0)
        assert not graphs
        compiled(normal(5, 4))
        assert len(graphs) == 1


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
class TestScripted:
    """Scripted code cannot be looked into: it keeps its gradient, and the warning names it."""

    def named(self, model, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = attribute(model, normal(5, 4), target=0, **options)
        messages = [w for w in caught if w.category is InterceptionWarning]
        assert all(w.filename == __file__ for w in messages)
        return found, [str(w.message).split(": ")[1].split(";")[0] for w in messages]

    def test_parts_are_named_once(self):
        layers = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Tanh()), nn.ReLU())
        layers[1] = torch.jit.script(layers[1])
        model = nn.ModuleDict({"encoder": layers, "head": torch.jit.script(nn.Linear(4, 2))})
        _, named = self.named(lambda x: model["head"](model["encoder"](x)), modules=[model])
        assert named == ["encoder.1, head"]

    def test_a_whole_model_is_named_by_its_class(self):
        _, named = self.named(torch.jit.script(mlp()))
        assert named == ["Sequential"]
        _, named = self.named(torch.jit.trace(mlp(), normal(5, 4)))
        assert named == ["Sequential"]

    def test_functions_are_named(self):
        @torch.jit.script
        def shrink(x):
            return torch.tanh(x)

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.activation = shrink

            def forward(self, x):
                return self.activation(x)

        assert self.named(shrink)[1] == ["shrink"]
        assert self.named(nn.Sequential(Model()))[1] == ["0.activation"]

    def test_it_is_attributed_by_its_gradient(self):
        model = mlp(nn.Sigmoid)
        x = normal(5, 4).requires_grad_()
        model(x)[:, 0].sum().backward()
        found, _ = self.named(torch.jit.script(model))
        raw = found.convergence_delta + found.output - found.baseline_output
        torch.testing.assert_close(raw, (x.grad * x.detach()).sum(1))

    def test_plain_models_are_not_warned_of(self):
        assert self.named(mlp())[1] == []


class TestAutocast:
    def test_inside_the_model(self):
        model = mlp()

        def cast(x):
            with torch.autocast("cpu", torch.bfloat16):
                hidden = model[0](x)
                assert hidden.dtype == torch.bfloat16
                return model[1:](hidden).float()

        assert delta(cast) < 0.05
        found = attribute(cast, normal(5, 4), target=0)
        assert found.contributions.dtype == torch.float32
        torch.testing.assert_close(
            found.contributions, attribute(model, normal(5, 4), target=0).contributions, rtol=0.1, atol=0.05
        )

    def test_around_the_attribution(self):
        model = mlp()
        expected = attribute(model, normal(5, 4), target=0)
        with torch.autocast("cpu", torch.bfloat16):
            found = attribute(model, normal(5, 4), target=0)
        assert found.output.dtype == torch.bfloat16
        torch.testing.assert_close(found.contributions, expected.contributions, rtol=0.1, atol=0.05)


MODULES = [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.ReLU(inplace=True)]
FUNCTIONS = [
    torch.relu,
    F.relu,
    torch.sigmoid,
    torch.tanh,
    lambda x: x.tanh(),
    lambda x: (x * 1).sigmoid_(),
    lambda x: F.relu(x * 1, inplace=True),
    torch.special.expit,
]


class TestPyHealthsActivations:
    """With rules="pyhealth" only those count that PyHealth swaps: activation modules."""

    def raw(self, model, x, x0):
        found = attribute(lambda x: model(x).sum(1), x, x0, rules="pyhealth")
        return found.convergence_delta + found.output - found.baseline_output

    def pair(self):
        """Positive, so that no derivative of a ReLU is zero, which PyHealth's rule does not bear."""
        return normal(5, 4, dtype=torch.float64).abs(), normal(5, 4, seed=1, dtype=torch.float64)

    @pytest.mark.parametrize("module", MODULES, ids=repr)
    @pytest.mark.parametrize("hooked", [False, True])
    def test_modules_are_met(self, module, hooked):
        x, x0 = self.pair()
        model = nn.Sequential(nn.Identity(), module)
        if hooked:
            handle = module.register_forward_hook(lambda *_: None)
        torch.testing.assert_close(self.raw(lambda x: model(x * 1), x, x0), (module(x * 1) - module(x0 * 1)).sum(1))
        if hooked:
            handle.remove()

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_functions_have_their_ordinary_gradient(self, function):
        class Wrapper(nn.Module):
            def forward(self, x):
                return function(x)

        x, x0 = self.pair()
        leaf = x.clone().requires_grad_()
        function(leaf).sum().backward()
        model = nn.Sequential(nn.Identity(), Wrapper())
        torch.testing.assert_close(self.raw(model, x, x0), (leaf.grad * (x - x0)).sum(1))

    def test_a_module_called_several_times_by_one_name_is_swapped_for_all(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.act = nn.Tanh()

            def forward(self, x):
                return self.act(self.act(x))

        x, x0 = self.pair()
        change = torch.tanh(torch.tanh(x)) - torch.tanh(torch.tanh(x0))
        torch.testing.assert_close(self.raw(Model(), x, x0), change.sum(1))
