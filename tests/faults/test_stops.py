"""A run that is stopped keeps its finished parts, says so, and goes on to the bytes of an undisturbed one."""

import json
import os
import sys
from datetime import datetime
from pathlib import Path

import processes
import pytest
from cohort_cases import cohort, contents, manifest, run

from deeplift_fast.support import clock

ROOT = Path(__file__).parents[2]
ENDS = {
    "Ctrl-C": (130, "interrupted"),
    "SIGTERM": (143, "terminated"),
    "SIGTERM to all its processes": (143, "terminated"),
    "SIGTERM, and later to the reading process": (143, "terminated"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder with the stopped runs, and their exit codes."""
    folder = tmp_path_factory.mktemp("stops")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", ROOT / "tests" / "faults" / "stopping.py", folder]
    done = processes.run(command, limit=900, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes.keys() == ENDS.keys()
    return folder, codes


@pytest.mark.slow
@pytest.mark.parametrize("way", ENDS)
def test_a_stop_keeps_finished_parts_and_the_same_run_goes_on(stopped, tmp_path, monkeypatch, way):
    folder, codes = stopped
    code, word = ENDS[way]
    told = (folder / way / "told").read_text()
    assert codes[way] == code, told
    assert f"deeplift-fast: {word}; finished parts are kept: the same command goes on" in told
    assert "Traceback" not in told
    cut = folder / way / "cut"
    before = manifest(cut)
    assert 0 < len(before["parts"]) < 12
    monkeypatch.setattr(clock, "now", lambda: datetime.fromisoformat(before["about"]["created"]))
    data, model = cohort(count=120)
    for out in (cut, tmp_path / "whole"):
        run(model, data, out, part_samples=10)
    assert before["parts"].items() <= manifest(cut)["parts"].items()
    assert contents(cut) == contents(tmp_path / "whole")
