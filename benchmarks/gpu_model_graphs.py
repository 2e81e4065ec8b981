"""CUDA graphs of whole models beside calls without one, bit for bit; two streams; a pinned loader. Needs PyHealth."""

import warnings
from typing import Any

import model_cases
import patients
import torch
from gpu_batches import changed, on
from gpu_graphs import ROUNDS, beside, copied, same_bits
from gpu_timing import synchronise
from model_cases import Case
from torch import Tensor

from deeplift_fast import DeepLift, GraphWarning

SAMPLES = 128
LONGEST, STEPS = 16, 64  # multiples of 16, to which a graph pads


def even(data: str, samples: int) -> list[dict]:
    """Patients whose longest sequences need no padding for a graph; the first patient has all of them.

    Padding could change the order of a sum, and so its last bit.
    """
    if data == "sequence":
        found = patients.sequences(samples)
        for each in found:
            each["conditions"], each["procedures"] = each["conditions"][:LONGEST], each["procedures"][:LONGEST]
        found[0] |= {key: [f"{key[0]}{i}" for i in range(LONGEST)] for key in ("conditions", "procedures")}
        return found
    found = patients.stagenet(samples)
    for each in found:
        (times, visits), (at, labs) = each["codes"], each["labs"]
        each["codes"], each["labs"] = (times, [codes[:LONGEST] for codes in visits]), (at[:STEPS], labs[:STEPS])
    hours = [24.0 * visit for visit in range(LONGEST)]
    found[0]["codes"] = hours, [[f"c{i + visit}" for i in range(LONGEST)] for visit in range(LONGEST)]
    found[0]["labs"] = [float(step) for step in range(STEPS)], [[0.1 * step] * 10 for step in range(STEPS)]
    return found


def checked(case: Case, device: torch.device, samples: int = SAMPLES) -> dict:
    """Whether calls with a graph give the bits of calls without one: in turn, on two streams, and beside a loader."""
    dataset = model_cases.make_dataset(even(case.data, samples), case.data)
    model = model_cases.make_model(case, dataset).to(device)
    on_cpu = model_cases.first_batch(dataset, samples)
    given = on(device, on_cpu)
    both = [given, changed(lambda x: x.flip(0), given)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        eager = DeepLift(model, rules="complete")
        expected = [copied(attributed(eager, batch)) for batch in both]
        graphed = DeepLift(model, rules="complete", cuda_graphs=True)
        row = {
            "replay": all(same_bits(attributed(graphed, both[i]), expected[i]) for i in (0, 1, 0)),
            "two streams": _on_streams(graphed, both, expected, device),
            "pinned loader": _beside_a_loader(graphed, both, expected, on_cpu, device),
        }
    refused = sorted({str(each.message) for each in caught if issubclass(each.category, GraphWarning)})
    row["right"] = all(row.values()) and (not refused or device.type != "cuda")
    return row | {"warnings": refused}


def attributed(interpreter: DeepLift, batch: dict[str, Any]) -> list[Tensor]:
    """The contributions of a batch."""
    return list(interpreter.attribute(**batch).values())


def _on_streams(graphed: DeepLift, both: list[dict], expected: list[list[Tensor]], device: torch.device) -> bool:
    """Two streams whose calls take turns, without a wait between them."""
    streams = [torch.cuda.Stream(device) for _ in both] if device.type == "cuda" else [None, None]
    synchronise(device)
    found = []
    for _ in range(ROUNDS):
        for batch, stream in zip(both, streams, strict=True):
            with torch.cuda.stream(stream):
                found.append(copied(attributed(graphed, batch)))
    synchronise(device)
    return all(same_bits(each, expected[i % 2]) for i, each in enumerate(found))


def _beside_a_loader(
    graphed: DeepLift, both: list[dict], expected: list[list[Tensor]], on_cpu: dict, device: torch.device
) -> bool:
    """A fresh interpreter captures while a thread pins a batch and copies it to the device, again and again."""

    def load() -> None:
        pinned = changed(Tensor.pin_memory, on_cpu) if device.type == "cuda" else on_cpu
        changed(lambda x: x.to(device, non_blocking=True), pinned)

    fresh = DeepLift(graphed.model, rules="complete", cuda_graphs=True)

    def check() -> bool:
        return all(same_bits(attributed(fresh, batch), exact) for batch, exact in zip(both, expected, strict=True))

    return beside(load, check, ROUNDS)[0]
