"""A run that was killed, wherever and however, goes on to the bytes of an undisturbed one and loses nothing."""

import json
import os
import sys
from pathlib import Path

import processes
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_bytes(tmp_path, examples, figures):
    wanted = examples(24, 200)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", ROOT / "tests" / "faults" / "killing.py", tmp_path, str(wanted)]
    done = processes.run(command, limit=examples(900, 3600), cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["kills"].values()) >= wanted
    assert "SIGKILL before a change of the folder" in found["kills"]
    figures("kills", **found["kills"], runs_resumed_to_the_same_bytes=found["runs"], other_numbers=0, parts_lost=0)
