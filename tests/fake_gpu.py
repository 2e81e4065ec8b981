"""A GPU that holds no numbers: tensors on it know their shape, dtype and device, and nothing else.

Whatever asks for a number or for a shape that depends on numbers fails, and so does mixing devices. What runs here
never waits for the GPU, and makes everything on the tensors' device.
"""

import copy
import warnings

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from deeplift_fast import DeepLift
from deeplift_fast.core.questions import on_host, wanted
from deeplift_fast.pyhealth.fused import plan

# Calls that launch no kernel: other looks at the same memory, and memory of whatever content.
_FREE = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach", "device", "diagonal", "empty",
    "empty_like", "empty_strided", "expand", "lift_fresh", "narrow", "new_empty", "new_empty_strided", "permute",
    "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze",
    "view", "view_as",
}  # fmt: skip
RECURRENT = ("recurrent", "recurrent_backward")


class Launches(TorchDispatchMode):
    """Counts the calls that launch a kernel on a device.

    Args:
        device: its type; on another one nothing is launched.

    Attributes:
        calls: their names, in order; `"sync"` where one waits for a number.
    """

    def __init__(self, device):
        super().__init__()
        self.device = device
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """See :class:`TorchDispatchMode`."""
        found = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, found)) if isinstance(t, torch.Tensor)]
        if name not in _FREE and any(t.device.type == self.device for t in tensors):
            # A batched product copies its bias first; a plain one adds it on the way.
            self.calls += ["copy", name] if name == "baddbmm" else [name]
        return found


class Waits(TorchDispatchMode):
    """Notes the calls that wait for a device: copies to the CPU, and copies from it that are not from pinned memory.

    Attributes:
        calls: `"to the CPU"` and `"from the CPU"`, in order.
    """

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """See :class:`TorchDispatchMode`."""
        found = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::_to_copy", "aten::copy_"):
            source = args[1] if func._schema.name == "aten::copy_" else args[0]
            kinds = source.device.type, found.device.type
            asynchronous = (kwargs or {}).get("non_blocking", False) and kinds[1] != "cpu"
            if kinds[0] != kinds[1] and not asynchronous:
                self.calls.append("to the CPU" if kinds[1] == "cpu" else "from the CPU")
        return found


def moved(model, batch, device):
    """The model, changed, and the batch, on a fake GPU; within the fake mode."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(_empty(parameter, device))
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else _empty(buffer, device)
    return model, {key: _moved(value, device) for key, value in batch.items()}


def _moved(value, device):
    if isinstance(value, tuple | list):
        return tuple(_moved(part, device) for part in value)
    return _empty(value, device) if isinstance(value, torch.Tensor) else value


def _empty(tensor, device):
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)


def prepare(monkeypatch):
    """Stand-ins for what needs a GPU's driver or its numbers; returns the list of read-backs, in questions.

    Every number that is read back is 0.
    """
    read_back = []

    def fetch(self):
        asked, self.open = self.open, []
        read_back.append(len(asked))
        if asked:
            on_host(wanted(asked))
        with _disable_current_modes():  # the answers are on the CPU, which is a true one
            for each in asked:
                sizes = [(1, torch.float64)] if each.summed else [(t.numel(), t.dtype) for t in each.tensors]
                each.then([torch.zeros(size, dtype=dtype) for size, dtype in sizes])

    monkeypatch.setattr("deeplift_fast.core.questions.Later.fetch", fetch)
    monkeypatch.setattr(plan.Plan, "_check", staticmethod(lambda *given: (None, True)))
    # Comes once per interpreter, and waits.
    monkeypatch.setattr("deeplift_fast.pyhealth.interpreter.DeepLift._compare", lambda *given: None)
    monkeypatch.setattr(
        "deeplift_fast.pyhealth.fused.plan._versions", lambda weights: [id(weight) for weight in weights]
    )
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.plan.wait_for", lambda weights: None)
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.sequences._everybody", _everybody)
    monkeypatch.setattr("deeplift_fast.core.devices._pinned", lambda tensor: tensor)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device=None: _Stream())
    return read_back


def _everybody(samples, steps):
    with _disable_current_modes():  # the CPU is a true one, and its numbers are known
        return torch.full((steps,), samples)


class _Stream:
    cuda_stream = 0

    def synchronize(self):
        pass


def explained(model, batch, rules, device="cuda:0", steps=1, counting=None, baseline="unk", at_baseline=None):
    """The attribution on a fake GPU; `counting` counts the second call, which finds everything prepared."""
    model = copy.deepcopy(model)
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=UserWarning, module="pyhealth")
        model, batch = moved(model, batch, device)
        interpreter = DeepLift(model, rules=rules, baseline=baseline)
        found = interpreter.explain(steps=steps, at_baseline=at_baseline, **batch)
        if counting is not None:
            with counting:
                found = interpreter.explain(steps=steps, at_baseline=at_baseline, **batch)
    return found
