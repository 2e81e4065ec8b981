import json
import logging
import re
import warnings

import pytest
import typer

from deeplift_fast.cli.outcome import told
from deeplift_fast.errors import FusionWarning


def warn_of_all():
    warnings.warn("slow", FusionWarning, stacklevel=1)
    warnings.warn("patient secret-0", UserWarning, stacklevel=1)
    logging.getLogger("elsewhere").warning("patient %s", "secret-1")


def told_lines(capsys, **options):
    usual = warnings.showwarning, logging.lastResort
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with told(extra="cohort", kept="nothing", **options):
            warn_of_all()
    assert (warnings.showwarning, logging.lastResort) == usual
    return capsys.readouterr().err.splitlines()


def test_our_warnings_are_one_line_and_those_of_others_tell_their_place_alone(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("elsewhere"), "propagate", False)  # to pytest's handlers
    ours, other, logged = told_lines(capsys, debug=False)
    assert ours == "deeplift-fast: FusionWarning: slow"
    assert re.fullmatch(r"deeplift-fast: UserWarning at .*test_outcome\.py:\d+; --debug shows the rest, .*", other)
    assert re.fullmatch(r"deeplift-fast: WARNING of elsewhere at .*test_outcome\.py:\d+; --debug .*", logged)
    assert "secret" not in other + logged
    _, other, logged = told_lines(capsys, debug=True)
    assert other.endswith(": patient secret-0")
    assert logged.endswith(": patient secret-1")
    assert told_lines(capsys, debug=False, style="errors") == []
    found = [json.loads(line) for line in told_lines(capsys, debug=False, style="json")]
    assert found[0] == {"event": "warning", "message": "FusionWarning: slow"}
    assert [line["event"] for line in found] == ["warning"] * 3


def test_errors_are_lines_of_json_where_the_others_are(capsys):
    with pytest.raises(typer.Exit) as error, told(False, "cohort", "all is kept", "json"):
        raise KeyboardInterrupt
    assert error.value.exit_code == 130
    assert json.loads(capsys.readouterr().err) == {
        "event": "error", "message": "interrupted; all is kept", "code": 130
    }  # fmt: skip


@pytest.mark.parametrize(("missing", "extra"), [("pyarrow", "cohort"), ("pyhealth", "cohort"), ("distributed", "dask")])
def test_a_missing_package_is_named_with_its_extra(capsys, missing, extra):
    with pytest.raises(typer.Exit) as error, told(False, "cohort", "nothing"):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
    assert error.value.exit_code == 1
    assert capsys.readouterr().err == f'deeplift-fast: this needs {missing}: pip install "deeplift_fast[{extra}]"\n'
