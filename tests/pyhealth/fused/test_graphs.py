"""One graph per kind of batch, with a stand-in that runs the function again where a GPU would replay its launches."""

import copy
import random
import warnings

import pytest
import torch
from fused_cases import MODELS, SEQUENCE, STAGENET, batch_of, dataset, distance, make, patients
from pyhealth.models import RNN, StageAttentionNet, StageNet, Transformer

from deeplift_fast import ConvergenceWarning, DeepLift, FusionWarning, GraphWarning
from deeplift_fast.pyhealth.fused.graph_memory import Recording
from deeplift_fast.pyhealth.fused.graphs import Graphs


@pytest.fixture(autouse=True)
def _static(monkeypatch):
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.plan.static_on_cpu", True)


class FakeMemory:
    """Graphs whose replays run the function again, and write to the tensors of the capture as on a GPU."""

    captures = 0
    bytes_each = 100

    def __init__(self, device):
        self.device, self.held, self.total = device, 0, 10**9
        self.calls = []

    def record(self, function):
        FakeMemory.captures += 1
        plain = function()
        tensors = function()
        for tensor in tensors:  # a capture computes nothing
            tensor.fill_(0 if not tensor.is_floating_point() else torch.nan)
        self.held += self.bytes_each

        def replay():
            self.calls.append("replay")
            for tensor, new in zip(tensors, function(), strict=True):
                tensor.copy_(new)

        return Recording(replay, tensors), plain

    def begin(self):
        self.calls.append("begin")

    def end(self):
        self.calls.append("end")

    def wait(self):
        self.calls.append("wait")


def with_graphs(model, kind=FakeMemory, limit=None, **options):
    FakeMemory.captures = 0
    interpreter = DeepLift(model, cuda_graphs=True, **options)
    interpreter._graphs = Graphs(limit, kind, "cpu")
    return interpreter


def explained(interpreter, batch, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FusionWarning)
        warnings.simplefilter("error", GraphWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        return interpreter.explain(**options, **batch)


def of(batch, *samples):
    """Some samples, with their steps cut to what the longest of them needs."""
    found = {}
    for key in batch.keys() - {"patient_id"}:
        value = batch[key]
        parts = [part[list(samples)] for part in (value if isinstance(value, tuple) else (value,))]
        if parts and parts[-1].dim() > 1:
            steps = (parts[-1] != 0).reshape(*parts[-1].shape[:2], -1).any(-1)
            parts = [part[:, : int(steps.sum(1).max())] for part in parts]
        found[key] = tuple(parts) if isinstance(value, tuple) else parts[0]
    return found


@pytest.mark.parametrize("rules", ["rescale", "complete", "pyhealth"])
@pytest.mark.parametrize("name", [*MODELS])
def test_same_numbers(name, rules):
    kind, schema, sizes = MODELS[name]
    if rules == "pyhealth" and (kind is RNN or "nested" in name or "row" in schema):
        pytest.skip("not explained by PyHealth")
    data = dataset(schema)
    batch, model = batch_of(data), make(kind, data, **sizes)
    interpreter, eager = with_graphs(model, rules=rules), DeepLift(model, rules=rules, fuse=False)
    for samples in ((1, 2, 3), (3, 4, 5), (1, 2, 3)):
        some = batch if "row" in schema else of(batch, *samples)
        found = explained(interpreter, some)
        expected = explained(eager, some)
        assert distance(found, expected) < 1e-9
        for attribute in ("output", "baseline_output", "convergence_delta", "target"):
            torch.testing.assert_close(getattr(found, attribute), getattr(expected, attribute), rtol=0, atol=1e-9)
        for key, each in found.contributions.items():
            assert each.shape == expected.contributions[key].shape
        assert found.report.delta == pytest.approx(expected.report.delta, abs=1e-9)


def test_batches_of_one_bucket_share_a_graph():
    data = dataset(STAGENET, patients(8, longest=15))
    batch, model = batch_of(data), make(StageNet, data, embedding_dim=8, chunk_size=6)
    interpreter = with_graphs(model, rules="complete")
    first = explained(interpreter, of(batch, 1, 2))
    kept = {key: value.clone() for key, value in first.contributions.items()}
    explained(interpreter, of(batch, 3, 4))
    explained(interpreter, of(batch, 5, 6), target_class_idx=1)
    explained(interpreter, of(batch, 5, 6, 7))
    assert FakeMemory.captures == 3  # another target, another number of samples
    for key, value in first.contributions.items():
        assert torch.equal(value, kept[key])  # nobody writes to what was given out


@pytest.mark.parametrize("name", ["StageNet", "Transformer", "MLP", "RNN, GRU"])
def test_kinds_of_baselines_have_graphs_of_their_own(name):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    model, batch, key = make(kind, data, **sizes), batch_of(data), next(iter(schema))
    width = model.embedding_model.embedding_layers[key].embedding_dim
    graphed, eager = with_graphs(model, rules="complete"), DeepLift(model, rules="complete")
    for _ in range(2):
        for baseline in ("removed", "unk", {key: torch.full((width,), 0.1)}, {key: torch.full((width,), 0.2)}):
            found = explained(graphed, batch, baseline=baseline)
            assert distance(found, eager.explain(baseline, **batch)) < 1e-9
    assert FakeMemory.captures == 3


def test_masked_first_steps_are_not_padded():
    """A masked query looks at all positions alike: more of them would be other numbers."""
    data = dataset(SEQUENCE)
    batch = batch_of(data)
    batch["a"][2, 0] = 0
    for kind, sizes in ((Transformer, {"num_layers": 2}), (StageAttentionNet, {"chunk_size": 8})):
        given, schema = (batch, SEQUENCE) if kind is Transformer else (None, STAGENET)
        own = data if kind is Transformer else dataset(schema)
        if given is None:
            given = batch_of(own)
            given["codes"][1][1, 0] = 0
        model = make(kind, own, embedding_dim=8, **sizes)
        found = explained(with_graphs(model, rules="complete"), given)
        assert distance(found, explained(DeepLift(model, rules="complete", fuse=False), given)) < 1e-9


def test_padding_with_an_embedding_of_its_own():
    data = dataset(STAGENET)
    batch, model = batch_of(data), make(StageNet, data, embedding_dim=8, chunk_size=6)
    with torch.no_grad():
        model.embedding_model.embedding_layers["codes"].weight[0] = 0.3
    found = explained(with_graphs(model, rules="complete"), batch)
    assert distance(found, explained(DeepLift(model, rules="complete", fuse=False), batch)) < 1e-9


def test_changed_weights_drop_the_graphs():
    data = dataset(STAGENET)
    batch, model = batch_of(data), make(StageNet, data, embedding_dim=8, chunk_size=6)
    interpreter = with_graphs(model, rules="complete")
    explained(interpreter, batch)
    with torch.no_grad():
        model.stagenet["labs"].kernel.weight.mul_(1.3)
    found = explained(interpreter, batch)
    assert FakeMemory.captures == 2
    assert len(interpreter._graphs) == 1
    assert distance(found, explained(DeepLift(model, rules="complete", fuse=False), batch)) < 1e-9


def test_a_weight_changed_where_nothing_counts_it(monkeypatch):
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.watched.on_cpu", lambda weight: False)
    data = dataset(STAGENET)
    batch, model = batch_of(data), make(StageNet, data, embedding_dim=8, chunk_size=6)
    interpreter = with_graphs(model, rules="complete")
    explained(interpreter, batch)
    model.stagenet["labs"].kernel.weight.data.mul_(1.3)
    found = explained(interpreter, batch)
    assert FakeMemory.captures == 2
    assert distance(found, explained(DeepLift(model, rules="complete", fuse=False), batch)) < 1e-9
    explained(interpreter, batch)
    assert FakeMemory.captures == 2


def test_padding_that_gets_an_embedding_later():
    data = dataset(STAGENET)
    batch, model = batch_of(data), make(StageNet, data, embedding_dim=8, chunk_size=6)
    interpreter = with_graphs(model, rules="complete")
    explained(interpreter, batch)
    model.embedding_model.embedding_layers["codes"].weight.data[0] = 0.3
    for _ in range(2):
        found = explained(interpreter, batch)
        assert distance(found, explained(DeepLift(model, rules="complete", fuse=False), batch)) < 1e-9


def captured(interpreter, batch, *kinds):
    """The captures of calls with so many samples."""
    before = FakeMemory.captures
    for count in kinds:
        explained(interpreter, of(batch, *range(1, count + 1)))
    return FakeMemory.captures - before


@pytest.fixture
def sequences():
    data = dataset(SEQUENCE)
    return batch_of(data), make(Transformer, data, embedding_dim=8)


def test_all_kinds_share_one_memory_and_run_in_turn(sequences):
    batch, model = sequences
    interpreter = with_graphs(model, rules="complete")
    assert captured(interpreter, batch, 1, 2, 3, 2, 1) == 3
    assert interpreter._graphs._memory.calls == ["begin", "replay", "end"] * 8  # three replays are compared


def test_the_kinds_used_least_recently_make_room(sequences, monkeypatch):
    monkeypatch.setattr(FakeMemory, "bytes_each", 0)
    batch, model = sequences
    interpreter = with_graphs(model, rules="complete")
    captured(interpreter, batch, 1, 2)
    graphs = interpreter._graphs
    graphs._limit = graphs.held + next(iter(graphs._kept.values())).own  # a third one of the first's size would fit
    assert captured(interpreter, batch, 1, 3) == 1
    assert "wait" in graphs._memory.calls
    assert captured(interpreter, batch, 1, 3) == 0
    assert captured(interpreter, batch, 2) == 1


def test_memory_of_dropped_graphs_returns_with_the_last_one(sequences, monkeypatch):
    monkeypatch.setattr(FakeMemory, "bytes_each", 10**6)
    batch, model = sequences
    interpreter = with_graphs(model, limit=25 * 10**5, rules="complete")
    assert captured(interpreter, batch, 1, 2) == 2
    memory = interpreter._graphs._memory
    assert captured(interpreter, batch, 3) == 2  # once more, in memory of its own
    assert len(interpreter._graphs) == 1
    assert interpreter._graphs._memory is not memory
    assert captured(interpreter, batch, 3, 1) == 1


def test_a_kind_above_the_limit_is_left_out_with_one_warning(sequences):
    batch, model = sequences
    interpreter = with_graphs(model, limit=50, rules="complete")
    with pytest.warns(GraphWarning, match=r"needs [\d,]+ bytes, and cuda_graphs_memory allows 50; use smaller"):
        found = interpreter.explain(**batch)
    assert distance(found, explained(DeepLift(model, rules="complete"), batch)) < 1e-12
    assert captured(interpreter, batch, 3, 3) == 1
    assert len(interpreter._graphs) == 0


@pytest.mark.parametrize("limit", [0, 2.5, "2GB", True])
def test_the_limit_is_a_number_of_bytes(sequences, limit):
    with pytest.raises((ValueError, TypeError), match="cuda_graphs_memory is"):
        DeepLift(sequences[1], cuda_graphs=True, cuda_graphs_memory=limit)
    assert "cuda_graphs_memory=5" in repr(DeepLift(sequences[1], cuda_graphs=True, cuda_graphs_memory=5))


def test_a_graph_with_other_numbers_is_refused(sequences):
    class Empty(FakeMemory):
        """Captures nothing, as on a stream of another device."""

        def record(self, function):
            recording, plain = super().record(function)
            return Recording(lambda: None, recording.tensors), plain

    batch, model = sequences
    interpreter = with_graphs(model, Empty, rules="complete")
    with pytest.warns(GraphWarning, match="a replayed graph gives other numbers than the same launches"):
        found = interpreter.explain(**batch)
    assert distance(found, explained(DeepLift(model, rules="complete"), batch)) < 1e-12
    assert captured(interpreter, batch, 3) == 0


def test_a_capture_without_memory_leaves_the_kind_out(sequences):
    class Full(FakeMemory):
        def record(self, function):
            raise torch.OutOfMemoryError("CUDA out of memory")

    interpreter = with_graphs(sequences[1], Full, rules="complete")
    with pytest.warns(GraphWarning, match="needs more memory than the GPU has left"):
        interpreter.explain(**sequences[0])


def test_a_failed_capture_says_why_once():
    class Failing(FakeMemory):
        def record(self, function):
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    data = dataset(SEQUENCE)
    batch, model = batch_of(data), make(Transformer, data, embedding_dim=8)
    interpreter = with_graphs(model, Failing, rules="complete")
    with pytest.warns(GraphWarning, match=r"capture failed \(operation not permitted when stream is capturing\)$"):
        found = interpreter.explain(**batch)
    assert distance(found, explained(DeepLift(model, rules="complete"), batch)) < 1e-12
    explained(interpreter, batch)
    assert FakeMemory.captures == 0


@pytest.mark.parametrize("fuse", [True, False])
def test_without_cuda_or_fused_layers(fuse):
    data = dataset(SEQUENCE)
    model = make(Transformer, data, embedding_dim=8)
    interpreter = DeepLift(model, cuda_graphs=True, fuse=fuse)
    with pytest.warns(GraphWarning, match="the model is on cpu" if fuse else "operation by operation"):
        interpreter.attribute(**batch_of(data))
    explained(interpreter, batch_of(data))


def test_bad_batches_give_no_numbers():
    data = dataset(STAGENET)
    batch, model = batch_of(data), make(StageNet, data, embedding_dim=8, chunk_size=6)
    interpreter = with_graphs(model)
    explained(interpreter, batch)
    bad = copy.deepcopy(batch)
    bad["labs"][1][0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"'labs' holds 1 value\(s\) that are NaN or inf"):
        interpreter.attribute(**bad)
    bad = copy.deepcopy(batch)
    bad["codes"][1][0, 0, 0] = 10**6
    with pytest.raises(ValueError, match="token indices from 0 to 1000000"):
        interpreter.attribute(**bad)
    assert distance(explained(interpreter, batch), explained(DeepLift(model, fuse=False), batch)) < 1e-9


def test_many_batches_in_any_order():
    data = dataset(SEQUENCE, patients(9))
    batch, model = batch_of(data), make(RNN, data, embedding_dim=8, hidden_dim=6, bidirectional=True)
    interpreter, draw = with_graphs(model, rules="complete"), random.Random(0)
    for _ in range(8):
        some = of(batch, *draw.sample(range(9), 3))
        assert distance(explained(interpreter, some), explained(DeepLift(model, rules="complete"), some)) < 1e-9
    assert FakeMemory.captures == 1
