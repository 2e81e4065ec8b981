"""Attribution leaves no trace on the model, whatever the model does to itself, nor on the caller's tensors."""

import collections

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deeplift_fast import attribute

aten = torch.ops.aten

pytestmark = pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Writing(nn.Module):
    """Does one of the things below to itself in every forward pass."""

    def __init__(self, write):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("memory", torch.zeros(4, 3))
        self.register_buffer("table", torch.ones(2, 5))
        self.plain = torch.zeros(3)
        self.history = []
        self.cache = {"old": 1}
        self.seen = {1, 2}
        self.recent = collections.deque([1, 2], maxlen=2)
        self.tensors = [torch.zeros(3)]
        self.value = None
        self.temporary = 1
        self.write = write

    def forward(self, x):
        self.write(self, x)
        hidden = torch.relu(self.linear(x) + self.mean + self.plain + self.tensors[0])
        return hidden.sum(1, keepdim=True) * (1 + self.steps) + len(self.history) + len(self.cache) + self.table.sum()


def assign(module, x):
    module.value = x
    module.last = x


def append(module, x):
    module.history.append(x)
    module.cache[len(module.cache)] = x
    module.seen.add(3)
    module.recent.append(x)


def delete(module, x):
    del module.temporary
    del module.cache["old"]


def swap_layer(module, x):
    module.linear = nn.Linear(3, 3, bias=False)
    module.linear.weight.data.fill_(1.0)


def register(module, x):
    module.register_buffer("late", x.detach())
    module.register_buffer("fleeting", x.detach(), persistent=False)
    module.register_forward_hook(lambda *_: None)
    module.extra = nn.Linear(1, 1)


def freeze(module, x):
    module.linear.weight.requires_grad = False
    module.linear.bias.requires_grad_(False)
    module.eval()


def clear_gradients(module, x):
    for parameter in module.parameters():
        parameter.grad = None


def with_no_grad(write):
    def run(module, x):
        with torch.no_grad():
            write(module, x)

    return run


@torch.library.custom_op("deeplift_fast_tests::count", mutates_args=("counter",))
def count(counter: torch.Tensor) -> None:
    counter.add_(1)


WRITES = {
    "buffer in place": lambda m, x: m.mean.mul_(0.9).add_(x.detach().mean(0)),
    "buffer augmented": lambda m, x: m.mean.__iadd__(x.detach().mean(0)),
    "buffer item": lambda m, x: m.mean.__setitem__(0, 3.0),
    "buffer through a view": lambda m, x: m.table[0, 1:3].fill_(7.0),
    "buffer through .data": lambda m, x: m.mean.data.add_(1.0),
    "buffer's .data replaced": lambda m, x: setattr(m.mean, "data", m.mean + 1.0),
    "buffer as out=": lambda m, x: torch.add(m.mean, 1.0, out=m.mean),
    "buffer by F.relu in place": lambda m, x: F.relu(m.mean.sub_(1.0), True),
    "buffer by dropout in place": lambda m, x: F.dropout(m.mean, 0.5, True, True),
    "buffer by an aten overload": lambda m, x: torch.ops.aten.add_.Tensor(m.mean, 1.0),
    "buffer by an aten packet": lambda m, x: torch.ops.aten.add_(m.mean, 1.0),
    "buffer by a custom op": lambda m, x: count(m.mean),
    "buffer by a custom op's packet": lambda m, x: torch.ops.deeplift_fast_tests.count(m.mean),
    "buffer by aten.batch_norm": lambda m, x: aten.batch_norm.default(
        x.detach(), None, None, m.mean, m.plain, True, 0.1, 1e-5, False
    ),
    "buffer by foreach": lambda m, x: torch._foreach_add_([m.mean, m.plain], 1.0),
    "buffer by lerp": lambda m, x: m.mean.lerp_(x.detach().mean(0), 0.1),
    "buffer reassigned": lambda m, x: setattr(m, "mean", 0.5 * m.mean + x.detach().mean(0)),
    "counter": lambda m, x: m.steps.add_(1),
    "counter reassigned": lambda m, x: setattr(m, "steps", m.steps + 1),
    "plain tensor in place": lambda m, x: m.plain.add_(x.detach().mean(0)),
    "tensor in a list in place": lambda m, x: m.tensors[0].add_(1.0),
    "parameter in place": with_no_grad(lambda m, x: m.linear.weight.mul_(0.5)),
    "parameter's .data replaced": lambda m, x: setattr(m.linear.weight, "data", m.linear.weight.data * 0.5),
    "parameter initialised": lambda m, x: nn.init.ones_(m.linear.weight),
    "parameter reassigned": lambda m, x: setattr(m.linear, "weight", nn.Parameter(torch.ones(3, 3))),
    "attributes set": assign,
    "containers filled": append,
    "attributes deleted": delete,
    "layer swapped": swap_layer,
    "things registered": register,
    "parameters frozen": freeze,
    "gradients cleared": clear_gradients,
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
def test_the_model_is_as_before_whatever_it_does_to_itself(write, rules, untouched):
    model = Writing(WRITES[write])
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with untouched(model):
        attribute(model, normal(4, 3), target=0, rules=rules)


@pytest.mark.parametrize("write", WRITES)
def test_both_streams_start_alike(write):
    """f(x) and f(x0) are what fresh copies of the model return, each run once."""
    x, x0 = normal(4, 3), normal(4, 3, seed=1)

    def fresh():
        torch.manual_seed(0)
        return Writing(WRITES[write])

    model = fresh()
    state = torch.get_rng_state()
    expected = []
    for values in (x, x0):
        copy = fresh()
        torch.set_rng_state(state)
        expected.append(copy(values)[:, 0].detach())
    found = attribute(model, x, x0, target=0)
    torch.testing.assert_close(found.output, expected[0])
    torch.testing.assert_close(found.baseline_output, expected[1])


@pytest.mark.parametrize("write", WRITES)
def test_the_model_is_as_before_after_an_exception(write, untouched):
    class Fault(Exception):
        pass

    def write_and_fail(module, x):
        WRITES[write](module, x)
        raise Fault

    model = Writing(write_and_fail)
    with untouched(model), pytest.raises(Fault):
        attribute(model, normal(4, 3), target=0)


def test_a_buffer_written_with_gradients_passes_them_on():
    """As in plain PyTorch, where the buffer becomes part of the graph."""

    class Memory(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("slots", torch.zeros(2, 4, 3))

        def forward(self, x):
            self.slots[0] = 2 * x
            self.slots[1].copy_(3 * x)
            return torch.relu(self.slots).sum((0, 2)).unsqueeze(1)

    model, x = Memory(), normal(4, 3)
    found = attribute(model, x)
    torch.testing.assert_close(found.contributions, 5 * x.clamp(min=0))
    assert not model.slots.any()
    assert not model.slots.requires_grad


def test_a_hidden_tensor_kept_on_the_module_is_not_the_modules_own():
    class Keeping(nn.Module):
        def forward(self, x):
            self.hidden = 2 * x
            self.trail = [self.hidden]
            torch.relu_(self.hidden)
            self.hidden.mul_(3)
            return self.trail[0].sum(1, keepdim=True)

    x = normal(4, 3)
    torch.testing.assert_close(attribute(Keeping(), x).contributions, 6 * x.clamp(min=0))


def test_a_model_sees_itself_unmodified_while_it_runs():
    class Mirror(nn.Sequential):
        def __init__(self, *layers):
            super().__init__(*layers)
            self.expected = None

        def look(self):
            modules = [
                (id(m), id(m.__dict__), type(m), m.forward.__func__, hooks(m), m.training) for m in self.modules()
            ]
            tensors = [*self.parameters(), *self.buffers()]
            return modules, [(id(t), t._version, t.requires_grad, t.data_ptr()) for t in tensors]

        def forward(self, x):
            assert self.look() == self.expected
            looks.append(1)
            return super().forward(x)

    def hooks(module):
        return {key: len(value) for key, value in vars(module).items() if "hooks" in key}

    looks = []
    model = Mirror(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Tanh(), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda *_: None)
    model.expected = model.look()
    with pytest.warns(UserWarning, match="BatchNorm1d"):
        attribute(model, normal(4, 3), target=0)
    assert looks == [1, 1]


@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_hooks_stay_and_run(rules, untouched):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    calls = collections.Counter()
    model[0].register_forward_pre_hook(lambda *_: calls.update(["before"]))
    model[1].register_forward_hook(lambda *_: calls.update(["after"]))
    model[2].register_full_backward_hook(lambda *_: calls.update(["backward"]))
    with untouched(model):
        found = attribute(model, normal(4, 3), target=0, rules=rules)
    assert found.convergence_delta.abs().max() < 1e-5
    assert calls == {"before": 2, "after": 2, "backward": 1}


@pytest.mark.parametrize("known", [True, False])
def test_backward_hooks_change_no_attribution(known):
    """They part tensors that are one, so that the attention takes another path where gradients are."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).double().eval()
    model = layer if known else lambda x: layer(x)
    x, options = torch.randn(2, 3, 4).double(), {"target": lambda y: y[:, 0, 0], "rules": "complete"}
    expected = attribute(model, x, **options)
    layer.self_attn.register_full_backward_hook(lambda *_: None)
    found = attribute(model, x, **options)
    torch.testing.assert_close(found.contributions, expected.contributions)
    assert not any("gradient" in row.rule for row in found.report)


@pytest.mark.parametrize("prepared", ["none", "filled", "frozen"])
def test_parameters_get_no_gradient_and_keep_theirs(prepared, untouched):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    if prepared == "filled":
        model(normal(4, 3)).sum().backward()
    if prepared == "frozen":
        model[0].requires_grad_(False)
        model[2].bias.requires_grad_(False)
    with untouched(model):
        attribute(model, normal(4, 3), target=0)


def test_the_callers_tensors_are_as_before():
    x, x0 = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    state = torch.zeros(3)
    x.grad = torch.ones_like(x)

    def model(x, state):
        x.mul_(2)
        state += 1
        return torch.relu(x * state).sum(1, keepdim=True)

    found = attribute(model, x, x0, forward_args=(state,))
    assert torch.equal(x.detach(), normal(4, 3))
    assert torch.equal(x0.detach(), normal(4, 3, seed=1))
    assert torch.equal(x.grad, torch.ones(4, 3))
    assert x.requires_grad
    assert x0.grad is None
    assert not state.any()
    torch.testing.assert_close(found.output, torch.relu(2 * x.detach()).sum(1))
    torch.testing.assert_close(found.baseline_output, torch.relu(2 * x0.detach()).sum(1))
    for result in (found.contributions, found.output, found.baseline_output, found.convergence_delta):
        assert not result.requires_grad


def test_containers_among_the_further_arguments_are_as_before():
    options = {"batch": {"scale": [torch.tensor(2.0)]}}

    def model(x, batch):
        return x * batch.pop("scale").pop()

    found = attribute(model, normal(4, 3), target=0, forward_args=options)
    assert list(options["batch"]) == ["scale"]
    assert len(options["batch"]["scale"]) == 1
    torch.testing.assert_close(found.output, 2 * normal(4, 3)[:, 0])
