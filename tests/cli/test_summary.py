import json

import cohort_folders as cohorts
import pandas as pd
import pytest

from deeplift_fast import cli


@pytest.fixture
def folder(tmp_path):
    return cohorts.write(tmp_path / "out", *cohorts.draw())


def test_tables_and_files(folder, tmp_path, capsys):
    (tmp_path / "wards.csv").write_text("hadm_id,ward\nvisit-1,north\n")
    files = {name: tmp_path / f"t.{name}" for name in ("csv", "parquet", "json")}
    arguments = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    by = f"{tmp_path}/wards.csv:ward"
    assert cli.main(["summary", str(folder), "--by", by, "--top", "2", "--sort", "count", *arguments]) == 0
    text = capsys.readouterr().out
    assert "Codes: the first 2 by count" in text
    assert "ward = (not in the file)" in text
    assert len(pd.read_csv(files["csv"])) == len(pd.read_parquet(files["parquet"])) > 10
    assert {"north", "all"} < {row["group"] for row in json.loads(files["json"].read_text())["table"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds no manifest.json"),
        (["{out}", "--by", "wards.csv"], "--by is 'wards.csv'; accepted: FILE.csv:COLUMN"),
        (["{out}", "--mimic-root", "nowhere"], "--mimic-root nowhere holds none of"),
        (["{out}", "--csv", "nowhere/t.csv"], "nowhere/t.csv cannot be written"),
    ],
)
def test_what_is_wrong_is_said(folder, monkeypatch, tmp_path, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["summary", *(part.format(out=folder) for part in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_bad_usage():
    for arguments in (["summary"], ["summary", "x", "--sort", "size"], ["summary", "x", "--top", "0"]):
        with pytest.raises(SystemExit) as error:
            cli.main(arguments)
        assert error.value.code == 2
