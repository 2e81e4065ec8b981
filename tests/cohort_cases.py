"""A small cohort, its model, and what a run wrote."""

import json
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import torch
from fused_cases import MODELS, make, patients
from pyhealth.datasets import create_sample_dataset

from deeplift_fast import DeepLift
from deeplift_fast.cohort import attribute_cohort

SECRETS = ("secret-patient", "secret-visit")


def raw(count=23, schema=None, longest=14, seed=1):
    """Samples with identifiers that must never be seen outside the tables; patients have two each."""
    keys = ("label", *(schema or {"a": 0, "b": 0}))
    found = []
    for i, each in enumerate(patients(count, longest, seed)):
        names = {"patient_id": f"secret-patient-{i // 2}", "visit_id": f"secret-visit-{i}"}
        found.append(names | {key: each[key] for key in keys} | {"label": i % 2})
    return found


def cohort(kind="MLP", count=23, in_memory=True, label="binary", samples=None, longest=14):
    """A dataset and a float32 model of it."""
    torch.manual_seed(0)
    model_class, schema, sizes = MODELS[kind]
    data = create_sample_dataset(
        samples or raw(count, schema, longest), schema, {"label": label}, dataset_name="cohort", in_memory=in_memory
    )
    return data, make(model_class, data, torch.float32, **sizes)


def run(model, data, out, rules="rescale", **options):
    """`attribute_cohort`, quietly, in parts of 5."""
    options = {"part_samples": 5, "progress": "none", **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pyhealth")
        return attribute_cohort(DeepLift(model, rules=rules), data, out, **options)


def table(out, name):
    """All parts of `attributions` or `samples`, or `failures`."""
    return pq.read_table(Path(out) / name if name != "failures" else Path(out) / "failures.parquet")


def manifest(out):
    return json.loads((Path(out) / "manifest.json").read_text())


def contents(out):
    """Bytes of every file of a cohort by name; the manifest without what differs from run to run."""
    root = Path(out)
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.parquet")}
    about = manifest(out)
    for part in about["parts"].values():
        del part["seconds"]
    del about["run"]
    del about["read_from_cache"]
    del about["outputs"]  # they round as the number of threads makes them, and are compared as numbers
    del about["prediction_difference"]  # it depends on which batch each process compared first
    return found | {"manifest.json": about}


def spoiled(count=23):
    """Processed samples in a list, of which some cannot be attributed, and their reasons."""
    data, model = cohort("Transformer, one row", count)
    samples = [dict(data[i]) for i in range(count)]
    samples[2]["row"] = samples[2]["row"].index_fill(0, torch.tensor([1]), float("nan"))
    samples[3]["a"] = samples[3]["a"][:0]
    samples[7]["a"] = torch.tensor([4, 99_999])
    samples[8]["row"] = torch.zeros(9)
    samples[9]["a"] = None
    samples[15]["row"] = samples[15]["row"].index_fill(0, torch.tensor([0]), float("inf"))
    reasons = {
        2: "'row' holds NaN or inf",
        3: "'a' is an empty sequence",
        7: "'a' holds a token outside",
        8: "'row' has another number of values",
        9: "raised",
        15: "'row' holds NaN or inf",
    }
    return samples, model, reasons
