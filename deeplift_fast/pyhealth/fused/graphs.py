"""CUDA graphs of whole attributions: captured once per kind of batch, then replayed with one launch.

Batches of one kind have the same shapes after padding to a bucket. Each call copies its inputs into the graph's own
tensors, and its results out of them.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, override

import torch
from pyhealth.models import MLP, RNN, StageAttentionNet, Transformer
from torch import Tensor, nn

from deeplift_fast.core.questions import Later, Questions, Then
from deeplift_fast.core.result import Attribution
from deeplift_fast.errors import GraphWarning, warn
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.model import embeddings
from deeplift_fast.pyhealth.fused.run import Baselines, Call, Features, Verdict, judged, tensors_of, with_tensors

Judged = tuple[Attribution, Verdict]

KEPT = 8  # graphs per model; the least recently used one is dropped
BUCKET = 16  # steps are padded to a multiple of this
WARM_UPS = 2  # runs before a capture: Triton compiles, libraries choose their kernels


class Graph(Protocol):
    """The recorded launches of a function."""

    def __init__(self, device: torch.device) -> None: ...

    def capture(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Record the launches of a function, and return the tensors that every replay writes to."""
        ...

    def replay(self) -> None:
        """Repeat the launches."""
        ...

    def begin(self) -> None:
        """Make the current CUDA stream wait until the graph's tensors are free."""
        ...

    def end(self) -> None:
        """Mark the tensors as free, after the work so far on the current CUDA stream."""
        ...


class CudaGraph(Graph):
    """A :class:`Graph` on `torch.cuda.CUDAGraph`; see "CUDA Graphs" in PyTorch's "CUDA semantics"."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()
        self._free = torch.cuda.Event()

    @override
    def capture(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream(self._device)
            aside.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    function()
            torch.cuda.current_stream(self._device).wait_stream(aside)
            with torch.cuda.graph(self._graph):
                return function()

    @override
    def replay(self) -> None:
        self._graph.replay()

    @override
    def begin(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._free)

    @override
    def end(self) -> None:
        self._free.record(torch.cuda.current_stream(self._device))


@dataclass(frozen=True)
class _Captured:
    """A graph with its own inputs and results."""

    graph: Graph
    features: Features
    baselines: Baselines
    keys: list[str]
    tensors: list[Tensor]
    thens: list[tuple[int, Then]]


class Graphs:
    """The graphs of one interpreter.

    Args:
        kind: creates a graph on a device.
        device_type: the type of device with graphs.
    """

    def __init__(self, kind: Callable[[torch.device], Graph] = CudaGraph, device_type: str = "cuda") -> None:
        self._kind = kind
        self._device_type = device_type
        self._kept: OrderedDict[Any, _Captured] = OrderedDict()
        self._fused: Any = None
        self._silent: dict[str, bool] = {}
        self._refused: str | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def refuse(self, reason: str) -> None:
        """Stop using graphs, with one warning that names the reason."""
        if self._refused is None:
            self._refused = reason
            warn(f"cuda_graphs=True has no effect: {reason}", GraphWarning)

    def replayed(self, call: Call, features: Features, baselines: Baselines, questions: Questions) -> Judged | None:
        """The attribution and its verdict from a graph, captured if needed; `None` after a refusal.

        Args:
            call: the request.
            features: the batch.
            baselines: by feature key, of the values' shapes.
            questions: takes the questions of the fused layers to the batch.

        Raises:
            Unfit: if the layers do not fit the batch.

        Warns:
            GraphWarning: once, if the batch is not on CUDA or a capture fails.
        """
        device = next(iter(features.values())).value.device
        if device.type != self._device_type:
            self.refuse(f"the model is on {device}, and only CUDA has graphs")
        if self._refused is not None:
            return None
        with self._lock, torch.inference_mode(False), torch.no_grad():
            if call.fused is not self._fused:  # replaced when a weight changes
                self._kept.clear()
                self._fused, self._silent = call.fused, _silent(call, features)
            shapes = padded_shapes(call, features, self._silent)
            key = _key(call, features, baselines, shapes)
            if key not in self._kept:
                try:
                    self._kept[key] = self._captured(call, features, baselines, shapes, device)
                except RuntimeError as error:
                    self.refuse(f"a capture failed ({str(error).splitlines()[0]})")
                    return None
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return _replayed(self._kept[key], features, baselines, questions)

    def _captured(
        self,
        call: Call,
        features: Features,
        baselines: Baselines,
        shapes: Mapping[str, tuple[int, ...]],
        device: torch.device,
    ) -> _Captured:
        own = {key: _own(feature, shapes[key]) for key, feature in features.items()}
        own0 = {key: _own_baseline(baselines[key], shapes[key]) for key in own}
        _fill(own, own0, features, baselines)
        keys: list[str] = []
        thens: list[tuple[int, Then]] = []

        def run() -> list[Tensor]:
            asked = Later()
            found, verdict = judged(call, own, own0, asked)
            keys[:] = found.contributions
            thens[:] = [(len(numbers), then) for numbers, then in asked.open]
            return [*tensors_of(found, verdict), *(number for numbers, _ in asked.open for number in numbers)]

        graph = self._kind(device)
        tensors = graph.capture(run)
        return _Captured(graph, own, own0, keys, tensors, thens)


def _replayed(captured: _Captured, features: Features, baselines: Baselines, questions: Questions) -> Judged:
    captured.graph.begin()
    _fill(captured.features, captured.baselines, features, baselines)
    captured.graph.replay()
    tensors = [tensor.clone() for tensor in captured.tensors]
    captured.graph.end()
    asked = sum(count for count, _ in captured.thens)
    found, verdict = with_tensors(captured.keys, tensors[: len(tensors) - asked])
    numbers = iter(tensors[len(tensors) - asked :])
    for count, then in captured.thens:
        questions.ask([next(numbers) for _ in range(count)], then)
    cut = {key: each[_corner(features[key].value)] for key, each in found.contributions.items()}
    return replace(found, contributions=cut), verdict


def padded_shapes(call: Call, features: Features, silent: Mapping[str, bool]) -> dict[str, tuple[int, ...]]:
    """Each value's shape in its bucket: more steps, and more slots in a step, if these change no number.

    Args:
        call: the request.
        features: the batch.
        silent: by token feature, whether the embedding of padding is 0.
    """
    exact = call.options.rules == "pyhealth"  # padding gets contributions
    if isinstance(call.model, Transformer | StageAttentionNet):
        # A masked query attends to all positions equally, so padding would count.
        exact = exact or not _real_steps_lead(features)
    return {
        key: tuple(feature.value.shape) if exact else _padded_shape(call, feature, silent.get(key, False))
        for key, feature in features.items()
    }


def _silent(call: Call, features: Features) -> dict[str, bool]:
    layers = {key: embeddings(call.model)[key] for key, feature in features.items() if feature.is_token}
    return {key: isinstance(layer, nn.Embedding) and not bool(layer.weight[0].any()) for key, layer in layers.items()}


def _real_steps_lead(features: Features) -> bool:
    """Whether every sample begins with a real step and has no real step after padding."""
    found = []
    for feature in features.values():
        real = feature.real() if feature.value.dim() > 1 else None
        if real is None or (not feature.is_token and feature.value.dim() == 2):
            continue
        steps = real.flatten(2).any(-1) if real.dim() > 2 else real
        found += [steps[:, 0].all(), (steps[:, 1:] <= steps[:, :-1]).all()]
    return not found or bool(torch.stack(found).all())


def _padded_shape(call: Call, feature: Feature, silent: bool) -> tuple[int, ...]:
    shape = list(feature.value.shape)
    masked = not isinstance(call.model, MLP | RNN)  # these two find padding by its embedding
    axes = [1] if len(shape) > 1 + (not feature.is_token) and (masked or (feature.is_token and silent)) else []
    if feature.is_token and silent and len(shape) > 2:
        axes.append(2)  # padding adds 0 to the sum over slots
    longest = call.model.max_seq_len if isinstance(call.model, Transformer) else None
    for axis in axes:
        size = -(-shape[axis] // BUCKET) * BUCKET
        shape[axis] = size if axis != 1 or longest is None else max(shape[axis], min(size, longest))
    return tuple(shape)


def _key(call: Call, features: Features, baselines: Baselines, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    parts = [
        [(_sizes(part, each, shapes[key]), part.dtype) if isinstance(part, Tensor) else part for part in each.parts]
        for key, each in features.items()
    ]
    kinds = [
        (each.value.dtype, each.keeps_mask, None if each.embedding is None else each.embedding.dim())
        for each in baselines.values()
    ]
    return repr((parts, kinds, call.target, call.options))


def _sizes(part: Tensor, feature: Feature, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a part if the value is padded to `shape`: times and masks follow the value's steps."""
    sizes = list(part.shape)
    for axis, (old, new) in enumerate(zip(feature.value.shape, shape, strict=True)):
        if axis >= len(sizes) or sizes[axis] != old:
            break
        sizes[axis] = new
    return tuple(sizes)


def _own(feature: Feature, shape: tuple[int, ...]) -> Feature:
    """A feature of zeros, in the padded shape."""
    parts = tuple(
        part.new_zeros(_sizes(part, feature, shape)) if isinstance(part, Tensor) else part for part in feature.parts
    )
    mask = next((new for new, old in zip(parts, feature.parts, strict=True) if old is feature.mask), None)
    return replace(feature, parts=parts, mask=None if feature.mask is None else mask)


def _own_baseline(baseline: BaselineValue, shape: tuple[int, ...]) -> BaselineValue:
    """A baseline of zeros, in the padded shape; fused layers do not use `removed`."""
    return replace(
        baseline,
        value=baseline.value.new_zeros(shape),
        removed=None,
        embedding=None if baseline.embedding is None else torch.zeros_like(baseline.embedding),
        embedded=None if baseline.embedded is None else baseline.embedded.new_zeros(shape),
    )


def _fill(own: Features, own0: Baselines, features: Features, baselines: Baselines) -> None:
    for key, feature in features.items():
        ours0, given0 = own0[key], baselines[key]
        pairs = [
            *zip(own[key].parts, feature.parts, strict=True),
            (ours0.value, given0.value),
            (ours0.embedding, given0.embedding),
            (ours0.embedded, given0.embedded),
        ]
        for ours, given in pairs:
            if not isinstance(given, Tensor) or not isinstance(ours, Tensor):
                continue
            if ours.shape != given.shape:
                ours.zero_()
            ours[_corner(given)].copy_(given)


def _corner(tensor: Tensor) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in tensor.shape)
