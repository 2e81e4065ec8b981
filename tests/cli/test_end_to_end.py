"""The command line on the engine itself."""

import json
import logging
import os
import re
import stat
import sys
from datetime import datetime, timedelta
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


NOISY = """
import logging, os, sys, warnings
from recipe import build as quiet_build
kept = logging.getLogger("kept")  # as PyHealth's, which keeps the stream that it finds when it is imported
kept.propagate = False
kept.addHandler(logging.StreamHandler(sys.stdout))
def say(where):
    print("noise", where)
    print("noise", where, file=sys.stderr)
    warnings.warn("noise " + where)
    kept.warning("noise " + where)
    logging.getLogger("elsewhere").warning("noise " + where)
    os.write(1, b"noise\\n")
    os.write(2, b"noise\\n")
class Noisy:
    def __init__(self, data):
        self.data = data
    def __len__(self):
        return len(self.data)
    def __getitem__(self, index):
        say("read")
        return self.data[index]
def build():
    say("built")
    model, data = quiet_build()
    return model, Noisy(data)
"""


def parts(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("part-*")}


def test_a_cohort_is_attributed_in_two_goes_and_summed_up(here, capsys):
    assert cli.main([*RUN, "--limit", "80"]) == 3
    assert cli.main(RUN) == 3
    told = capsys.readouterr()
    assert "119 sample(s) attributed, in 3 part(s)" in told.out
    assert "1 sample(s) could not be attributed; out/failures.parquet says why" in told.err
    assert cli.main(RUN) == 3
    again = capsys.readouterr().out
    assert "out: nothing to do: 119 sample(s), in 3 part(s), were attributed before" in again
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
    assert cli.main([*RUN, "--quiet", "--rules", "rescale"]) == 2
    told = capsys.readouterr().err
    assert 'interpreter.rules: "complete" there, "rescale" now' in told
    assert 'baseline: "removed" there, "unk" now' in told
    assert "--rules complete goes on with it" in told
    assert parts(here / "out") == before
    assert cli.main([*RUN, "--quiet", "--rules", "complete"]) == 3
    assert parts(here / "out") == before
    assert cli.main([*RUN, "--quiet", "--rules", "rescale", "--force"]) == 3
    assert parts(here / "out") != before
    assert cli.main([*RUN, "--quiet"]) == 2
    assert "--rules rescale goes on with it" in capsys.readouterr().err


def test_the_baseline_of_a_run_stands_in_its_summary(here, capsys):
    assert cli.main([*RUN, "--quiet", "--baseline", "typical"]) == 3
    name = json.loads((here / "out" / "manifest.json").read_text())["identity"]["baseline"]
    assert re.fullmatch("typical [0-9a-f]{12}", name)
    files = ["--json", "t.json", "--csv", "t.csv", "--parquet", "t.parquet"]
    assert cli.main(["summary", "out", *files]) == 0
    assert f"relative to        {name}" in capsys.readouterr().out
    assert json.loads((here / "t.json").read_text())["baseline"] == name
    for table in (pd.read_csv("t.csv"), pd.read_parquet("t.parquet")):
        assert set(table["baseline"]) == {name}


def events_of(out, err):
    """The events of a command with --log-json; every line is one."""
    events = [json.loads(line) for line in [*err.splitlines(), *out.splitlines()]]
    for event in events:
        assert list(event)[:4] == ["event", "time", "level", "run"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
        assert datetime.fromisoformat(event["time"]).utcoffset() == timedelta(0)
        assert event["level"] in ("info", "warning", "error")
        assert re.fullmatch("[0-9a-f]{32}", event["run"])
    assert len({event["run"] for event in events}) == 1
    return events


OWN = """
import logging, warnings
from recipe import build as quiet_build
class Own:
    def __init__(self, data):
        self.data = data
    def __len__(self):
        return len(self.data)
    def __getitem__(self, index):
        if index == len(self.data) // 2:
            HERE
        return self.data[index]
def build():
    model, data = quiet_build()
    return model, Own([dict(data[index]) for index in range(len(data))])
"""


@pytest.fixture
def own_run(here, capfd):
    """Runs the command on a dataset that does something at the sample in its middle."""

    def call(does, *options):
        (here / "own.py").write_text(OWN.replace("HERE", does))
        return cli.main(["run", "own.py:build", *RUN[2:], *options]), *capfd.readouterr()

    yield call
    sys.modules.pop("own", None)


@pytest.mark.parametrize(
    ("does", "code", "said"),
    [("raise KeyboardInterrupt", 130, "interrupted"), ("raise ValueError('secret-0')", 2, "sample 60 .* be read")],
)
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_stop_is_two_events(own_run, does, code, said, debug):
    found, *told = own_run(does, "--log-json", "--read-ahead", "0", *debug)
    stopped, error = events_of(*told)[-2:]
    kept = json.loads(Path("out/manifest.json").read_text())["parts"]  # a part in work is given up
    done = sum(part["end"] - part["begin"] for part in kept.values())
    assert (stopped["event"], stopped["level"], stopped["done"]) == ("stopped", "warning", done)
    assert done <= 40
    assert (error["event"], error["level"], error["code"]) == ("error", "error", code)
    assert found == code
    assert re.search(said, error["message"])
    assert ("Traceback" in error.get("traceback", "")) == bool(debug)


def test_each_call_is_a_run_of_its_own(here, capfd):
    runs = []
    for _ in range(2):
        assert cli.main([*RUN, "--log-json"]) == 3
        runs.append(events_of(*capfd.readouterr())[-1]["run"])
        assert json.loads(Path("out/manifest.json").read_text())["run"] == runs[-1]
    assert runs[0] != runs[1]


def warned_of(told, what):
    return [line for line in told.splitlines() if what in line]


def test_an_untrained_baseline_is_warned_of_once_in_a_line(here, capfd):
    assert cli.main([*RUN, "--rules", "rescale"]) == 3
    (line,) = warned_of(capfd.readouterr().err, "UNK")
    assert line.startswith("deeplift-fast: BaselineWarning: no baseline was given")
    assert cli.main([*RUN, "--rules", "rescale", "--baseline", "unk"]) == 3  # which goes on: the same baseline
    assert not warned_of(capfd.readouterr().err, "UNK")


PADDED = """
import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.models import StageNet
def build():
    torch.manual_seed(0)
    samples = [
        {
            "patient_id": f"secret-{n}",
            "labs": ([float(k) for k in range(1 + n % 4)], torch.randn(1 + n % 4, 2).tolist()),
            "label": n % 2,
        }
        for n in range(24)
    ]
    dataset = create_sample_dataset(samples, {"labs": "stagenet_tensor"}, {"label": "binary"}, dataset_name="x")
    return StageNet(dataset, embedding_dim=8, chunk_size=4, conv_size=3), dataset
"""
IN_PADDED = ["--part-samples", "4", "--budget", "1000"]


def test_what_the_model_says_otherwise_is_told_once_and_summed_up(here, capfd):
    (here / "recipe.py").write_text(PADDED)
    given = ["run", "recipe.py:build", "--out", "out", *IN_PADDED]
    assert cli.main(given) == 0
    (line,) = warned_of(capfd.readouterr().err, "PredictionWarning")
    assert line.startswith("deeplift-fast: PredictionWarning: for 3 of 4 compared samples the model's logits")
    held = json.loads((here / "out" / "manifest.json").read_text())["prediction_difference"]
    assert f"by up to {held['logit']:.3g} in logit and {held['probability']:.3g} in probability" in line
    assert cli.main(["summary", "out"]) == 0
    told = " ".join(capfd.readouterr().out.split())  # lines end at 80 columns
    expected = f"by up to {held['logit']:.3g} in logit and {held['probability']:.3g} in probability, for 3 of 4"
    assert told.count("model(**batch)") == 1
    assert expected in told
    assert cli.main([*given, "--log-json", "--force"]) == 0
    events = events_of(*capfd.readouterr())
    told = [each["message"] for each in events if each["event"] == "warning"]
    assert sum("PredictionWarning" in each for each in told) == 1
    assert cli.main([*given, "--quiet", "--force"]) == 0
    assert capfd.readouterr().err == ""


@pytest.fixture
def noisy_run(here, capfd, monkeypatch):
    (here / "noisy.py").write_text(NOISY)
    monkeypatch.setattr(logging.getLogger("elsewhere"), "propagate", False)  # to pytest's handlers

    def call(*options):
        code = cli.main(["run", "noisy.py:build", "--out", "noisy", "--force", "--read-ahead", "1", *options])
        assert code == 3
        return capfd.readouterr()

    yield call
    logging.getLogger("kept").handlers.clear()
    sys.modules.pop("noisy", None)


def test_what_others_write_is_dropped_where_errors_or_json_alone_are_asked_for(noisy_run):
    out, err = noisy_run("--quiet")
    assert out == ""
    assert err == "deeplift-fast: 1 sample(s) could not be attributed; noisy/failures.parquet says why\n"
    out, err = noisy_run("--log-json")
    assert json.loads(out)["samples"] == 119
    events = events_of(out, err)
    assert {each["event"]: each["level"] for each in events} == {
        "recipe": "info", "warning": "warning", "start": "info", "part": "info", "end": "info", "done": "warning"
    }  # fmt: skip
    assert "noise" not in err
    assert {each["run"] for each in events} == {json.loads(Path("noisy/manifest.json").read_text())["run"]}


def test_what_others_write_does_not_mix_with_the_result(noisy_run):
    out, err = noisy_run()
    assert re.fullmatch("noisy: 119 sample.*\n", out)
    for line in ("noise built", "noise read", "noise"):
        assert line in err.splitlines()
    assert not [line for line in err.splitlines() if line.startswith("deeplift-fast:") and "noise" in line]


WARNS = "warnings.warn('read secret'); logging.getLogger('elsewhere').error('logged secret')"


@pytest.mark.slow
@pytest.mark.parametrize("padded", [True, False])
def test_workers_send_their_warnings_to_the_run(own_run, here, padded):
    """It writes ours once, and those of others by class and place alone, unless --debug asks for more."""
    if padded:
        (here / "recipe.py").write_text(PADDED)
        options = [*IN_PADDED, "--log-json", "--debug"]
    else:
        options = ["--rules", "rescale"]
    code, out, err = own_run(WARNS, "--workers", "2", *options)
    if padded:
        assert code == 0
        told = [each["message"] for each in events_of(out, err) if each["event"] == "warning"]
        (line,) = [line for line in told if "PredictionWarning" in line]
        assert line.startswith("PredictionWarning: for 3 of 4 compared samples the model's logits")
        held = json.loads(Path("out/manifest.json").read_text())["prediction_difference"]
        assert f"by up to {held['logit']:.3g} in logit and {held['probability']:.3g} in probability" in line
    else:
        assert code == 3
        told = [line.removeprefix("deeplift-fast: ") for line in err.splitlines() if line.startswith("deeplift-fast")]
        (line,) = [line for line in told if "UNK" in line]
        assert line.startswith("BaselineWarning: no baseline was given")
    for start, text in (("UserWarning at ", "read secret"), ("ERROR of elsewhere at ", "logged secret")):
        found = [line for line in told if line.startswith(start)]
        assert found
        assert any(text in line for line in found) == padded  # with --debug


@pytest.mark.slow
def test_two_workers_write_what_one_writes(own_run, here):
    """With --quiet, the warnings of workers are dropped too."""
    assert own_run(WARNS, "--quiet")[0] == 3
    alone = parts(here / "out")
    before = os.umask(0)  # of the workers too
    try:
        code, out, err = own_run(WARNS, "--quiet", "--force", "--workers", "2")
    finally:
        os.umask(before)
    assert code == 3
    assert out == ""
    assert err == "deeplift-fast: 1 sample(s) could not be attributed; out/failures.parquet says why\n"
    assert parts(here / "out") == alone
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (here / "out").rglob("*") if path.is_file()}
    assert modes == {0o600}
