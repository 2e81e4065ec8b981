"""Cohort folders made up for tests, as the engine lays them out."""

import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from deeplift_fast.cohort import ATTRIBUTIONS, INTERACTIONS, SAMPLES
from deeplift_fast.cohort.about import about_of, metadata_of

CODES = ["0040", "I10", "4019", "10_E119", "9_25000", "<unk>"]
LABS = ["Sodium", "Potassium"]


def identity(rules="rescale", baseline="unk", part_samples=20):
    """What a manifest says that numbers depend on, as far as a reader asks for it."""
    model = {"class": "pyhealth.models.mlp.MLP", "weights": "0" * 64, "modules": {}}
    versions = dict.fromkeys(("deeplift_fast", "torch", "pyhealth"), "1.0")
    about = {"versions": versions, "interpreter": {"rules": rules, "steps": 1}, "target": None, "baseline": baseline}
    return about | {"model": model, "part_samples": part_samples}


def draw(samples=60, patients=25, seed=0):
    """The two tables of a made-up cohort as data frames: codes and labs, several samples per patient."""
    rng = np.random.default_rng(seed)
    output, baseline = rng.normal(size=(2, samples)).astype(np.float32)
    delta = (rng.normal(size=samples) * 0.02 * np.abs(output - baseline)).astype(np.float32)
    found = pd.DataFrame(
        {
            "sample": np.arange(samples),
            "patient_id": [f"patient-{p}" for p in rng.integers(0, patients, samples)],
            "visit_id": [f"visit-{n}" for n in range(samples)],
            "target": 0,
            "output": output,
            "baseline_output": baseline,
            "probability": 1 / (1 + np.exp(-output)),
            "label": rng.integers(0, 2, samples).astype(np.float32),
            "convergence_delta": delta,
        }
    )
    rows = [row for n in range(samples) for row in _rows(n, rng)]
    columns = ["sample", "feature", "step", "slot", "code", "value"]
    attributions = pd.DataFrame(rows, columns=columns).merge(found[["sample", "patient_id", "visit_id"]], on="sample")
    attributions["time"] = np.nan
    attributions["attribution"] = rng.normal(size=len(attributions)).astype(np.float32)
    return found, attributions


def _rows(sample, rng):
    for step in range(rng.integers(1, 4)):
        for slot, code in enumerate(rng.choice(CODES, size=rng.integers(1, 4))):
            yield sample, "icd_codes", step, slot, code, None
        for slot, lab in enumerate(LABS):
            yield sample, "labs", step, slot, lab, None if rng.random() < 0.2 else rng.normal()
        yield sample, "vector", step, int(rng.integers(0, 3)), None, rng.normal()


def pairs(attributions, strongest=8, seed=0):
    """A table `interactions` for the codes of a cohort, with numbers made up."""
    rng = np.random.default_rng(seed)
    valued = attributions.groupby("feature", observed=True)["value"].transform(lambda each: each.notna().any())
    codes = attributions[~valued.astype(bool)].astype(dict.fromkeys(("feature", "code"), object))
    rows = []
    for (sample, patient, visit), part in codes.groupby(["sample", "patient_id", "visit_id"], observed=True):
        sums = part.groupby(["feature", "code"])["attribution"].sum()
        chosen = sorted(sums.abs().nlargest(strongest).index)
        for first, second in itertools.combinations(chosen, 2):
            numbers = (rng.normal(), sums[first], sums[second], *rng.normal(size=2))
            rows.append((sample, patient, visit, *first, *second, *numbers))
    return pd.DataFrame(rows, columns=INTERACTIONS.names)


def add_pairs(folder, table, strongest=8):
    """Writes a table `interactions` into a cohort's folder, and names it in the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["identity"]["interactions"] = strongest
    (folder / "interactions").mkdir()
    for number, part in manifest["parts"].items():
        rows = table[(table["sample"] >= part["begin"]) & (table["sample"] < part["end"])]
        rows = pa.Table.from_pandas(rows, preserve_index=False).cast(INTERACTIONS)
        name = f"interactions/part-{int(number):06d}.parquet"
        pq.write_table(rows, folder / name)
        content = (folder / name).read_bytes()
        part["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        part["interactions"] = len(rows)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write(
    folder, found, attributions, part_samples=20, failures=(), parts=None, rules="rescale", in_all=None, baseline="unk"
):
    """Writes both tables in parts, and a manifest that names `parts` of them (all by default)."""
    for name in ("samples", "attributions"):
        (folder / name).mkdir(parents=True)
    count = -(-len(found) // part_samples)
    about = about_of(identity(rules, baseline))
    for part in range(count):
        for name, table, schema in (("samples", found, SAMPLES), ("attributions", attributions, ATTRIBUTIONS)):
            rows = table[table["sample"] // part_samples == part]
            rows = rows.assign(**dict.fromkeys(set(schema.names) - set(rows.columns)))  # null
            rows = pa.Table.from_pandas(rows[schema.names], preserve_index=False).cast(schema)
            rows = rows.replace_schema_metadata(metadata_of(about))
            # Small row groups: samples are cut in two.
            pq.write_table(rows, folder / name / f"part-{part:06d}.parquet", row_group_size=37)
    named = range(count) if parts is None else parts
    failed = Counter(part for _, part, _ in failures)  # beside the samples of the table
    size = part_samples + max(failed.values(), default=0)
    manifest = {
        "identity": identity(rules, baseline, size),
        "about": about,
        "total": (count if in_all is None else in_all) * size,
        "device": "cpu",
        "parts": {str(part): _part(folder, part, size, failed[part]) for part in named},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if failures:
        sample, part, reason = zip(*failures, strict=True)
        schema = pa.schema({"sample": pa.int64(), "part": pa.int32(), "reason": pa.string()})
        pq.write_table(pa.table([sample, part, reason], schema=schema), folder / "failures.parquet")
    return folder


def _part(folder, part, size, failed):
    """What a manifest says of a part."""
    files = {}
    for name in (f"{table}/part-{part:06d}.parquet" for table in ("attributions", "samples")):
        content = (folder / name).read_bytes()
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    begin, samples = part * size, pq.read_metadata(folder / f"samples/part-{part:06d}.parquet").num_rows
    about = {"begin": begin, "end": begin + samples + failed, "samples": samples, "failures": failed}
    return about | {"rows": 1, "budget": 1, "seconds": 1.0, "files": files}
