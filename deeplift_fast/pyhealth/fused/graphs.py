"""CUDA graphs of whole attributions: captured once per kind of batch, then replayed with one launch.

Batches of one kind have the same shapes after padding to a bucket. Each call copies its inputs into the graph's own
tensors, and its results out of them. `graph_kinds.py` has the kinds, `graph_memory.py` captures and the memory of all
graphs, and `graph_check.py` compares a first replay with a plain run.
"""

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deeplift_fast.core.questions import Later, Open, Questions
from deeplift_fast.core.result import Attribution
from deeplift_fast.errors import GraphWarning, PaddingCounts, warn
from deeplift_fast.pyhealth.fused.graph_check import agrees
from deeplift_fast.pyhealth.fused.graph_kinds import (
    Shapes,
    assumptions,
    bytes_of,
    corner,
    fill,
    key_of,
    not_embedded,
    own_baseline,
    own_feature,
    padded_shapes,
    shapes_of,
)
from deeplift_fast.pyhealth.fused.graph_memory import CudaGraphMemory, GraphMemory, Recording
from deeplift_fast.pyhealth.fused.run import Baselines, Call, Features, Verdict, judged, tensors_of, with_tensors

Judged = tuple[Attribution, Verdict]

SHARE = 4  # without a limit, graphs may hold one part in so many of a GPU's memory


@dataclass(frozen=True)
class _Captured:
    """A graph with its own inputs and results."""

    recording: Recording
    features: Features
    baselines: Baselines
    keys: list[str]
    asked: list[Open]

    @property
    def own(self) -> int:
        """The bytes of its inputs."""
        return bytes_of(self.features, self.baselines)

    @property
    def results(self) -> int:
        """The number of results; answers to questions follow them."""
        return len(self.recording.tensors) - sum(len(each.tensors) for each in self.asked)

    def read(self, tensors: list[Tensor]) -> Judged:
        """The results among the tensors that a replay writes to."""
        return with_tensors(self.keys, tensors[: self.results])


class Graphs:
    """The graphs of one interpreter.

    Args:
        limit: the bytes that graphs may hold; `None` for a quarter of the GPU's memory.
        kind: creates the memory of graphs on a device.
        device_type: the type of device with graphs.
    """

    def __init__(
        self,
        limit: int | None = None,
        kind: Callable[[torch.device], GraphMemory] = CudaGraphMemory,
        device_type: str = "cuda",
    ) -> None:
        self._limit = limit
        self._kind = kind
        self._device_type = device_type
        self._kept: OrderedDict[str, _Captured] = OrderedDict()  # the one used last is at the end
        self._too_large: set[str] = set()
        self._memory: GraphMemory | None = None
        self._fused: object = None
        self._loud: set[str] = set()
        self._refused: str | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def refuse(self, reason: str) -> None:
        """Stop using graphs, with one warning that names the reason."""
        if self._refused is None:
            self._refused = reason
            warn(f"cuda_graphs=True has no effect: {reason}", GraphWarning)

    def exclude(self, keys: tuple[str, ...]) -> None:
        """Stop padding token features whose embedding of padding is not 0."""
        with self._lock:
            self._loud.update(keys)

    def replayed(
        self, call: Call, features: Features, baselines: Baselines, questions: Questions, exact: bool = False
    ) -> Judged | None:
        """The attribution and its verdict from a graph, captured if needed; `None` if none may be used.

        Args:
            call: the request.
            features: the batch.
            baselines: by feature key, of the values' shapes.
            questions: takes the questions of the fused layers to the batch. Unless `exact`, the answers may raise
                :class:`deeplift_fast.errors.PaddingCounts`.
            exact: whether the batch keeps its shape.

        Raises:
            Unfit: if the layers do not fit the batch.

        Warns:
            GraphWarning: once, if the batch is not on CUDA, a capture fails, a replay gives other numbers, or a kind of
                batch needs more memory than all graphs may hold.
        """
        device = next(iter(features.values())).value.device
        if device.type != self._device_type:
            self.refuse(f"the model is on {device}, and only CUDA has graphs")
        if self._refused is not None:
            return None
        with self._lock, torch.inference_mode(False), torch.no_grad():
            if call.fused is not self._fused:  # replaced when a weight changes
                self._release()
                self._fused, self._loud = call.fused, not_embedded(call, features)
            padded = not exact and call.options.rules != "pyhealth"  # under "pyhealth" padding gets contributions
            shapes = padded_shapes(call, features, self._loud) if padded else shapes_of(features)
            key = f"{padded} {sorted(self._loud)} {key_of(call, features, baselines, shapes)}"
            if key in self._too_large:
                return None
            if key not in self._kept and not self._add(key, call, (features, baselines), shapes, padded):
                return None
            self._kept.move_to_end(key)
            assert self._memory is not None
            return _replayed(self._kept[key], self._memory, features, baselines, questions)

    def _add(self, key: str, call: Call, given: tuple[Features, Baselines], shapes: Shapes, padded: bool) -> bool:
        """Capture a kind of batch, and keep the graph if its numbers are right and its memory is allowed."""
        alone = self._memory is None
        try:
            captured, right = self._captured(call, given, shapes, padded)
        except torch.OutOfMemoryError:
            self._release()
            return self._leave_out(key, "more memory than the GPU has left")
        except RuntimeError as error:
            self._release()
            self.refuse(f"a capture failed ({str(error).splitlines()[0]})")
            return False
        if not right:
            self._release()
            self.refuse("a replayed graph gives other numbers than the same launches without it")
            return False
        self._kept[key] = captured
        while self.held > self._most and len(self._kept) > 1:
            self._drop()
        held, most = self.held, self._most
        if held <= most:
            return True
        self._release()  # dropped graphs leave memory to later captures, and return it with the last one only
        if alone:
            return self._leave_out(key, f"{held:,} bytes, and cuda_graphs_memory allows {most:,}")
        return self._add(key, call, given, shapes, padded)

    @property
    def held(self) -> int:
        """The bytes that the graphs and their own tensors hold; CUDA's description of a graph is not counted."""
        return (0 if self._memory is None else self._memory.held) + sum(each.own for each in self._kept.values())

    @property
    def _most(self) -> int:
        assert self._memory is not None
        return self._memory.total // SHARE if self._limit is None else self._limit

    def _leave_out(self, key: str, needs: str) -> bool:
        """Attribute this kind of batch without a graph; always `False`. The first such kind gives a warning."""
        is_first = not self._too_large
        self._too_large.add(key)
        if is_first:
            warn(
                f"cuda_graphs=True has no effect on batches of this kind: a graph of them needs {needs}; use smaller "
                "batches or a larger cuda_graphs_memory. Other kinds of batches keep their graphs",
                GraphWarning,
            )
        return False

    def _drop(self) -> None:
        """Drop the graph that was used least recently."""
        if self._memory is not None:
            self._memory.wait()
        self._kept.popitem(last=False)

    def _release(self) -> None:
        """Drop all graphs with their memory."""
        while self._kept:
            self._drop()
        self._memory = None

    def _captured(
        self, call: Call, given: tuple[Features, Baselines], shapes: Shapes, padded: bool
    ) -> tuple[_Captured, bool]:
        """The graph of a kind of batch, and whether its first replay agrees with a plain run."""
        features, baselines = given
        own = {key: own_feature(feature, shapes[key]) for key, feature in features.items()}
        own0 = {key: own_baseline(baselines[key], shapes[key]) for key in own}
        fill(own, own0, features, baselines)
        keys: list[str] = []
        asked: list[Open] = []
        loud = set(self._loud)

        def run() -> list[Tensor]:
            later = Later()
            found, verdict = judged(call, own, own0, later)
            if padded:
                gap, rows = assumptions(call, own, loud)
                later.ask([gap, *rows.values()], functools.partial(_check_padding, tuple(rows)))
            keys[:], asked[:] = found.contributions, later.open
            return [*tensors_of(found, verdict), *(tensor for each in asked for tensor in each.tensors)]

        if self._memory is None:
            self._memory = self._kind(next(iter(features.values())).value.device)
        recording, plain = self._memory.record(run)
        captured = _Captured(recording, own, own0, keys, asked)
        with _in_turn(self._memory):
            recording.replay()
            return captured, agrees(captured.read(recording.tensors)[0], captured.read(plain)[0])


@contextlib.contextmanager
def _in_turn(memory: GraphMemory) -> Iterator[None]:
    """A replay, with the copies before and after it, that no other replay of the memory meets."""
    memory.begin()
    try:
        yield
    finally:
        memory.end()


def _replayed(
    captured: _Captured, memory: GraphMemory, features: Features, baselines: Baselines, questions: Questions
) -> Judged:
    with _in_turn(memory):
        fill(captured.features, captured.baselines, features, baselines)
        captured.recording.replay()
        tensors = [tensor.clone() for tensor in captured.recording.tensors]
    found, verdict = captured.read(tensors)
    answers = iter(tensors[captured.results :])
    for each in captured.asked:
        questions.bring([next(answers) for _ in each.tensors], each.then)
    cut = {key: each[corner(features[key].value)] for key, each in found.contributions.items()}
    return replace(found, contributions=cut), verdict


def _check_padding(keys: tuple[str, ...], found: list[float]) -> None:
    """Raise :class:`PaddingCounts` if a batch must keep its shape; see :func:`assumptions`."""
    gap, *rows = found
    loud = tuple(key for key, row in zip(keys, rows, strict=True) if row)
    if loud:
        raise PaddingCounts(f"the embedding of padding is not 0 for {', '.join(map(repr, loud))}", loud)
    if gap:
        raise PaddingCounts("a masked step attends to all positions equally")
