"""One graph per kind of batch, with a stand-in that runs the function again where a GPU would replay its launches."""

import copy
import random
import warnings

import pytest
import torch
from fused_cases import MODELS, SEQUENCE, STAGENET, batch_of, dataset, distance, make, patients
from pyhealth.models import RNN, StageAttentionNet, StageNet, Transformer

from deeplift_fast import ConvergenceWarning, DeepLift, FusionWarning, GraphWarning
from deeplift_fast.pyhealth.fused import graphs
from deeplift_fast.pyhealth.fused.graphs import Graphs


@pytest.fixture(autouse=True)
def _static(monkeypatch):
    monkeypatch.setattr("deeplift_fast.pyhealth.fused.plan.static_on_cpu", True)


class FakeGraph:
    """What a replay writes goes to the tensors of the capture, as it does on a GPU."""

    captures = 0

    def __init__(self, device):
        FakeGraph.captures += 1
        self.replays = 0

    def capture(self, function):
        function()
        self._function = function
        self._tensors = function()
        for tensor in self._tensors:  # a capture computes nothing
            tensor.fill_(0 if not tensor.is_floating_point() else torch.nan)
        return self._tensors

    def replay(self):
        self.replays += 1
        for tensor, new in zip(self._tensors, self._function(), strict=True):
            tensor.copy_(new)

    def begin(self):
        self.used = True

    def end(self):
        self.used = False


def with_graphs(model, kind=FakeGraph, **options):
    FakeGraph.captures = 0
    interpreter = DeepLift(model, cuda_graphs=True, **options)
    interpreter._graphs = Graphs(kind, "cpu")
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
    assert FakeGraph.captures == 3  # another target, another number of samples
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
    assert FakeGraph.captures == 3


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
    assert FakeGraph.captures == 2
    assert len(interpreter._graphs) == 1
    assert distance(found, explained(DeepLift(model, rules="complete", fuse=False), batch)) < 1e-9


def test_no_more_than_a_few_are_kept(monkeypatch):
    monkeypatch.setattr(graphs, "KEPT", 2)
    data = dataset(SEQUENCE)
    batch, model = batch_of(data), make(Transformer, data, embedding_dim=8)
    interpreter = with_graphs(model, rules="complete")
    for samples in ((1,), (1, 2), (1,), (1, 2, 3), (1,), (1, 2)):
        explained(interpreter, of(batch, *samples))
    assert len(interpreter._graphs) == 2
    assert FakeGraph.captures == 4  # the one used last but one went when the third came


def test_a_failed_capture_says_why_once():
    class Failing(FakeGraph):
        def capture(self, function):
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    data = dataset(SEQUENCE)
    batch, model = batch_of(data), make(Transformer, data, embedding_dim=8)
    interpreter = with_graphs(model, Failing, rules="complete")
    with pytest.warns(GraphWarning, match=r"capture failed \(operation not permitted when stream is capturing\)$"):
        found = interpreter.explain(**batch)
    assert distance(found, explained(DeepLift(model, rules="complete"), batch)) < 1e-12
    explained(interpreter, batch)
    assert FakeGraph.captures == 1


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
    assert FakeGraph.captures == 1
