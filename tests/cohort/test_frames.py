"""The names of an attribution are those of the cohort's tables."""

import pickle
import warnings

import matplotlib.pyplot as plt
import metadata_cases
import pandas as pd
import plot_cases as cases
import pytest
from cohort_cases import cohort, run, table
from pyhealth.datasets.utils import collate_fn_dict_with_padding

from deeplift_fast import DeepLift, plot
from deeplift_fast.core.frames import ALWAYS


@pytest.fixture(scope="module")
def explained():
    """A dataset and a model, a batch of four samples and its attribution."""
    data, model = cohort("Transformer, one row", 8)
    batch = collate_fn_dict_with_padding([data[i] for i in range(4)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DeepLift(model, rules="complete").explain(**batch)
    return data, model, batch, found


def test_rows_are_those_of_the_cohort(explained, tmp_path):
    data, model, batch, found = explained
    run(model, data, tmp_path / "out", rules="complete")
    expected = table(tmp_path / "out", "attributions").to_pandas()
    expected = expected[expected["sample"] < 4].reset_index(drop=True)
    for frame in (found.to_dataframe(), found.to_dataframe(model, batch)):
        assert list(frame.columns) == list(expected.columns)
        for name in frame.columns:
            if name == "attribution":
                assert frame[name].tolist() == pytest.approx(expected[name].tolist(), abs=1e-5)
            else:
                assert frame[name].astype(object).equals(expected[name].astype(object)), name


def test_dimensions_have_the_names_given(explained):
    _, model, batch, found = explained
    size = batch["row"].shape[-1]
    names = [f"lab {n}" for n in range(size)]
    frame = found.to_dataframe(model, batch, {"row": names})
    assert set(frame.loc[frame["feature"] == "row", "code"]) <= set(names)
    with pytest.raises(ValueError, match=r"dimensions\['row'\] has 1 name"):
        found.to_dataframe(model, batch, {"row": ["one"]})


def test_a_batch_that_was_not_explained_is_refused(explained):
    data, model, _, found = explained
    other = collate_fn_dict_with_padding([data[i] for i in range(3)])
    with pytest.raises(ValueError, match="shape"):
        found.to_dataframe(model, other)


def test_top_and_the_notebook_name_codes(explained):
    found = explained[-1]
    top = found.top(3, sample=0)
    assert top["attribution"].abs().is_monotonic_decreasing
    assert any(isinstance(code, str) for code in found.top(100)["code"])
    assert list(top.columns) == [name for name in found.to_dataframe() if name in ALWAYS or top.get(name) is not None]
    assert not [name for name in top if name not in ALWAYS and top[name].isna().all()]
    assert "code" in str(top).splitlines()[0].split()  # also where a terminal has room for 80 letters
    assert "Sample 0, the " in found._repr_html_()
    assert "secret-patient" not in found._repr_html_()


def test_an_attribution_is_drawn_with_its_names(explained):
    found = explained[-1]
    ax = plot.waterfall(found, sample=1)
    cases.check(ax)
    codes = set(found.to_dataframe().query("sample == 1")["code"].dropna())
    assert any(text.startswith(code) for code in codes for text in cases.shown(ax))
    assert "probability" in cases.shown(ax)
    for draw in (plot.timeline, plot.waterfall):
        cases.check(draw(found, sample=0, width=3.5))
    cases.check(plot.compare(found, found, sample=0))
    names = {"row": [f"lab {n}" for n in range(explained[2]["row"].shape[-1])]}
    lists = (plot.waterfall, plot.timeline)
    drawn = [draw(found, sample=1, top=40, dimensions=names) for draw in lists]
    drawn.append(plot.compare(found, found, sample=1, top=40, dimensions=names))
    drawn += [draw(found, top=40, min_samples=1, dimensions=names) for draw in (plot.bar, plot.beeswarm)]
    for ax in drawn:
        assert any(text.startswith("lab 0") for text in cases.shown(ax))
        assert not any(text.startswith("dimension") for text in cases.shown(ax))
    for draw in (*lists, plot.bar, plot.beeswarm):
        with pytest.raises(ValueError, match=r"dimensions is given and data a DataFrame; accepted: .* Attribution"):
            draw(found.to_dataframe(), dimensions=names)
    plt.close("all")


def test_columns_of_an_explanation_are_codes(explained, monkeypatch):
    import sys
    from types import ModuleType

    module = ModuleType("shap")
    module.Explanation = lambda **given: given
    monkeypatch.setitem(sys.modules, "shap", module)
    found = explained[-1]
    given = found.to_shap()
    total = given["base_values"] + given["values"].sum(1)
    assert total == pytest.approx(found.output.detach().numpy(), abs=1e-4)
    frame = found.to_dataframe()
    code = frame.loc[frame["feature"] == "a", "code"].iloc[0]
    column = next(n for n, name in enumerate(given["feature_names"]) if name in (code, f"{code} (a)"))
    of_code = frame[(frame["feature"] == "a") & (frame["code"] == code)]
    sums = of_code.groupby("sample")["attribution"].sum().reindex(range(4), fill_value=0)
    assert given["values"][:, column] == pytest.approx(sums.to_numpy(), abs=1e-6)
    counts = of_code.groupby("sample").size().reindex(range(4), fill_value=0)
    assert given["data"][:, column] == pytest.approx(counts.to_numpy())
    assert pd.isna(given["data"]).sum() == 0 or frame["value"].notna().any()


class TestSums:
    """Sums of a batch have the names of the tables, and add up to the contributions."""

    @pytest.fixture(scope="class")
    def with_metadata(self):
        data = metadata_cases.dataset()
        batch = collate_fn_dict_with_padding([data[i] for i in range(3)])
        return DeepLift(metadata_cases.stagenet(data), rules="complete").explain(**batch)

    @pytest.mark.parametrize("what", ["feature", "step", "stay"])
    def test_they_are_those_of_the_rows(self, with_metadata, what):
        rows, sums = with_metadata.to_dataframe(), with_metadata.by(what)
        keys = {"feature": ["sample", "feature"], "step": ["sample", "feature", "step"], "stay": ["sample", "stay"]}
        expected = rows.fillna({"stay": "unknown"}).groupby(keys[what])["attribution"].sum()
        found = sums.fillna({"stay": "unknown"}).set_index(keys[what])["attribution"]
        assert len(found) == len(expected)
        assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-6)
        total = sum(float(each.double().sum()) for each in with_metadata.contributions.values())
        assert sums["attribution"].sum() == pytest.approx(total, abs=1e-6)
        assert set(sums.columns) <= set(rows.columns)

    def test_steps_have_their_days_and_stays(self, with_metadata):
        steps = with_metadata.by("step")
        rows = steps[(steps["patient_id"] == "p1") & (steps["feature"] == "labs")]
        assert rows["day"].tolist() == metadata_cases.DAYS["p1", "labs"]
        assert rows["stay"].tolist() == metadata_cases.STAY["p1", "labs"]
        assert rows["time"].tolist() == [0.5, 1.5, 2.5]

    def test_stays_are_in_the_order_of_time(self, with_metadata):
        stays = with_metadata.by("stay")
        assert list(stays.columns) == ["sample", "patient_id", "visit_id", "stay", "day", "attribution"]
        assert stays["patient_id"].tolist() == ["p1", "p1", "p2", "p2", "p3", "p3"]
        assert stays["stay"].tolist() == ["first", "second", "9", None, "only", None]
        assert stays["day"].fillna(-1).tolist() == [0, 40.5, -1, -1, 3, 1]

    def test_an_empty_batch_has_no_rows(self, with_metadata):
        model, batch = with_metadata.source
        nobody = {
            key: tuple(each[:0] for each in value) if isinstance(value, tuple) else value[:0]
            for key, value in batch.items()
        }
        found = DeepLift(model, rules="complete").explain(**nobody)
        assert list(found.to_dataframe().columns) == list(with_metadata.to_dataframe().columns)
        for what in ("feature", "step", "stay"):
            assert len(found.by(what)) == 0
            assert list(found.by(what).columns) == list(with_metadata.by(what).columns)

    def test_a_batch_without_stays(self, explained):
        _, model, batch, found = explained
        with pytest.raises(ValueError, match="no step of the batch has a known stay; accepted: a batch with"):
            found.by("stay")
        found = pickle.loads(pickle.dumps(found))  # without the model and the batch
        assert set(found.by("feature", model, batch)["feature"]) <= set(model.feature_keys)
