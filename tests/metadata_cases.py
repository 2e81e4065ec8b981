"""Small datasets whose samples say days, stays, measurements and the split of their steps."""

import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.models import StageNet

SCHEMA = {"codes": "stagenet", "labs": "stagenet_tensor"}

SAMPLES = [
    {
        "patient_id": "p1",
        "codes": ([0.0, 5.0], [["A", "B"], ["C"]]),
        "codes_days": [0, 40.5],
        "codes_stay": ["first", "second"],
        "labs": ([0.5, 1.5, 2.5], [[1.0, None], [None, 4.0], [3.0, 0.0]]),
        "labs_days": [0.25, 0.5, 41],
        "labs_stay": [0, 0, 1],
        "labs_measured": [[True, False], [False, True], [True, True]],
        "stays": [("first", 0.0), {"label": "second", "begin": 40}],
        "split": "train",
        "label": 1,
    },
    {
        "patient_id": "p2",
        "codes": ([0.0], [["B"]]),
        "codes_days": None,
        "codes_stay": [None],
        "labs": ([0.25], [[7.0, 8.0]]),
        "labs_days": [None],
        "labs_stay": [9],
        "labs_measured": None,
        "stays": None,
        "split": None,
        "label": 0,
    },
    {
        "patient_id": "p3",
        "codes": ([0.0, 1.0, 2.0], [["A"], ["B", "C"], ["C"]]),
        "codes_days": [1, 2, 3],
        "codes_stay": [None, None, "only"],
        "labs": ([0.25, 0.5], [[7.0, 8.0], [1.0, 2.0]]),
        "labs_days": [1.5, None],
        "labs_stay": None,
        "labs_measured": [True, False],
        "stays": [("only", None)],
        "split": "test",
        "label": 1,
    },
]
"""Raw samples: the metadata are complete, absent for a sample, and absent for a step."""

DAYS = {("p1", "codes"): [0.0, 40.5], ("p1", "labs"): [0.25, 0.5, 41.0], ("p3", "codes"): [1.0, 2.0, 3.0]}
DAYS |= {("p3", "labs"): [1.5, None]}
STAY = {("p1", "codes"): ["first", "second"], ("p1", "labs"): ["first", "first", "second"], ("p2", "labs"): ["9"]}
STAY |= {("p3", "codes"): [None, None, "only"]}
MEASURED = {("p1", "labs"): [[True, False], [False, True], [True, True]], ("p3", "labs"): [[True] * 2, [False] * 2]}
"""By patient and feature, the entry of each step as the tables have it; null for others."""

STAYS = {
    "p1": [{"label": "first", "begin": 0.0}, {"label": "second", "begin": 40.0}],
    "p2": None,
    "p3": [{"label": "only", "begin": None}],
}
SPLIT = {"p1": "train", "p2": None, "p3": "test"}


def dataset(samples=SAMPLES, in_memory=True, schema=None):
    """A PyHealth dataset of raw samples."""
    return create_sample_dataset(
        samples, schema or SCHEMA, {"label": "binary"}, dataset_name="metadata", in_memory=in_memory
    )


def stagenet(data):
    """A small model of it."""
    torch.manual_seed(0)
    return StageNet(data, embedding_dim=4, chunk_size=4, levels=2).eval()


def check_rows(rows):
    """Rows of `attributions` have the metadata of their steps, and a value only where it was measured."""
    assert rows
    for row in rows:
        key, step = (row["patient_id"], row["feature"]), row["step"]
        assert row["day"] == (DAYS[key][step] if key in DAYS else None), row
        assert row["stay"] == (STAY[key][step] if key in STAY else None), row
        assert row["measured"] == (MEASURED[key][step][row["slot"]] if key in MEASURED else None), row
        if row["feature"] == "codes" or row["measured"] is False:
            assert row["value"] is None, row
        elif row["measured"]:
            assert row["value"] is not None, row


def with_metadata(samples, processors):
    """Processed samples with metadata of each step of each feature: day 100·sample + step, and a stay for two steps."""
    found = []
    for number, sample in enumerate(samples):
        extra = {"stays": [(f"stay {n}", n) for n in range(20)], "split": "test"}
        for key, processor in processors.items():
            time, value = sample[key] if isinstance(sample[key], tuple) else (None, sample[key])
            in_steps = value.dim() > (0 if processor.is_token() or time is not None else 1)
            steps = len(value) if in_steps else 1
            extra[f"{key}_days"] = [100 * number + step for step in range(steps)]
            extra[f"{key}_stay"] = [step // 2 for step in range(steps)]
            extra[f"{key}_measured"] = [step % 2 == 0 for step in range(len(value) if value.dim() else 1)]
        found.append(dict(sample) | extra)
    return found
