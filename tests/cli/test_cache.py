"""`deeplift-fast cache`, and `--no-cache`."""

import json
import re
import sys
from pathlib import Path

import pytest
from cohort_cases import cohort, contents

from deeplift_fast import cli

RECIPE = """
from pyhealth.datasets import SampleDataset
from pyhealth.models import MLP
import torch
def build():
    torch.manual_seed(0)
    data = SampleDataset({path!r})
    return MLP(data, embedding_dim=4, hidden_dim=4).eval(), data
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    data, _ = cohort("MLP", in_memory=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "recipe.py").write_text(RECIPE.format(path=data.path))
    yield tmp_path
    sys.modules.pop("recipe", None)
    data.close()


def test_the_command_says_where_how_large_and_how_long(here, capsys):
    assert cli.main(["cache", "recipe.py:build"]) == 0
    shown = capsys.readouterr()
    found = re.fullmatch(r"(\S+): 23 samples, [\d.]+ MB, made in [\d.]+ s \([\d,]+ samples/s\)\n", shown.out)
    path = Path(found[1])
    assert path.stat().st_mode & 0o777 == 0o600
    assert "Caching: 23 of 23 samples, " in shown.err
    assert "failures" not in shown.err
    assert cli.main(["cache", "recipe.py:build"]) == 0
    assert f"{path}: there already, and sound: 23 samples" in capsys.readouterr().out
    assert cli.main(["cache", "recipe.py:build", "--quiet", "--force", "--folder", "caches"]) == 0
    assert capsys.readouterr() == ("", "")
    assert [each.name for each in Path("caches").rglob("*.arrow")] == [path.name]

    assert cli.main(["run", "recipe.py:build", "--out", "out", "--part-samples", "10"]) == 0
    assert f"samples read from cache {path}\n" in capsys.readouterr().out
    assert cli.main(["run", "recipe.py:build", "--out", "none", "--part-samples", "10", "--no-cache"]) == 0
    assert "cache" not in capsys.readouterr().out
    assert contents("out") == contents("none")


def test_the_log_of_a_cache_is_that_of_a_run(here, capsys):
    """Every line is JSON, and all have one id."""
    command = ["cache", "recipe.py:build", "--log-json"]
    assert cli.main(command) == 0
    shown = capsys.readouterr()
    done, *told = map(json.loads, [shown.out, *shown.err.splitlines()])
    assert [event["event"] for event in told if event["event"] != "warning"] == ["recipe", "start", "part", "end"]
    assert (told[-1]["done"], told[-1]["total"]) == (23, 23)
    assert {event["run"] for event in told} == {done["run"]}
    path = Path(done["cache"])
    assert (done["event"], done["samples"], done["bytes"], done["is_new"]) == ("done", 23, path.stat().st_size, True)
    assert cli.main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["cache"], again["is_new"], again["run"] == done["run"]) == (str(path), False, False)
    log = (Path(__file__).parents[2] / "docs" / "cohorts.md").read_text().partition("### The log")[2]
    assert all(f"`{name}`" in log.partition("### Progress")[0] for name in done)

    assert cli.main(["cache", "nowhere.py:build", "--log-json"]) == 2
    shown = capsys.readouterr()
    error = json.loads(shown.err.splitlines()[-1])
    assert (shown.out, error["event"], error["code"]) == ("", "error", 2)
    with pytest.raises(SystemExit):
        cli.main([*command, "--quiet"])
    assert "--quiet and --log-json exclude each other" in capsys.readouterr().err


def test_a_run_says_that_it_made_a_cache(here, capsys):
    assert cli.main(["run", "recipe.py:build", "--out", "out", "--log-json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["cache"] is None
    assert cli.main(["run", "recipe.py:build", "--out", "other", "--log-json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["cache"], read["made_cache"]) == (made["made_cache"], None)


def test_a_dataset_that_cannot_be_cached_is_bad_input(here, capsys):
    text = Path("recipe.py").read_text().replace("return MLP(", "return MLP(", 1)
    Path("recipe.py").write_text(text.replace(".eval(), data", ".eval(), [data[i] for i in range(3)]"))
    assert cli.main(["cache", "recipe.py:build"]) == 2
    shown = capsys.readouterr()
    assert (shown.out, "the dataset cannot be cached" in shown.err) == ("", True)
