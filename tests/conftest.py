"""What several test files share."""

import contextlib
import copy
import random
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import settings

from deeplift_fast.ops.precision import reduced
from deeplift_fast.support import clock

# No deadlines: other work on the machine would decide whether tests pass.
settings.register_profile("deeplift_fast", deadline=None, derandomize=True)
settings.load_profile("deeplift_fast")


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that at the end no core waits for one of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def _one_time():
    """Time stands still: the files of a run hold the time of its beginning, and tests compare files byte by byte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: datetime(2026, 1, 31, 12, tzinfo=UTC))
        yield


@pytest.fixture(autouse=True)
def _seed():
    """Models are drawn alike in every run, and whichever tests run before."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch with one thread, as workers of a cluster have: the last bits of a sum may depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_threads():
    """PyTorch with two threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _tensors(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _state(model):
    """Everything that looking at a model, or at the process, can tell."""
    modules = {
        name: {
            "module": id(module),
            "attributes": [(key, id(value)) for key, value in vars(module).items()],
            "containers": {
                key: [id(item) for item in (value.values() if isinstance(value, dict) else value)]
                for key, value in vars(module).items()
                if isinstance(value, dict | list | set)
            },
            "forward": module.forward.__func__.__code__ if hasattr(module.forward, "__func__") else None,
            "class": type(module),
        }
        for name, module in model.named_modules(remove_duplicate=False)
    }
    tensors = {
        name: (id(tensor), _version(tensor), tensor.requires_grad, id(tensor.grad), tensor.data_ptr(), tensor.shape)
        for name, tensor in _tensors(model).items()
    }
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    process = {
        "random": random.getstate(),
        "numpy": tuple(map(str, np.random.get_state())),  # noqa: NPY002 - the legacy generator is the one in question
        "torch": torch.get_rng_state().tolist(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "modes": torch._C._len_torch_function_stack(),
        "saved-tensor hooks": torch._C._autograd._saved_tensors_hooks_is_enabled(),
        "precision": reduced(),
        "threads": torch.get_num_threads(),
        "stance": getattr(getattr(dynamo, "_stance", None), "stance", "default"),
    }
    return {"modules": modules, "state dict": list(model.state_dict()), "tensors": tensors, "process": process}


def _version(tensor):
    return None if tensor.is_inference() else tensor._version


def _values(model):
    attributes = {
        f"{name}.{key}": value.detach().clone()
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    }
    tensors = _tensors(model)
    gradients = {f"{name}.grad": t.grad.clone() for name, t in tensors.items() if t.grad is not None}
    return copy.deepcopy({name: t.detach().clone() for name, t in tensors.items()}) | attributes | gradients


@pytest.fixture
def untouched():
    """A context in which a model and the process may be used, and after which both must be as before."""

    @contextlib.contextmanager
    def check(model):
        state, values = _state(model), _values(model)
        try:
            yield
        finally:
            after, values_after = _state(model), _values(model)
            for part, found in after.items():
                assert found == state[part], part
            assert values_after.keys() == values.keys()
            for name, value in values_after.items():
                assert torch.equal(value, values[name]), name

    return check
