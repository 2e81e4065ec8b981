"""What a cohort is compared with: every form that fits batches of any shape, and where its name stands."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cohort_cases import cohort, contents, manifest, raw, run, spoiled, table
from pyhealth.datasets import get_dataloader

from deeplift_fast import BaselineWarning, DeepLift, baselines
from deeplift_fast.cohort import CohortError, attribute_cohort, cohort_baseline

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pyhealth")
KIND = "Transformer, one row"  # tokens in "a", four values in "row"


def forms(data, model):
    """Baselines by their names in a manifest."""
    typical = baselines.typical(data)
    mean = baselines.mean(data, model)
    return {
        "removed": "removed",
        "unk": "unk",
        typical.name: typical,
        mean.name: mean,
        "a: 3; otherwise removed": {"a": 3},
        "a: removed; row: 0.5": {"a": "removed", "row": 0.5},
        f"row: {typical.name}; otherwise removed": {"row": typical},
        f"mean over ({typical.name}), (unk)": [typical, "unk"],
        "mean over (removed), (a: 2; otherwise removed)": (None, {"a": torch.tensor(2)}),
    }


def complete(model, **options):
    return DeepLift(model, rules="complete", **options)


def attributed(model, data, out, **options):
    interpreter = options.pop("interpreter", None) or complete(model)
    return attribute_cohort(interpreter, data, out, part_samples=5, progress="none", **options)


def assert_is_each_samples_own(model, data, out, baseline):
    """The rows are those of each sample attributed alone, and add up to the change in output."""
    samples, rows = (table(out, name).to_pandas() for name in ("samples", "attributions"))
    for i, batch in enumerate(get_dataloader(data, 1)):
        found = complete(model).explain(baseline, **batch)
        assert samples["baseline_output"][i] == pytest.approx(found.baseline_output.mean().item(), abs=2e-5)
        ours = rows[rows["sample"] == i]
        for key in model.feature_keys:
            expected = found.contributions[key].flatten()
            got = ours[ours["feature"] == key]["attribution"].to_numpy()
            np.testing.assert_allclose(got[got != 0], expected[expected != 0], rtol=2e-3, atol=2e-5)
        change = samples["output"][i] - samples["baseline_output"][i]
        assert ours["attribution"].sum() == pytest.approx(change + samples["convergence_delta"][i], abs=2e-5)


@pytest.mark.parametrize("number", range(9))
def test_every_form_is_what_each_sample_alone_is_compared_with(number, tmp_path):
    data, model = cohort(KIND, 12)
    name, baseline = list(forms(data, model).items())[number]
    attributed(model, data, tmp_path / "call", baseline=baseline)
    assert manifest(tmp_path / "call")["identity"]["baseline"] == name
    assert_is_each_samples_own(model, data, tmp_path / "call", baseline)
    attributed(model, data, tmp_path / "own", interpreter=complete(model, baseline=baseline))
    assert contents(tmp_path / "own") == contents(tmp_path / "call")


def test_typical_by_name_is_fitted_on_the_dataset(tmp_path):
    data, model = cohort(KIND, in_memory=False)
    typical = baselines.typical(data)
    attributed(model, data, tmp_path / "object", baseline=typical)
    for name, source in {"name": data, "loader": get_dataloader(data, 4), "limited": data}.items():
        limit = 7 if name == "limited" else None
        attributed(model, source, tmp_path / name, baseline="typical", limit=limit)
        attributed(model, source, tmp_path / name, baseline="typical")  # the rest, and then nothing
        assert contents(tmp_path / name) == contents(tmp_path / "object")
    shuffled = get_dataloader(data, 4, shuffle=True, seed=1)
    attributed(model, shuffled, tmp_path / "shuffled", baseline="typical")
    assert manifest(tmp_path / "shuffled")["identity"]["baseline"] == typical.name


def test_typical_stands_in_mappings_and_sequences(tmp_path):
    data, model = cohort(KIND, 12)
    typical = baselines.typical(data)
    for i, (given, expected) in enumerate(
        [
            ({"row": "typical"}, {"row": typical}),
            (["typical", "removed"], [typical, "removed"]),
            ([{"a": "unk", "row": "typical"}], [{"a": "unk", "row": typical}]),
        ]
    ):
        attributed(model, data, tmp_path / f"{i}", baseline=given)
        attributed(model, data, tmp_path / f"{i}-expected", baseline=expected)
        assert contents(tmp_path / f"{i}") == contents(tmp_path / f"{i}-expected")


def test_a_list_of_samples_takes_the_models_processors(tmp_path):
    data, model = cohort(KIND)
    attributed(model, [data[i] for i in range(23)], tmp_path, baseline="typical")
    assert manifest(tmp_path)["identity"]["baseline"] == baselines.typical(data).name


def test_samples_that_cannot_be_attributed_do_not_keep_it_from_being_fitted(tmp_path):
    samples, model, reasons = spoiled()
    with pytest.warns(BaselineWarning, match="were left out: 1 of row"):
        done = attributed(model, samples, tmp_path, baseline="typical")
    assert (done.samples, done.failures) == (23 - len(reasons), len(reasons))


def test_a_zero_of_a_tensor_feature_is_a_value_and_has_a_row(tmp_path):
    samples = raw(12, {"a": 0, "row": 0})
    for i, each in enumerate(samples):
        each["row"][i % 4] = 0.0
    data, model = cohort(KIND, samples=samples)
    attributed(model, data, tmp_path, baseline="typical")
    rows = table(tmp_path, "attributions").to_pandas()
    zeros = rows[(rows["feature"] == "row") & (rows["value"] == 0)]
    assert len(zeros) == 12
    assert (zeros["attribution"] != 0).all()
    assert_is_each_samples_own(model, data, tmp_path, baselines.typical(data))


def test_the_name_stands_in_the_metadata_of_every_table(tmp_path):
    data, model = cohort(KIND)
    attributed(model, data, tmp_path, baseline="typical")
    name = baselines.typical(data).name
    for part in tmp_path.glob("*/part-*.parquet"):
        metadata = pq.read_schema(part).metadata
        assert metadata[b"deeplift_fast.baseline"].decode() == name
        assert metadata[b"deeplift_fast.rules"] == b"complete"


@pytest.mark.parametrize(
    ("baseline", "named"),
    [
        ("unk", "unk"),
        ({"row": 0.5}, "row: 0.5; otherwise removed"),
        ({"row": 0.5000001}, "row: 0.5000001; otherwise removed"),
        ({"row": torch.tensor([0.0, 1.0, 2.0, 3.0])}, "row: tensor [0-9a-f]{12}; otherwise removed"),
    ],
)
def test_another_baseline_does_not_go_on(baseline, named, tmp_path):
    data, model = cohort(KIND)
    attributed(model, data, tmp_path, baseline={"row": torch.tensor([0.0, 1.0, 2.0, 4.0])}, limit=5)
    with pytest.raises(CohortError, match=rf'baseline: "row: tensor [0-9a-f]{{12}}; .*" there, "{named}" now'):
        attributed(model, data, tmp_path, baseline=baseline)


def test_a_baseline_fitted_on_other_samples_does_not_go_on(tmp_path):
    data, model = cohort(KIND)
    attributed(model, data, tmp_path, baseline=baselines.typical(data), limit=5)
    with pytest.raises(CohortError, match=r'baseline: "typical \w+" there, "typical \w+" now'):
        attributed(model, data, tmp_path, baseline=baselines.typical(data, samples=9))


def test_a_manifest_from_before_baselines_had_names_is_refused(tmp_path):
    data, model = cohort(KIND)
    attributed(model, data, tmp_path, limit=5)
    about = json.loads((tmp_path / "manifest.json").read_text())
    about["identity"]["baseline"] = "default"
    (tmp_path / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(CohortError, match='baseline: "default" there, "removed" now') as caught:
        attributed(model, data, tmp_path)
    assert "goes on" not in str(caught.value)


@pytest.mark.parametrize(
    ("there", "now", "said"),
    [
        ({"rules": "rescale"}, {}, "--rules rescale goes on with it (in Python: rules='rescale')"),
        ({"steps": 2}, {"steps": 3}, "--steps 2 goes on with it"),
        ({"baseline": "unk"}, {}, "--baseline unk goes on with it"),
        (
            {"rules": "rescale", "baseline": "removed"},
            {"baseline": "unk"},
            "--rules rescale --baseline removed goes on",
        ),
        ({"rules": "rescale", "baseline": {"a": 2}}, {}, None),  # no option says that
    ],
)
def test_options_that_go_on_with_a_folder_are_named(there, now, said, tmp_path):
    data, model = cohort(KIND)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BaselineWarning)
        attributed(model, data, tmp_path, interpreter=DeepLift(model, **{"rules": "complete", **there}), limit=5)
    with pytest.raises(CohortError, match="holds the attributions of another run") as caught:
        attributed(model, data, tmp_path, interpreter=complete(model, **now))
    assert ("goes on with it" in str(caught.value)) == (said is not None)
    assert said is None or said in str(caught.value)


def generator(data):
    yield from get_dataloader(data, 4)


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("usual", "baseline is 'usual'; accepted names: 'unk', 'removed', 'typical'"),
        ({"row": "usual"}, "baseline of feature 'row' is 'usual'; accepted names: .*'typical'"),
        (["usual"], "baseline is 'usual'"),
        ([], "baseline holds no baselines"),
        ({"c": 1}, r"baseline has the key\(s\) \['c'\]"),
        ([{"c": 1}], r"baseline has the key\(s\) \['c'\]"),
        (torch.zeros(3), "baseline is a Tensor; accepted: .*'typical'"),
        (7, "baseline is a int"),
        ({"a": 0.5}, "baseline of feature 'a' is 0.5; accepted: a token index"),
        ({"a": True}, "baseline of feature 'a' is a bool"),
        ({"a": torch.tensor(0.5)}, "baseline of feature 'a' is torch.float32; accepted: a token index"),
        ({"a": torch.ones(2, 3).long()}, r"baseline of feature 'a' has shape \(2, 3\).*lengths differ"),
        ({"a": torch.ones(9).long()}, r"baseline of feature 'a' has shape \(9,\).*lengths differ"),
        ({"row": torch.zeros(23, 4)}, r"baseline of feature 'row' has shape \(23, 4\).*lengths differ"),
        ({"row": torch.tensor([0.0, float("nan"), 0.0, 0.0])}, "baseline of feature 'row' holds 1 value"),
        ({"a": torch.zeros(5)}, r"baseline of feature 'a' is an embedding of shape \(5,\); .* with width 8"),
    ],
)
def test_what_fits_no_batch_or_some_only_is_refused_before_anything_is_written(baseline, said, tmp_path):
    data, model = cohort(KIND, 6)
    with pytest.raises(CohortError, match=said):
        attributed(model, data, tmp_path / "out", baseline=baseline)
    assert not (tmp_path / "out").exists()


def test_the_interpreters_own_is_refused_likewise_where_it_holds(tmp_path):
    data, model = cohort(KIND, 6)
    own = complete(model, baseline={"row": torch.zeros(6, 4)})
    for given in (None, {"a": "removed"}, ["removed", None]):
        with pytest.raises(CohortError, match=r"baseline of feature 'row' has shape \(6, 4\)"):
            attributed(model, data, tmp_path / "out", interpreter=own, baseline=given)
    attributed(model, data, tmp_path / "out", interpreter=own, baseline="removed")  # where it does not
    assert manifest(tmp_path / "out")["identity"]["baseline"] == "removed"


def test_the_mean_of_another_model_is_refused(tmp_path):
    data, model = cohort(KIND, 6)
    mean = baselines.mean(data, model)
    fits = ((key, replace(fit, embedding=(*fit.embedding, 0.0)) if key == "a" else fit) for key, fit in mean.fits)
    wider = replace(mean, fits=tuple(fits))
    with pytest.raises(CohortError, match=r"feature 'a' is an embedding of shape \(9,\).*width 8"):
        attributed(model, data, tmp_path / "out", baseline=wider)


def test_a_dataset_without_index_cannot_be_fitted_on(tmp_path):
    data, model = cohort(KIND, 6)
    with pytest.raises(CohortError, match=r"by index, and dataset is a generator.*baselines\.typical"):
        attributed(model, generator(data), tmp_path / "out", baseline="typical")
    attributed(model, generator(data), tmp_path / "out", baseline=baselines.typical(data))
    assert table(tmp_path / "out", "samples").num_rows == 6


def test_a_sample_that_cannot_be_read_is_named_without_its_words(tmp_path):
    data, model = cohort(KIND, 6)

    class Broken:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            if index == 4:
                raise RuntimeError("secret-patient")
            return data[index]

    with pytest.raises(CohortError, match="baseline is 'typical': sample 4 of the dataset cannot be read") as caught:
        attributed(model, Broken(), tmp_path / "out", baseline="typical", limit=3)
    assert "secret" not in str(caught.value)


def test_pyhealths_rules_take_unk_alone(tmp_path):
    data, model = cohort(KIND, 6)
    for baseline in ("typical", "removed", {"row": "typical"}):
        with pytest.raises(CohortError, match=r'accepted under rules="pyhealth": \'unk\''):
            run(model, data, tmp_path / "out", rules="pyhealth", baseline=baseline)
    run(model, data, tmp_path / "out", rules="pyhealth")
    assert manifest(tmp_path / "out")["identity"]["baseline"] == "unk"


def test_workers_are_given_what_was_fitted(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    data, model = cohort(KIND)
    fits = []

    def counted(*args, **options):
        fits.append(1)
        return baselines.typical(*args, **options)

    monkeypatch.setattr(cohort_baseline, "typical", counted)
    with (
        distributed.LocalCluster(n_workers=2, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        attributed(model, data, tmp_path / "cluster", baseline="typical", client=client)
    assert fits == [1]
    attributed(model, data, tmp_path / "one", baseline="typical")
    there, here = (table(tmp_path / name, "samples").to_pandas() for name in ("cluster", "one"))
    assert list(there["sample"]) == list(here["sample"])
    for name in ("output", "baseline_output"):  # to rounding: numbers of threads differ
        assert there[name].to_numpy() == pytest.approx(here[name].to_numpy(), rel=1e-5, abs=1e-6)
    assert manifest(tmp_path / "cluster")["identity"]["baseline"] == manifest(tmp_path / "one")["identity"]["baseline"]


@pytest.mark.parametrize("lanes", ["one after the other", "on a cluster"])
def test_an_untrained_baseline_is_warned_of_once(lanes, tmp_path):
    data, model = cohort("MLP")
    interpreter = DeepLift(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if lanes == "on a cluster":
            distributed = pytest.importorskip("distributed")
            with (
                distributed.LocalCluster(n_workers=2, processes=False, dashboard_address=":0") as cluster,
                distributed.Client(cluster) as client,
            ):
                attributed(model, data, tmp_path / "out", interpreter=interpreter, client=client)
        else:
            attributed(model, data, tmp_path / "out", interpreter=interpreter)
        attributed(model, data, tmp_path / "again", interpreter=interpreter)
    assert [each.filename for each in caught if each.category is BaselineWarning] == [__file__]


@pytest.mark.parametrize("as_tensors", [True, False])
@pytest.mark.parametrize("in_memory", [True, False])
def test_flags_of_the_samples_travel_through_stretches_and_batches(as_tensors, in_memory, tmp_path):
    samples = raw(12, {"codes": 0, "labs": 0})
    for i, each in enumerate(samples):
        values = np.array(each["labs"][1])
        flags = np.random.default_rng(i).random(values.shape) < 0.7
        values[~flags] = 0
        values[:, i % 3] *= i > 5  # zeros, some of them measured
        each["labs"] = (each["labs"][0], values.tolist())
        each["labs_measured"] = torch.from_numpy(flags) if as_tensors else flags
    data, model = cohort("StageNet", samples=samples, in_memory=in_memory)
    typical = baselines.typical(data)
    plain = [{key: value for key, value in data[i].items() if key != "labs_measured"} for i in range(12)]
    assert typical != baselines.typical(plain, processors=data.input_processors)
    attributed(model, data, tmp_path, baseline="typical", budget=40)
    assert manifest(tmp_path)["identity"]["baseline"] == typical.name
    assert_is_each_samples_own(model, data, tmp_path, typical)
