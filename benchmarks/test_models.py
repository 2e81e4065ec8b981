"""Times one batch per PyHealth model: ours by rule set, PyHealth's DeepLift, and the model's forward pass.

Goals are in `model_cases.py`; nothing is asserted on speed. `BENCH_ROUNDS` sets the number of rounds.
"""

import functools
import warnings
from collections.abc import Mapping

import patients
import peak_memory
import pytest
import torch
from arithmetic import stagenet_flops
from model_cases import CASES, STAGENET, first_batch, make_dataset, make_model
from model_results import FORWARD, PYHEALTH, THREADS, rounded
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from timing import ROUNDS, SHORT, Call, seconds

from deeplift_fast import DeepLift

BATCHES = (16, 32, 64, 128, 256, 512)
STEPS = (30, 60, 120, 240)
LESS_MEMORY, MORE_THREADS, OF_SGEMM = 8, 1.6, 60
PRODUCTS = {"1024x1024 @ 1024x1024": (1024, 1024, 1024), "256x384 @ 384x1536": (256, 384, 1536)}


@pytest.fixture(autouse=True)
def _two_threads_and_no_warnings():
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def datasets(stagenet_samples, sequence_samples):
    samples = {"StageNet": stagenet_samples, "sequence": sequence_samples, "long sequence": patients.long_sequences()}
    return {data: make_dataset(drawn, data) for data, drawn in samples.items()}


@pytest.fixture
def stagenet(benchmark, datasets):
    """`(model, batch)` of the case `STAGENET`."""
    benchmark.group = STAGENET.kind.__name__
    dataset = datasets[STAGENET.data]
    return make_model(STAGENET, dataset), first_batch(dataset, STAGENET.batch_size)


def _ms(times: Mapping[str, float]) -> dict[str, float]:
    return {name: rounded(1e3 * time) for name, time in times.items()}


def _attribute(model, batch: dict, rules: str) -> Call:
    return functools.partial(DeepLift(model, rules=rules).attribute, **batch)


def _forward(model, batch: dict) -> Call:
    def forward():
        with torch.no_grad():
            return model(**batch)

    return forward


@pytest.mark.parametrize("name", CASES)
def test_attribute(in_turn, benchmark, record, datasets, name):
    case = CASES[name]
    benchmark.group = case.kind.__name__
    dataset = datasets[case.data]
    batch = first_batch(dataset, case.batch_size)
    # Timed before all other calls: a first call includes preparation once per model, and perhaps per process.
    first = {rules: seconds(_attribute(make_model(case, dataset), batch, rules)) for rules in case.goals}
    model = make_model(case, dataset)
    calls = {rules: _attribute(model, batch, rules) for rules in case.goals}
    if case.against == PYHEALTH:
        calls[PYHEALTH] = functools.partial(PyHealthDeepLift(model).attribute, **batch)
    calls[FORWARD] = _forward(model, batch)
    # Other work on the machine disturbs short calls most, so they get more rounds.
    rounds = 3 * ROUNDS if max(first.values()) < SHORT else ROUNDS
    medians = in_turn(calls, rounds, listed=False)
    benchmark.extra_info["first call"] = _ms(first)
    row = {"ms": _ms(medians), "first_ms": _ms(first), "goals": dict(case.goals), "against": case.against}
    record("models", name, row | {"rounds": rounds})


def test_stagenet_peak_memory(record):
    megabytes = {name: peak_memory.peak_of(name) / 1e6 for name in (*STAGENET.goals, PYHEALTH)}
    for rules in STAGENET.goals:
        row = {
            "figures": {what: rounded(megabytes[what]) for what in (rules, PYHEALTH)},
            "unit": "MB",
            "value": rounded(megabytes[PYHEALTH] / megabytes[rules]),
            "of": "times less",
            "goal": LESS_MEMORY,
        }
        record("stagenet", f"peak memory of a first call, {rules}", row)


@pytest.mark.parametrize("rules", STAGENET.goals)
def test_stagenet_threads(in_turn, record, stagenet, rules):
    attribute = _attribute(*stagenet, rules)

    def on(threads: int) -> None:
        torch.set_num_threads(threads)
        attribute()

    medians = in_turn({str(threads): functools.partial(on, threads) for threads in (2, 1)}, ROUNDS, listed=False)
    row = {
        "figures": {f"{threads} thread{'s'[: threads - 1]}": _ms(medians)[str(threads)] for threads in (1, 2)},
        "unit": "ms",
        "value": rounded(medians["1"] / medians["2"]),
        "of": "times as fast",
        "goal": MORE_THREADS,
    }
    record("stagenet", f"threads, {rules}", row | {"rounds": ROUNDS})


def test_stagenet_batch_size(in_turn, benchmark, record, datasets):
    benchmark.group = STAGENET.kind.__name__
    dataset = datasets[STAGENET.data]
    model = make_model(STAGENET, dataset)
    calls = {str(size): _attribute(model, first_batch(dataset, size), "rescale") for size in BATCHES}
    medians = in_turn(calls, ROUNDS, listed=False)
    figures = {f"batch {size}:": rounded(1e3 * medians[str(size)] / size) for size in BATCHES}
    row = {"figures": figures, "unit": "ms per sample", "rounds": ROUNDS}
    record("stagenet", "batch size, rescale", row)


def test_stagenet_lab_steps(in_turn, benchmark, record):
    benchmark.group = STAGENET.kind.__name__
    calls = {}
    for steps in STEPS:
        dataset = make_dataset(patients.stagenet(STAGENET.batch_size, steps), STAGENET.data)
        batch = first_batch(dataset, STAGENET.batch_size)
        calls[str(steps)] = _attribute(make_model(STAGENET, dataset), batch, "rescale")
    medians = in_turn(calls, ROUNDS, listed=False)
    figures = {f"{steps} steps:": rounded(1e3 * medians[str(steps)] / steps) for steps in STEPS}
    row = {"figures": figures, "unit": "ms per lab step of the batch", "rounds": ROUNDS}
    record("stagenet", "lab steps, rescale", row)


def _product(rows: int, inner: int, columns: int, times: int) -> Call:
    a, b, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)

    def multiply() -> None:
        for _ in range(times):
            torch.mm(a, b, out=out)

    return multiply


@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_stagenet_arithmetic(in_turn, record, stagenet, rules):
    model, batch = stagenet
    everything, needed = (stagenet_flops(model, batch, distinct) for distinct in (False, True))
    times = 20  # one product is too short to time
    products = {name: _product(*shape, times) for name, shape in PRODUCTS.items()}
    medians = in_turn({rules: _attribute(model, batch, rules)} | products, ROUNDS, listed=False)
    rates = [2 * times * m * k * n / medians[name] for name, (m, k, n) in PRODUCTS.items()]
    achieved = needed / medians[rules]
    row = {
        "figures": {
            "GFLOP needed:": rounded(needed / 1e9),
            "GFLOP with every baseline row:": rounded(everything / 1e9),
            "GFLOP/s of what is needed:": rounded(achieved / 1e9),
            "GFLOP/s of SGEMM:": rounded(max(rates) / 1e9),
        },
        "unit": "",
        "value": rounded(100 * achieved / max(rates)),
        "of": "% of SGEMM",
        "goal": OF_SGEMM,
    }
    record("stagenet", f"arithmetic, {rules}", row | {"rounds": ROUNDS})
