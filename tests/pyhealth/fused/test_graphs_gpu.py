"""CUDA graphs on a GPU: equal bits, threads, pinned memory and devices. Without a GPU nothing here runs."""

import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from fused_cases import MODELS, batch_of, dataset, make

from deeplift_fast import DeepLift
from deeplift_fast.pyhealth.fused.graph_kinds import BUCKET

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
KINDS = ["StageNet", "StageAttentionNet", "Transformer, 2 layers", "MLP", "RNN, GRU, both directions"]


def in_bucket(part):
    """A part of a batch padded as a graph's: products of the same shape have equal bits."""
    steps = (0, -part.shape[1] % BUCKET)
    if part.dim() == 2:
        return F.pad(part, steps)
    return F.pad(part, (0, 0 if part.is_floating_point() else -part.shape[2] % BUCKET, *steps))


def case(name, device="cuda"):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    batch = {}
    for key, value in batch_of(data, torch.float32).items():
        if key in schema:
            parts = tuple(in_bucket(part).to(device) for part in (value if isinstance(value, tuple) else (value,)))
            batch[key] = parts if isinstance(value, tuple) else parts[0]
    return make(kind, data, torch.float32, **sizes).to(device), batch


def first(batch, count):
    """Some samples."""
    return {key: tuple(p[:count] for p in v) if isinstance(v, tuple) else v[:count] for key, v in batch.items()}


def explained(interpreter, batch, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no graph may be refused
        for category in (UserWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module="pyhealth")
        warnings.filterwarnings("ignore", message="(?s).*(samples|logits).*")
        return interpreter.explain(**options, **batch)


def same(found, expected):
    return all(torch.equal(found.contributions[key], each) for key, each in expected.contributions.items())


@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.parametrize("name", KINDS)
def test_equal_bits(name, rules):
    model, batch = case(name)
    graphed = DeepLift(model, rules=rules, baseline="unk", cuda_graphs=True)
    plain = DeepLift(model, rules=rules, baseline="unk")
    expected = explained(plain, batch)
    for _ in range(3):
        assert same(explained(graphed, batch), expected)
    assert len(graphed._graphs) == 1
    assert graphed._graphs.held > 0
    with torch.inference_mode():
        assert same(explained(graphed, batch), expected)


def test_a_weight_changed_where_nothing_counts_it():
    model, batch = case("StageNet")
    graphed = DeepLift(model, rules="complete", baseline="unk", cuda_graphs=True)
    explained(graphed, batch)
    model.stagenet["labs"].kernel.weight.data.mul_(1.3)
    found = explained(graphed, batch)
    assert same(found, explained(DeepLift(model, rules="complete", baseline="unk"), batch))


def test_other_streams_and_threads():
    model, batch = case("StageNet")
    graphed = DeepLift(model, rules="complete", baseline="unk", cuda_graphs=True)
    whole = explained(DeepLift(model, rules="complete", baseline="unk"), batch)
    half = first(batch, 3)
    part = explained(DeepLift(model, rules="complete", baseline="unk"), half)
    torch.cuda.synchronize()
    wrong = []

    def work(given, expected):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                if not same(explained(graphed, given), expected):
                    wrong.append(len(expected.output))

    explained(graphed, batch)
    explained(graphed, half)
    threads = [threading.Thread(target=work, args=each) for each in ((batch, whole), (half, part))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_loader_that_pins_memory_in_another_thread():
    model, batch = case("StageNet")
    graphed = DeepLift(model, rules="complete", baseline="unk", cuda_graphs=True)
    stop, errors = threading.Event(), []

    def load():
        try:
            size = 1000
            while not stop.is_set():
                size += 1000  # each size is a new allocation
                torch.ones(size).pin_memory().to("cuda", non_blocking=True).sum()
                torch.cuda.current_stream().synchronize()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for count in range(1, 7):  # a capture each
            some = first(batch, count)
            found = explained(graphed, some)
            assert same(found, explained(DeepLift(model, rules="complete", baseline="unk"), some))
    finally:
        stop.set()
        thread.join()
    assert not errors
    assert len(graphed._graphs) == 6


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_models_on_two_devices():
    found = []
    for device in ("cuda:0", "cuda:1"):
        model, batch = case("StageNet", device)
        graphed = DeepLift(model, rules="complete", baseline="unk", cuda_graphs=True)
        for _ in range(2):
            found.append(explained(graphed, batch))
            assert same(found[-1], explained(DeepLift(model, rules="complete", baseline="unk"), batch))
        assert len(graphed._graphs) == 1
    torch.testing.assert_close(found[0].output.cpu(), found[2].output.cpu())


def test_memory_is_bounded():
    model, batch = case("StageNet")
    graphed = DeepLift(model, rules="complete", baseline="unk", cuda_graphs=True, cuda_graphs_memory=64 * 2**20)
    for count in (6, 5, 4, 3):
        explained(graphed, first(batch, count))
        assert graphed._graphs.held <= 64 * 2**20
