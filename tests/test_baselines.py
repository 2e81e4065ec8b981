"""Baselines fitted on a dataset: their numbers, what they make of a batch, and how they are shown."""

import pickle
import warnings
from datetime import datetime

import numpy as np
import pytest
import torch
from fused_cases import STAGENET, batch_of, both_routes, distance, make, patients
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.models import MLP, RNN, ConCare, StageNet
from torch.utils.data import DataLoader, Subset

import deeplift_fast
from deeplift_fast import BaselineWarning, DeepLift, baselines
from deeplift_fast.pyhealth.feature_baselines import FAINT
from deeplift_fast.pyhealth.features import Feature, read_features

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pyhealth")

SCHEMA = {"codes": "sequence", "labs": "timeseries", "row": "tensor", "marks": "multi_hot"}


class Plain:
    """A processor of a feature of values."""

    def __init__(self, schema=("value",)):
        self._schema = schema

    def is_token(self):
        return False

    def schema(self):
        return self._schema


def one(values, patient=None, flags=None):
    """A processed sample of one feature."""
    found = {"labs": torch.tensor(values, dtype=torch.float32)}
    found |= {} if flags is None else {"labs_measured": flags}
    return found if patient is None else found | {"patient_id": patient}


def fitted(samples, fit=baselines.typical, **options):
    return dict(baselines.typical(samples, processors={"labs": Plain()}, **options).fits)["labs"]


@st.composite
def cohorts(draw):
    """Samples of some patients, with values never measured, by 0 or by flags."""
    width = draw(st.integers(1, 3))
    flagged = draw(st.booleans())
    number = st.sampled_from([0.0, 0.0, -1.5, 2.25, 3.0]) | st.floats(-1e6, 1e6, width=32)
    found = []
    for _ in range(draw(st.integers(1, 7))):
        steps = draw(st.integers(1, 4))
        values = [[draw(number) for _ in range(width)] for _ in range(steps)]
        flags = np.array([[draw(st.booleans()) for _ in range(width)] for _ in range(steps)]) if flagged else None
        found.append(one(values, draw(st.sampled_from(["a", "b", None])), flags))
    return found


def naively(samples):
    """The median over patients of each patient's median, number by number."""
    width = samples[0]["labs"].shape[1]
    result, patients_with = [], []
    for dimension in range(width):
        by_patient = {}
        for place, sample in enumerate(samples):
            for step, row in enumerate(sample["labs"].tolist()):
                flags = sample.get("labs_measured")
                if row[dimension] != 0 if flags is None else flags[step][dimension]:
                    by_patient.setdefault(sample.get("patient_id", place), []).append(row[dimension])
        each = [float(np.median(values)) for values in by_patient.values()]
        result.append(float(np.median(each)) if each else None)
        patients_with.append(len(each))
    return tuple(result), tuple(patients_with)


@settings(max_examples=60, deadline=None)
@given(cohorts())
def test_the_median_over_patients_of_each_patients_median(samples):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BaselineWarning)
        found = fitted(samples)
    assert (found.centre, found.patients) == naively(samples)


@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_the_mean_of_all_measured_values(samples):
    class Model:
        feature_keys = ("labs",)
        dataset = type("Dataset", (), {"input_processors": {"labs": Plain()}})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BaselineWarning)
        found = dict(baselines.mean(samples, Model()).fits)["labs"]
    values = torch.cat([each["labs"] for each in samples]).double().numpy()
    said = [each.get("labs_measured", each["labs"].numpy() != 0) for each in samples]
    said = np.concatenate(said)
    for dimension, (centre, spread) in enumerate(zip(found.centre, found.spread, strict=True)):
        column = values[said[:, dimension], dimension]
        if not len(column):
            assert centre is None
            continue
        np.testing.assert_allclose(centre, column.mean(), rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(spread, column.std(), rtol=1e-9, atol=1e-6)


def test_the_spread_is_that_of_patients_medians():
    samples = [one([[float(k)]] * 2, str(k)) for k in (1, 2, 4, 8, 16)] + [one([[16.0]] * 9, "16")]
    found = fitted(samples)
    assert (found.centre, found.spread, found.patients) == ((4.0,), (6.0,), (5,))


def test_a_feature_of_one_value_per_step_has_one_dimension():
    processors = {"labs": Plain(("time", "value"))}
    samples = [{"labs": (None, torch.tensor([1.0, 5.0, 0.0, 2.0])[:n])} for n in (2, 3, 4)]
    found = dict(baselines.typical(samples, processors=processors).fits)["labs"]
    assert (found.centre, found.patients) == ((3.0,), (3,))


def raw(count=24):
    found = []
    for i in range(count):
        labs = [[float(i + 1), 0.0 if i % 3 else 2.0 + i, 0.0] for _ in range(1 + i % 4)]
        times = [datetime(2020, 1, 1, k) for k in range(len(labs))]
        found.append(
            {
                "patient_id": f"p{i // 2}",
                "codes": [f"c{k}" for k in range(1 + i % 5)],
                "labs": (times, labs),
                "row": [0.0, float(i), -1.0],
                "marks": ["x"] if i % 2 else ["y", "z"],
                "label": i % 2,
            }
        )
    return found


@pytest.fixture(scope="module")
def data():
    return create_sample_dataset(raw(), SCHEMA, {"label": "binary"}, dataset_name="x")


@pytest.fixture(scope="module")
def typical(data):
    with pytest.warns(BaselineWarning, match=r"never measured .* removed: labs 2$"):
        return baselines.typical(data)


def batch(data, **options):
    return next(iter(get_dataloader(data, len(data), **options)))


def test_what_it_makes_of_every_kind_of_feature(data, typical):
    model = MLP(data, embedding_dim=4, hidden_dim=4)
    features = read_features(model, batch(data), True)
    at = {key: typical.feature(key).of(each) for key, each in features.items()}
    assert all(each.keeps_mask for each in at.values())
    assert torch.equal(at["codes"].removed, features["codes"].real())
    marks = features["marks"].value
    assert torch.equal(at["marks"].value, marks * FAINT)
    assert torch.equal(at["row"].value, torch.tensor([0.0, 11.5, -1.0]).expand(24, 3))  # 0 is a value there
    labs, value = features["labs"].value, at["labs"].value
    centre = dict(typical.fits)["labs"].centre
    assert centre[2] is None
    for dimension in (0, 1):
        there = labs[..., dimension] != 0
        assert (value[..., dimension][there] == centre[dimension]).all()
        assert (value[..., dimension][~there] == 0).all()
    assert not value[..., 2].any()


def test_where_the_median_is_0_or_unknown_the_value_is_removed_and_its_mask_kept():
    with pytest.warns(BaselineWarning, match="labs 2"):
        found = fitted([one([[-1.0, 5.0, 0.0]], "a"), one([[1.0, 7.0, 0.0]], "b")])
    value = torch.tensor([[[4.0, 9.0, 8.0], [0.0, 9.0, 0.0], [0.0, 0.0, 0.0]]])
    got = found.of(Feature("labs", (value,), 0, None, False)).value
    assert got.tolist() == [[[4.0 * FAINT, 6.0, 8.0 * FAINT], [0.0, 6.0, 0.0], [0.0, 0.0, 0.0]]]


def test_a_gap_that_was_filled_is_compared_as_it_is_given_and_one_never_measured_is_not():
    flags = torch.tensor([[[True, False], [False, False]]])
    value = torch.tensor([[[4.0, 0.0], [4.0, 0.0]]])
    found = fitted([one([[2.0, 3.0]])])
    got = found.of(Feature("labs", (value,), 0, None, False, "other", flags)).value
    assert got.tolist() == [[[2.0, 0.0], [2.0, 0.0]]]


@pytest.mark.parametrize("rules", ["complete", "rescale"])
def test_both_routes_agree_and_what_was_never_measured_contributes_nothing(rules):
    samples = patients(12)
    for i, each in enumerate(samples):
        for row in each["labs"][1]:
            row[i % 3] = 0.0
    samples = [{key: each[key] for key in ("patient_id", *STAGENET, "label")} for each in samples]
    dataset = create_sample_dataset(samples, STAGENET, {"label": "multiclass"}, dataset_name="x")
    model = make(StageNet, dataset, torch.float64, embedding_dim=8, chunk_size=4, levels=2)
    for baseline in (baselines.typical(dataset), baselines.mean(dataset, model)):
        fused, generic = both_routes(model, batch_of(dataset), rules, baseline=baseline)
        assert distance(fused, generic) < 1e-9
        assert fused.baseline == baseline.name
        labs = batch_of(dataset)["labs"][1]
        for found in (fused, generic):
            assert (found.contributions["labs"][labs == 0] == 0).all()
            assert found.contributions["labs"][labs != 0].abs().max() > 0
            if rules == "complete":
                assert found.convergence_delta.abs().max() < 1e-9


def test_flags_of_the_samples_decide_in_the_fit_and_in_a_batch():
    samples = [
        {"patient_id": "a", "labs": ([0.0, 1.0], [[5.0, 0.0], [7.0, 3.0]]), "label": 0},
        {"patient_id": "b", "labs": ([0.0], [[0.0, 9.0]]), "label": 1},
    ]
    flags = [[[True, True], [False, True]], [[False, True]]]
    for each, said in zip(samples, flags, strict=True):
        each["labs_measured"] = np.array(said)
    dataset = create_sample_dataset(samples, {"labs": "stagenet_tensor"}, {"label": "binary"}, dataset_name="x")
    found = baselines.typical(dataset)
    assert dict(found.fits)["labs"].centre == (5.0, (1.5 + 9.0) / 2)
    model = StageNet(dataset, embedding_dim=4, chunk_size=4, levels=2)
    given = batch(dataset)
    features = read_features(model, given, True)
    assert features["labs"].flags.tolist() == [*flags[:1], [*flags[1], [False, False]]]
    at = found.feature("labs").of(features["labs"]).value
    assert at.tolist() == [[[5.0, 5.25], [5.0, 5.25]], [[0.0, 5.25], [0.0, 0.0]]]
    contributions = DeepLift(model, rules="complete", baseline=found).attribute(**given)
    assert contributions["labs"][1, 0, 0] == 0
    assert contributions["labs"][0, 0, 1] != 0  # a 0 that was measured
    for wrong, error in ((torch.ones(2, 3).bool(), ValueError), (torch.ones(2, 2, 2), TypeError)):
        with pytest.raises(error, match="labs_measured"):
            DeepLift(model).attribute(**given | {"labs_measured": wrong})


def test_a_feature_of_that_name_is_no_flag():
    samples = [{"patient_id": "a", "x": [1.0], "x_measured": [1.0], "label": i} for i in range(2)]
    dataset = create_sample_dataset(
        samples, {"x": "tensor", "x_measured": "tensor"}, {"label": "binary"}, dataset_name="x"
    )
    model = MLP(dataset, embedding_dim=4, hidden_dim=4)
    assert read_features(model, batch(dataset), True)["x"].flags is None


@pytest.mark.parametrize("kind", ["memory", "disk", "subset", "torch subset", "list"])
def test_every_kind_of_dataset_gives_the_same(kind, data, typical, recwarn):
    disk = create_sample_dataset(raw(), SCHEMA, {"label": "binary"}, dataset_name="x", in_memory=False)
    found = {
        "memory": lambda: baselines.typical(data),
        "disk": lambda: baselines.typical(disk),
        "subset": lambda: baselines.typical(disk.subset(range(24))),
        "torch subset": lambda: baselines.typical(Subset(data, range(24))),
        "list": lambda: baselines.typical([data[i] for i in range(24)], processors=data.input_processors),
    }[kind]()
    assert found == typical
    assert (found.samples, found.patients) == (24, 12)


def test_the_part_is_seeded_and_drawn_without_replacement(data, recwarn):
    few = [baselines.typical(data, samples=6, seed=seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert few[0].name == few[1].name != few[2].name
    assert [each.samples for each in few] == [6, 6, 6]

    class Counted:
        input_processors = data.input_processors

        def __init__(self):
            self.read = []

        def __len__(self):
            return len(data)

        def __getitem__(self, index):
            self.read.append(index)
            return data[index]

    counted = Counted()
    baselines.typical(counted, samples=20)
    assert len(set(counted.read)) == 20


def test_it_prints_as_a_table_pickles_and_is_named_by_its_numbers(data, typical, recwarn):
    named = baselines.typical(data, dimensions={"labs": ["Sodium", "Potassium", "Lactate"]})
    lines = str(named).splitlines()
    assert lines[0] == f"{named.name}, fitted on 24 samples of 12 patients"
    assert lines[1].split() == ["feature", "dimension", "median", "spread", "patients"]
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in lines[2:-1]}
    centre, counts = naively([data[i] for i in range(24)])
    assert rows["labs", "Sodium"] == [f"{centre[0]:.4g}", f"{dict(named.fits)['labs'].spread[0]:.4g}", str(counts[0])]
    assert rows["labs", "Lactate"] == ["never", "measured:", "removed", "0"]
    assert rows["codes", "all"] == rows["marks", "all"] == ["removed"]
    copied = pickle.loads(pickle.dumps(named))
    assert copied == named == typical  # names are no numbers
    assert hash(copied) == hash(typical)
    assert copied.name == typical.name
    assert str(copied) == str(named)
    assert repr(typical) == f"<{typical.name}, fitted on 24 samples of 12 patients>"
    assert typical.name in repr(DeepLift(MLP(data, embedding_dim=4, hidden_dim=4), baseline=typical))


def test_a_warning_names_the_dimensions_that_were_never_measured(data):
    with pytest.warns(BaselineWarning, match=r"treated as removed: labs Lactate$") as caught:
        baselines.typical(data, dimensions={"labs": ["Sodium", "Potassium", "Lactate"]})
    assert caught[0].filename == __file__


def test_the_mean_weighs_tokens_by_how_often_they_occur(data, recwarn):
    model = MLP(data, embedding_dim=4, hidden_dim=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = baselines.mean(data, model)
    tokens = torch.cat([data[i]["codes"] for i in range(24)])
    expected = model.embedding_model.embedding_layers["codes"].weight[tokens].double().mean(0)
    codes = found.feature("codes")
    torch.testing.assert_close(codes.embedding, expected.detach(), rtol=1e-6, atol=1e-7)
    assert dict(found.fits)["row"].centre == pytest.approx((0.0, 11.5, -1.0))
    assert pickle.loads(pickle.dumps(found)) == found
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "embedding of width 4" in str(found)


def test_the_mean_of_another_model_is_refused_with_both_widths(data, recwarn):
    given = batch(data)
    mean = baselines.mean(data, MLP(data, embedding_dim=4, hidden_dim=4))
    other = MLP(data, embedding_dim=6, hidden_dim=4)
    for baseline in (mean, {"codes": mean}):
        with pytest.raises(ValueError, match=r"feature 'codes' has shape \(4,\).*width 6"):
            DeepLift(other).attribute(baseline, **given)


def test_a_baseline_of_another_dataset_is_refused(data, typical):
    samples = [{"patient_id": "a", "labs": [1.0, 2.0], "label": i} for i in range(2)]
    other = create_sample_dataset(samples, {"labs": "tensor"}, {"label": "binary"}, dataset_name="x")
    model = MLP(other, embedding_dim=4, hidden_dim=4)
    with pytest.raises(ValueError, match=r"feature 'labs' is typical \w+, fitted on 3 dimension\(s\).* has 2"):
        DeepLift(model, baseline=typical).attribute(**batch(other))
    model = MLP(data, embedding_dim=4, hidden_dim=4)
    with pytest.raises(ValueError, match=r"knows no feature 'codes'.*fitted on a dataset with 'labs'"):
        DeepLift(model, baseline=baselines.typical(other))


def test_a_model_that_takes_indices_as_numbers_has_no_mean():
    samples = [{"patient_id": "a", "codes": ["x", "y"], "label": i} for i in range(2)]
    dataset = create_sample_dataset(samples, {"codes": "sequence"}, {"label": "binary"}, dataset_name="x")
    with pytest.raises(ValueError, match="feature 'codes' has no embedding in ConCare"):
        baselines.mean(dataset, ConCare(dataset, embedding_dim=4, hidden_dim=4))


def test_samples_without_fitting_values_are_left_out_and_counted(recwarn):
    samples = [one([[1.0, 2.0]]), one([[3.0, float("nan")]]), one([[9.0, 9.0, 9.0]]), {"labs": None}]
    with pytest.warns(BaselineWarning, match="were left out: 2 of labs"):
        assert fitted(samples).centre == (2.0, 2.0)
    with pytest.raises(ValueError, match="the samples to fit on hold no values of feature 'labs'"):
        fitted([{"labs": None}])


@pytest.mark.parametrize(
    ("dataset", "options", "error", "said"),
    [
        (None, {"samples": 0}, ValueError, "samples is 0; accepted: 1 or more"),
        (None, {"samples": 2.0}, TypeError, "samples is 2.0; accepted: an int of 1 or more"),
        (None, {"samples": True}, TypeError, "samples is True"),
        (None, {"seed": -1}, ValueError, "seed is -1; accepted: 0 or more"),
        (None, {"seed": "x"}, TypeError, "seed is 'x'"),
        (None, {"dimensions": ["a"]}, TypeError, "dimensions is a list"),
        (None, {"dimensions": {"labs": ["a"]}}, ValueError, r"dimensions\['labs'\] has 1 name\(s\); .* 3 dimension"),
        ([], {}, ValueError, "dataset holds no samples"),
        ([{"labs": torch.ones(1, 1)}], {}, ValueError, "dataset is a list without input_processors.*processors=model"),
        ((each for each in [1]), {}, TypeError, "dataset is a generator, which has no samples by index"),
        ({"labs": 1}, {}, TypeError, "dataset is a dict"),
        ("loader", {}, TypeError, r"dataset is a .*DataLoader, which gives batches; .*loader\.dataset"),
        ("iterable", {}, TypeError, "dataset is a Streamed, which has no samples by index"),
        ("no length", {}, TypeError, "dataset is a NoLength without a length"),
        (["a"], {"processors": {"labs": Plain()}}, TypeError, "sample 0 of the dataset is a str"),
        (
            [one([[1.0]], flags=np.ones((1, 1)))],
            {"processors": {"labs": Plain()}},
            TypeError,
            "sample 0 of the dataset: labs_measured",
        ),
    ],
)
def test_what_cannot_be_fitted_is_said(data, dataset, options, error, said, recwarn):
    class Streamed(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([])

    class NoLength:
        def __getitem__(self, index):
            return data[index]

    made = {"loader": lambda: DataLoader(data, 4), "iterable": Streamed, "no length": NoLength}
    given = data if dataset is None else made[dataset]() if isinstance(dataset, str) else dataset
    with pytest.raises(error, match=said):
        baselines.typical(given, **options)


def test_a_model_is_needed_for_the_mean(data):
    with pytest.raises(ValueError, match="model is a Linear; accepted: a PyHealth model"):
        baselines.mean(data, torch.nn.Linear(1, 1))


def test_the_module_is_public(data):
    assert deeplift_fast.baselines is baselines
    assert set(baselines.__all__) == {"Baseline", "mean", "typical"}


def test_a_mask_that_a_model_reads_off_values_is_that_of_the_input(data, typical):
    model = make(RNN, data, torch.float64, embedding_dim=4, hidden_dim=4)
    found = DeepLift(model, rules="complete", baseline=typical).explain(**batch_of(data))
    assert found.convergence_delta.abs().max() < 1e-8
