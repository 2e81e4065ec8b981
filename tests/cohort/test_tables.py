from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batch_tables import batch_tables
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.processors import (
    DeepNestedSequenceProcessor,
    SequenceProcessor,
    StageNetProcessor,
    StageNetTensorProcessor,
    TensorProcessor,
)
from torch import nn

from deeplift_fast.cohort import ATTRIBUTIONS, SAMPLES
from deeplift_fast.core.attribution import Attribution


class Model(nn.Module):
    """What the tables ask of a PyHealth model."""

    def __init__(self, processors, mode="binary"):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.feature_keys = list(processors)
        self.label_keys = ["label"]
        self.mode = mode
        self.dataset = SimpleNamespace(input_processors=processors)


def found(contributions, target=None):
    """An Attribution with outputs 1, 2, … and baseline outputs of half of that."""
    size = len(next(iter(contributions.values())))
    output = torch.arange(1.0, size + 1)
    target = torch.zeros(size, dtype=torch.int64) if target is None else target
    return Attribution(contributions, torch.full((size,), 0.25), output, output / 2, target)


def attributions_of(model, batch, contributions, **given):
    return batch_tables(model, batch, found(contributions), **given)[1]


def samples_of(model, batch, found, **given):
    return batch_tables(model, batch, found, **given)[0]


RAW = [
    {
        "patient_id": "p1",
        "visit_id": "v1",
        "codes": ([0.0, 5.0], [["A", "B"], ["C"]]),
        "labs": ([0.5, 1.5, 2.5], [[1.0, None], [None, 4.0], [3.0, 0.0]]),
        "label": torch.tensor([1.0]),
    },
    {
        "patient_id": "p2",
        "visit_id": "v2",
        "codes": ([0.0], [["B"]]),
        "labs": ([0.25], [[7.0, 8.0]]),
        "label": torch.tensor([0.0]),
    },
]


@pytest.fixture(scope="module")
def stagenet():
    """A model, the batch of RAW, and contributions 1, 2, … (codes) and 0.1, 0.2, … (labs) over all positions."""
    processors = {"codes": StageNetProcessor(), "labs": StageNetTensorProcessor()}
    for key, processor in processors.items():
        processor.fit(RAW, key)
    processed = [row | {key: p.process(row[key]) for key, p in processors.items()} for row in RAW]
    batch = collate_fn_dict_with_padding(processed)
    codes, labs = batch["codes"][1], batch["labs"][1]
    contributions = {
        "codes": torch.arange(1.0, 1 + codes.numel()).reshape(codes.shape),
        "labs": torch.arange(1.0, 1 + labs.numel()).reshape(labs.shape) / 10,
    }
    return Model(processors), batch, contributions


def test_every_real_token_and_value_has_its_row_and_padding_has_none(stagenet):
    model, batch, contributions = stagenet
    table = attributions_of(model, batch, contributions, first_sample=5, dimensions={"labs": ["Na", "K"]})
    assert table.schema.equals(ATTRIBUTIONS)
    assert {row[name] for row in table.to_pylist() for name in ("day", "stay", "measured")} == {None}
    rows = [tuple(row.values()) for row in table.drop(["day", "stay", "measured"]).to_pylist()]
    assert [(*row[:9], round(row[9], 6)) for row in rows] == [
        (5, "p1", "v1", "codes", 0, 0, "A", 0.0, None, 1.0),
        (5, "p1", "v1", "codes", 0, 1, "B", 0.0, None, 2.0),
        (5, "p1", "v1", "codes", 1, 0, "C", 5.0, None, 3.0),
        (5, "p1", "v1", "labs", 0, 0, "Na", 0.5, 1.0, 0.1),
        (5, "p1", "v1", "labs", 0, 1, "K", 0.5, None, 0.2),  # a gap that the processor filled with 0
        (5, "p1", "v1", "labs", 1, 0, "Na", 1.5, 1.0, 0.3),  # and one that it filled forward
        (5, "p1", "v1", "labs", 1, 1, "K", 1.5, 4.0, 0.4),
        (5, "p1", "v1", "labs", 2, 0, "Na", 2.5, 3.0, 0.5),
        (5, "p1", "v1", "labs", 2, 1, "K", 2.5, None, 0.6),  # a 0 that no flag tells from a gap
        (6, "p2", "v2", "codes", 0, 0, "B", 0.0, None, 5.0),
        (6, "p2", "v2", "labs", 0, 0, "Na", 0.25, 7.0, 0.7),
        (6, "p2", "v2", "labs", 0, 1, "K", 0.25, 8.0, 0.8),
    ]


def test_samples_have_one_row_each(stagenet):
    model, batch, contributions = stagenet
    probability = torch.tensor([0.5, 0.75])
    table = samples_of(model, batch, found(contributions), first_sample=5, probability=probability)
    assert table.schema.equals(SAMPLES)
    assert table["split"].null_count == table["stays"].null_count == 2
    assert [tuple(row.values()) for row in table.drop(["split", "probability", "stays"]).to_pylist()] == [
        (5, "p1", "v1", 0, 1.0, 0.5, 1.0, 0.25),
        (6, "p2", "v2", 0, 2.0, 1.0, 0.0, 0.25),
    ]
    assert table["probability"].to_pylist() == [0.5, 0.75]


def test_what_the_batch_lacks_is_null(stagenet):
    model, batch, contributions = stagenet
    batch = {key: value for key, value in batch.items() if key not in ("visit_id", "label")}
    samples = samples_of(model, batch, found(contributions))
    assert samples["visit_id"].null_count == samples["label"].null_count == 2
    rows = attributions_of(model, batch, contributions)
    assert rows["visit_id"].null_count == len(rows)
    assert rows["code"].null_count == 8  # dimensions without names


def test_values_are_recorded_in_the_units_that_the_processor_knows(stagenet, monkeypatch):
    model, batch, contributions = stagenet
    processor = model.dataset.input_processors["labs"]
    monkeypatch.setattr(processor, "in_units", lambda values: values * 100, raising=False)
    rows = attributions_of(model, batch, contributions).to_pylist()
    values = [row["value"] for row in rows if row["feature"] == "labs"]
    assert values == [100.0, None, 100.0, 400.0, 300.0, None, 700.0, 800.0]


def test_features_without_steps_or_without_slots():
    codes = SequenceProcessor()
    codes.fit([{"codes": ["A", "B"]}], "codes")
    numbers = TensorProcessor()
    model = Model({"codes": codes, "numbers": numbers})
    batch = {
        "patient_id": ["p", "p"],  # two samples of one patient
        "codes": torch.tensor([[2, 3], [1, 0]]),
        "numbers": torch.tensor([[1.5, 2.5], [3.5, 4.5]]),
    }
    ones = {key: torch.ones(2, 2) for key in ("codes", "numbers")}
    rows = attributions_of(model, batch, ones).to_pylist()
    places = [(row["sample"], row["feature"], row["step"], row["slot"], row["code"], row["time"]) for row in rows]
    assert places == [
        (0, "codes", 0, 0, "A", None),
        (0, "codes", 1, 0, "B", None),
        (0, "numbers", 0, 0, None, None),
        (0, "numbers", 0, 1, None, None),
        (1, "codes", 0, 0, "<unk>", None),
        (1, "numbers", 0, 0, None, None),
        (1, "numbers", 0, 1, None, None),
    ]
    assert {row["patient_id"] for row in rows} == {"p"}


def test_steps_of_deeper_nesting_are_counted_through():
    processor = DeepNestedSequenceProcessor()
    processor.fit([{"codes": [[["A", "B"], ["C"]], [["B"]]]}], "codes")
    tokens = processor.process([[["A", "B"], ["C"]], [["B"]]])[None]
    assert tokens.shape == (1, 2, 2, 2)
    batch = {"patient_id": ["p"], "codes": tokens}
    rows = attributions_of(Model({"codes": processor}), batch, {"codes": torch.ones(tokens.shape)}).to_pylist()
    assert [(row["step"], row["slot"], row["code"]) for row in rows] == [
        (0, 0, "A"),
        (0, 1, "B"),
        (1, 0, "C"),
        (2, 0, "B"),
    ]


def test_a_label_is_that_of_the_target(stagenet):
    contributions = stagenet[2]
    target = torch.tensor([1, 0])
    multilabel = Model({}, mode="multilabel")
    labels = {"label": torch.tensor([[0.0, 1.0], [0.0, 1.0]])}
    assert samples_of(multilabel, labels, found(contributions, target))["label"].to_pylist() == [1.0, 0.0]
    classes = {"label": torch.tensor([2, 1])}
    table = samples_of(Model({}, mode="multiclass"), classes, found(contributions, target))
    assert table["label"].to_pylist() == [2.0, 1.0]
    assert table["probability"].null_count == 2


def test_what_does_not_fit_is_named(stagenet):
    model, batch, contributions = stagenet
    with pytest.raises(ValueError, match=r"contributions\['labs'\] has shape \(1, 3, 2\)"):
        attributions_of(model, batch, contributions | {"labs": contributions["labs"][:1]})
    with pytest.raises(ValueError, match=r"dimensions\['labs'\] has 1 name"):
        attributions_of(model, batch, contributions, dimensions={"labs": ["Na"]})
    late = batch | {"codes": (batch["codes"][0][:, :1], batch["codes"][1])}
    with pytest.raises(ValueError, match=r"'codes': time has shape \(2, 1\)"):
        attributions_of(model, late, contributions)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_rows_are_the_real_positions_and_keep_the_sums(samples, visits, slots, seed):
    rng = np.random.default_rng(seed)
    processor = StageNetProcessor()
    processor.code_vocab |= {f"C{i}": i for i in range(2, 9)}
    tokens = torch.from_numpy(rng.integers(0, 9, (samples, visits, slots)) * rng.integers(0, 2, (samples, visits, 1)))
    batch = {"patient_id": [str(i) for i in range(samples)], "codes": (torch.rand(samples, visits), tokens)}
    contributions = torch.randn(tokens.shape)
    table = attributions_of(Model({"codes": processor}), batch, {"codes": contributions})
    assert len(table) == int((tokens != 0).sum())
    got = np.bincount(table["sample"], table["attribution"], minlength=samples)
    np.testing.assert_allclose(got, (contributions * (tokens != 0)).sum((1, 2)), atol=1e-5)
    back = torch.zeros_like(tokens)
    place = tuple(torch.tensor(table[name].to_pylist(), dtype=torch.int64) for name in ("sample", "step", "slot"))
    back[place] = torch.tensor([processor.code_vocab[code] for code in table["code"].to_pylist()], dtype=torch.int64)
    assert torch.equal(back, tokens)
