import html
import pickle
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import plot_cases as cases
import pytest
import torch

import deeplift_fast
from deeplift_fast import Attribution, Interactions
from deeplift_fast.report import Summary


class Explanation:
    """As much of shap's as is used here."""

    def __init__(self, values, base_values=None, data=None, feature_names=None):
        self.values, self.base_values, self.data, self.feature_names = values, base_values, data, feature_names


@pytest.fixture
def stand_in(monkeypatch):
    module = ModuleType("shap")
    module.Explanation = Explanation
    monkeypatch.setitem(sys.modules, "shap", module)


def check_explanation(found, given):
    assert given.values.shape == (3, 6)
    assert given.base_values == pytest.approx(found.baseline_output.numpy())
    assert given.values == pytest.approx(found.contributions["x"].numpy())
    assert given.base_values + given.values.sum(1) == pytest.approx(found.output.numpy(), abs=1e-6)
    assert list(given.feature_names) == [f"x[{n}]" for n in range(6)]


def test_an_explanation_begins_at_the_baselines_output(stand_in):
    found = cases.plain()
    check_explanation(found, found.to_shap())


def test_shap_takes_the_explanation():
    shap = pytest.importorskip("shap")
    found = cases.plain()
    given = found.to_shap()
    assert isinstance(given, shap.Explanation)
    check_explanation(found, given)


def test_of_several_baselines_the_mean_counts(stand_in):
    bases = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    found = Attribution(torch.zeros(2, 4), bases, torch.zeros(2), bases, None)
    assert found.to_shap().base_values.tolist() == [2, 4]
    assert "4" in found._repr_html_()


def test_without_shap_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ImportError, match="pip install shap"):
        cases.plain().to_shap()


def test_elements_of_tensors_are_rows():
    values = torch.arange(24.0).reshape(2, 3, 4)
    nothing = torch.zeros(2)
    table = Attribution((values, values[:, 0, :1]), nothing, nothing, nothing, None).to_dataframe()
    assert table["attribution"].tolist() == [*range(12), 0, *range(12, 24), 12]
    row = table[(table["sample"] == 1) & (table["code"] == "x0[2, 3]")].iloc[0]
    assert (row["attribution"], row["step"], row["slot"], row["feature"]) == (23, 2, 3, "x0")
    assert table["value"].isna().all()


def test_top_is_by_size():
    found = cases.plain()
    table = found.top(4, sample=1)
    values = found.contributions["x"][1].numpy()
    assert table["attribution"].tolist() == pytest.approx(values[np.argsort(-np.abs(values))[:4]].tolist())
    assert set(table["sample"]) == {1}
    assert len(found.top(10)) == 6
    with pytest.raises(ValueError, match="sample is 3; accepted: 0 to 2"):
        found.top(1, sample=3)
    with pytest.raises(ValueError, match="count is 0"):
        found.top(0)
    with pytest.raises(ValueError, match="give both, or neither"):
        found.to_dataframe(model=object())


def test_a_notebook_shows_text_alone():
    hostile = "<script>alert(1)</script>\u202e" + "x" * 10_000
    values = torch.tensor([[1.0, -2.0]])
    nothing = torch.zeros(1)
    page = Attribution({hostile: values}, nothing, nothing, nothing, None, baseline=hostile)._repr_html_()
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    assert len(page) < 5000
    assert set(re.findall(r"<(\w+)", page)) == {"p", "table", "tr", "th", "td"}
    assert "▼ −2" in html.unescape(page)


def test_a_notebook_shows_what_is_there():
    page = cases.plain(batch=9)._repr_html_()
    assert "9 sample(s), 4 more not shown; compared with: zeros" in page
    empty = deeplift_fast.attribute(torch.nn.Linear(2, 1), torch.zeros(0, 2))
    assert "0 sample(s)" in empty._repr_html_()


def test_without_pandas_a_notebook_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert "pip install &quot;deeplift_fast[cohort]&quot;" in cases.plain()._repr_html_()


def test_a_pickle_holds_neither_model_nor_batch():
    nothing = torch.zeros(1)
    source = (SimpleNamespace(secret=1), {"patient_id": ["secret-patient"]})
    found = Attribution(torch.zeros(1, 2), nothing, nothing, nothing, None, source=source)
    kept = pickle.dumps(found)
    assert b"secret" not in kept
    assert pickle.loads(kept).source is None
    assert found.source is source
    assert "secret" not in repr(found)


def test_a_result_equals_itself_alone():
    """Their tensors and tables have no single truth value, so `==` compared element by element would raise."""
    for kind in (Attribution, Interactions, Summary):
        assert kind.__eq__ is object.__eq__
    first, second = cases.plain(), cases.plain()
    assert first == first
    assert first != second
    assert [second, first].index(first) == 1
    assert len({first, second}) == 2
