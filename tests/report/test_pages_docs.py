"""The commands and lines of docs/pages.md run as they stand."""

import re
import shlex
from pathlib import Path

import cohort_cases
import page_checks
import patient_cases as cases
import pytest

from deeplift_fast.cli import main

TEXT = (Path(__file__).parents[2] / "docs/pages.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?m)^deeplift-fast (.+)$", TEXT)
RECIPE = f"""
import sys
sys.path.insert(0, {str(Path(cases.__file__).parent)!r})
import cohort_cases

def build():
    data, model = cohort_cases.cohort()
    return model, data
"""


@pytest.mark.filterwarnings("ignore")
def test_every_command_and_every_line_of_python_runs(tmp_path, monkeypatch, capsys):
    raw = cohort_cases.raw(23)
    named = [each | {"patient_id": str(10_003 + n)} for n, each in enumerate(raw)]
    monkeypatch.setattr(cohort_cases, "raw", lambda *given: named)
    monkeypatch.chdir(tmp_path)
    data, model = cohort_cases.cohort()
    cohort_cases.run(model, data, tmp_path / "mortality", rules="complete")
    (tmp_path / "recipe.py").write_text(RECIPE)
    wards = "".join(f"{each['patient_id']},ward {n % 2}\n" for n, each in enumerate(named))
    (tmp_path / "wards.csv").write_text("patient_id,ward\n" + wards)
    assert len(COMMANDS) == len(re.findall(r"deeplift-fast report mortality", TEXT)) > 3
    for command in COMMANDS:
        assert main(shlex.split(command)) == 0, capsys.readouterr().err
        path = tmp_path / shlex.split(command)[shlex.split(command).index("--out") + 1]
        page_checks.check(path.read_text(encoding="utf-8"))
    codes = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    for code, page in zip(codes, ("patient.html", "wards.html"), strict=True):
        names = {}
        exec(code, names)
        assert names["text"] == (tmp_path / page).read_text(encoding="utf-8")
    assert (tmp_path / "mortality/summary.parquet").exists()
    assert "The model was run again" in (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "10006" not in (tmp_path / "shared.html").read_text(encoding="utf-8")
