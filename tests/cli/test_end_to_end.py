"""The command line on the engine itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyhealth.datasets  # noqa: F401  (its logger keeps the standard error it finds: not that of a test)
import pytest

from deeplift_fast import cli

RECIPE = """
import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.models import MLP
def build():
    torch.manual_seed(0)
    samples = [
        {"patient_id": f"secret-{n // 2}", "visit_id": f"secret-{n}", "codes": [f"c{n % 9}"], "label": n % 2}
        for n in range(120)
    ]
    samples[7]["codes"] = []
    dataset = create_sample_dataset(samples, {"codes": "sequence"}, {"label": "binary"}, dataset_name="x")
    return MLP(dataset, embedding_dim=8, hidden_dim=8), dataset
"""
RUN = ["run", "recipe.py:build", "--out", "out", "--part-samples", "40"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "recipe.py").write_text(RECIPE)
    yield tmp_path
    sys.modules.pop("recipe", None)


def parts(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("part-*")}


def test_a_cohort_is_attributed_in_two_goes_and_summed_up(here, capsys):
    assert cli.main([*RUN, "--limit", "80"]) == 3
    assert cli.main(RUN) == 3
    told = capsys.readouterr()
    assert "119 sample(s) attributed, in 3 part(s)" in told.out
    assert "1 sample(s) could not be attributed; out/failures.parquet says why" in told.err
    assert len(pd.read_parquet("out/samples")) == 119
    assert cli.main(["summary", "out", "--json", "t.json"]) == 0
    told_too = capsys.readouterr()
    totals = json.loads((here / "t.json").read_text())["completeness"]
    assert (totals["samples"], totals["parts"], totals["parts_in_all"]) == (119, 3, 3)
    assert sum(totals["failures"].values()) == 1
    assert not any("secret" in text for text in (*told, *told_too))


def test_another_run_is_refused_and_force_starts_over(here, capsys):
    assert cli.main([*RUN, "--quiet"]) == 3
    before = parts(here / "out")
    assert cli.main([*RUN, "--quiet", "--rules", "complete"]) == 2
    assert "rules" in capsys.readouterr().err
    assert parts(here / "out") == before
    assert cli.main([*RUN, "--quiet", "--rules", "complete", "--force"]) == 3
    assert parts(here / "out") != before


@pytest.mark.slow
def test_two_workers_write_what_one_writes(here):
    assert cli.main([*RUN, "--quiet"]) == 3
    alone = parts(here / "out")
    assert cli.main([*RUN, "--quiet", "--force", "--workers", "2"]) == 3
    assert parts(here / "out") == alone


@pytest.mark.slow
def test_ctrl_c_keeps_finished_parts_and_the_same_command_goes_on(here, capsys):
    assert cli.main([*RUN, "--quiet"]) == 3
    whole = parts(here / "out")
    slow = RECIPE.replace("import torch\n", "import time, torch\n", 1).replace(
        "    return MLP(dataset",
        "    get = type(dataset).__getitem__\n"
        "    type(dataset).__getitem__ = lambda self, n: (time.sleep(0.02), get(self, n))[1]\n"
        "    return MLP(dataset",
    )
    (here / "slow.py").write_text(slow)
    command = [sys.executable, "-m", "deeplift_fast.cli", "run", "slow.py:build", "--out", "cut"]
    process = subprocess.Popen(
        [*command, "--part-samples", "40", "--read-ahead", "0"],
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and not list((here / "cut").glob("samples/part-*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert "interrupted; finished parts are kept" in told
    assert "Traceback" not in told
    assert cli.main(["run", "recipe.py:build", "--out", "cut", "--part-samples", "40", "--quiet"]) == 3
    assert parts(here / "cut") == whole
