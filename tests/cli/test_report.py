"""`deeplift-fast report`."""

import sys
from pathlib import Path

import cohort_cases
import page_checks
import patient_cases as cases
import pytest

import deeplift_fast.report
from deeplift_fast.cli import main
from deeplift_fast.report.page import _environment

RECIPE = """
import sys
sys.path.insert(0, {tests!r})
import cohort_cases

def build():
    print("what a recipe prints is no result")
    data, model = cohort_cases.cohort()
    return model, data
"""


@pytest.fixture
def out(tmp_path):
    return cases.folder(tmp_path / "out", cases.record(2), others=3)


def run(*arguments):
    try:
        return main(["report", *map(str, arguments)])
    except SystemExit as error:
        return error.code


def test_a_page_is_written_for_its_owner_alone(out, tmp_path, capsys, monkeypatch):
    path = tmp_path / "page.html"
    assert run(out, "--patient", cases.PATIENT, "--out", path) == 0
    assert capsys.readouterr().out == f"{path}: {path.stat().st_size:,} bytes\n"
    assert path.stat().st_mode & 0o777 == 0o600
    shown = page_checks.check(path.read_text()).shown
    assert f"Patient {cases.PATIENT}" in shown
    assert "was not run without them" in shown
    with monkeypatch.context() as patch:
        patch.setattr(deeplift_fast.report, "patient_page", None)  # refused before the work
        assert run(out, "--sample", 0, "--out", path, "--pseudonymous") == 2
    assert "exists; give another path, or replace it with --force" in capsys.readouterr().err
    assert run(out, "--sample", 0, "--out", path, "--pseudonymous", "--force") == 0
    assert cases.PATIENT not in path.read_text()


def test_wrong_arguments_are_said(out, tmp_path, capsys):
    path = tmp_path / "page.html"
    assert run(out, "--out", path) == 2
    assert "--patient" in capsys.readouterr().err
    assert run(out, "--patient", "nobody", "--out", path) == 2
    assert "patient 'nobody' is not in the finished parts" in capsys.readouterr().err
    assert run(tmp_path, "--sample", 0, "--out", path) == 2
    assert "holds no manifest.json" in capsys.readouterr().err
    assert run(out, "--sample", 0, "--out", out / "manifest.json", "--force") == 2
    assert "belongs to the cohort" in capsys.readouterr().err
    assert not path.exists()


def test_without_jinja2_the_extra_is_named(out, tmp_path, capsys, monkeypatch):
    _environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run(out, "--sample", 0, "--out", tmp_path / "page.html") == 1
    assert 'this needs jinja2: pip install "deeplift_fast[report]"' in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_with_the_recipe_the_model_is_run_without_each_reason(tmp_path, capsys):
    data, model = cohort_cases.cohort()
    cohort_cases.run(model, data, tmp_path / "out", rules="complete")
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(tests=str(Path(cases.__file__).parent)))
    path = tmp_path / "page.html"
    capsys.readouterr()
    assert run(tmp_path / "out", "--sample", 7, "--out", path, "--recipe", f"{recipe}:build") == 0
    assert capsys.readouterr().out == f"{path}: {path.stat().st_size:,} bytes\n"
    shown = page_checks.check(path.read_text()).shown
    assert "The model was run again with one of them put at the reference" in shown
    assert "so it moved the logit by" in shown
    other = tmp_path / "other.py"
    other.write_text(recipe.read_text().replace("return model", "model.fc.weight.data.mul_(3)\n    return model"))
    assert run(tmp_path / "out", "--sample", 7, "--out", path, "--recipe", f"{other}:build", "--force") == 2
    assert "--recipe is not the one that" in capsys.readouterr().err
