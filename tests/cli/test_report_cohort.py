"""`deeplift-fast report --cohort`."""

import cohort_folders as cohorts
import page_checks
import pytest

from deeplift_fast.cli import main


@pytest.fixture
def out(tmp_path):
    return cohorts.write(tmp_path / "out", *cohorts.draw())


def run(*arguments):
    try:
        return main(["report", *map(str, arguments)])
    except SystemExit as error:
        return error.code


def test_a_cohorts_page_and_those_of_its_highest_patients(out, tmp_path, capsys):
    path = tmp_path / "page.html"
    assert run(out, "--cohort", "--out", path, "--patients", "top:2") == 0
    folder = tmp_path / "page-patients"
    assert capsys.readouterr().out == f"{path}: {path.stat().st_size:,} bytes\n{folder}: 2 patients' pages\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "60 samples of" in page_checks.check(path.read_text()).shown
    before = {each.name: each.stat().st_mtime_ns for each in folder.iterdir()}
    path.with_name("page-patients").joinpath("sample-59.html").unlink(missing_ok=True)
    assert run(out, "--cohort", "--out", path, "--patients", "top:2") == 2
    assert "exists; give another path, or replace it with --force" in capsys.readouterr().err
    assert {each.name: each.stat().st_mtime_ns for each in folder.iterdir()}.items() <= before.items()
    assert run(out, "--cohort", "--out", path, "--patients", "top:2", "--force", "--pseudonymous") == 0


def test_groups(out, tmp_path):
    (tmp_path / "w.csv").write_text("person,ward\n" + "".join(f"patient-{n},{'AB'[n % 2]}\n" for n in range(25)))
    path = tmp_path / "page.html"
    assert run(out, "--cohort", "--out", path, "--by", f"{tmp_path}/w.csv:ward", "--key", "person") == 0
    assert "by ward" in page_checks.check(path.read_text()).shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cohort", "--sample", 0], "--cohort"),
        (["--cohort", "--recipe", "a.py:b"], "--recipe is for"),
        (["--sample", 0, "--patients", "top:3"], "are for --cohort"),
        (["--cohort", "--patients", "50"], "top:50"),
        (["--cohort", "--patients", "top:0"], "top:50"),
        (["--cohort", "--patients", "top:2000"], "from 1 to 1000"),
    ],
)
def test_wrong_arguments_are_said(out, tmp_path, capsys, arguments, said):
    assert run(out, *arguments, "--out", tmp_path / "page.html") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_summary_keeps_its_table(out):
    assert main(["summary", str(out)]) == 0
    assert (out / "summary.parquet").exists()
