"""The script and the snippets of docs/how-to/nightly.md run as they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from test_docs_run import RECIPE, blocks

from deeplift_fast.cli import main

PAGE = "docs/how-to/nightly.md"
STUB = """#!/bin/sh
echo "$*" >> calls
[ "$1" = run ] || exit 0
read -r code < codes
sed -i 1d codes
echo '{"event": "start"}' >&2
exit "$code"
"""
"""Notes how it is called; `run` ends with the next line of the file `codes`."""


@pytest.fixture
def srv(tmp_path, monkeypatch):
    """A folder in place of /srv/audit, with the script and a stand-in for deeplift-fast."""
    (script,) = blocks(PAGE, "sh")
    (tmp_path / "nightly.sh").write_text(script.replace("/srv/audit", str(tmp_path)))
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/deeplift-fast").write_text(STUB)
    (tmp_path / "venv/bin/deeplift-fast").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("recipe", None)


def night(srv, *codes):
    """Runs the script; `deeplift-fast run` ends with these codes, one after another."""
    (srv / "codes").write_text("".join(f"{code}\n" for code in codes))
    # It begins elsewhere, as under cron.
    return subprocess.run(["sh", str(srv / "nightly.sh")], cwd="/", capture_output=True, text=True, check=False)


def called(srv):
    return [line.split() for line in (srv / "calls").read_text().splitlines()]


@pytest.mark.parametrize(
    ("codes", "code", "runs"),
    [((0,), 0, 1), ((137, 3), 3, 2), ((2,), 2, 1), ((143,), 143, 1), ((1, 1, 1), 1, 3)],
)
def test_the_script_goes_on_where_that_helps_and_keeps_the_code(srv, codes, code, runs):
    old = srv / "night=2020-01-01"
    old.mkdir()
    os.utime(old, (0, 0))
    done = night(srv, *codes)
    assert done.returncode == code, done.stderr
    finished = code in (0, 3)
    assert [words[0] for words in called(srv)] == ["run"] * runs + ["summary", "report"] * finished
    assert (srv / "latest").is_symlink() == finished
    assert old.exists() != finished
    assert done.stderr == ("" if finished else '{"event": "start"}\n')
    (log,) = srv.glob("night=2*.log")
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock of util-linux is missing")
def test_two_nights_do_not_overlap(srv):
    with subprocess.Popen(["flock", "nightly.lock", "sh", "-c", "echo; read -r _"], stdin=-1, stdout=-1) as first:
        first.stdout.readline()
        assert night(srv, 0).returncode == 2
        first.stdin.close()
    assert not (srv / "calls").exists()


@pytest.mark.filterwarnings("ignore")
def test_its_commands_and_the_readers_of_its_files(srv, capsys):
    assert night(srv, 0).returncode == 0
    (srv / "recipe.py").write_text(RECIPE)
    (name,) = {words[words.index("--out") + 1] for words in called(srv) if words[0] == "run"}
    for words in called(srv):
        if words[0] == "run":
            place = words.index("--workers")  # processes of their own would import PyHealth again
            assert int(words[place + 1]) > 0
            del words[place : place + 2]
        assert main(words) == 0
        if words[0] == "run":
            (code,) = blocks(PAGE, "python")
            Path(f"{name}.log").write_text(f"a line of the shell\n{capsys.readouterr().err}")
    capsys.readouterr()
    exec(code.replace("night=2026-01-31", name), {})
    assert re.match(r"end at 2026-01-31T12:00:00\.000Z: 12 of 12 samples\n", capsys.readouterr().out)
    (query,) = blocks(PAGE, "sql")
    ((date, samples, risk),) = duckdb.sql(query).fetchall()
    assert (f"night={date}", samples) == (name, 12)
    assert 0 < risk < 1
    assert Path("latest/manifest.json").exists()
