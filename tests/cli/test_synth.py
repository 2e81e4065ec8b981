import stat

import pytest

from deeplift_fast import cli
from deeplift_fast.demo import synth
from deeplift_fast.demo.hospital import write_hospital


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_hospital_is_that_of_the_demo(tmp_path, capsys):
    assert cli.main(["synth", str(tmp_path / "a" / "out"), "--patients", "7", "--seed", "2"]) == 0
    write_hospital(tmp_path / "b", 7, 2)
    assert contents(tmp_path / "a" / "out") == contents(tmp_path / "b")
    assert "7 patients" in capsys.readouterr().out
    assert stat.S_IMODE((tmp_path / "a" / "out").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_only_force_replaces_and_only_a_hospital(tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["synth", str(out), "--patients", "7"]) == 0
    assert cli.main(["synth", str(out), "--patients", "8"]) == 2
    assert "exists already" in capsys.readouterr().err
    before = contents(out)
    assert cli.main(["synth", str(out), "--patients", "8", "--force"]) == 0
    assert contents(out) != before
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    assert cli.main(["synth", str(tmp_path / "home"), "--force"]) == 2
    assert "is not a hospital, so --force does not replace it" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--patients", "0"), ("--seed", "-1")])
def test_what_is_out_of_range(tmp_path, capsys, option, value):
    assert cli.main(["synth", str(tmp_path / "out"), option, value]) == 2
    assert f"{option} is {value}; accepted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(synth, "write_hospital", stop)
    assert cli.main(["synth", str(tmp_path / "out")]) == 130
    assert "interrupted; nothing was kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
