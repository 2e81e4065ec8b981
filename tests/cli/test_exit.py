import contextlib
import json
import logging
import os
import re
import signal
import threading
import warnings

import pytest
import typer

from deeplift_fast.cli.exit import reported
from deeplift_fast.errors import FusionWarning


def warn_of_all():
    warnings.warn("slow", FusionWarning, stacklevel=1)
    warnings.warn("patient secret-0", UserWarning, stacklevel=1)
    logging.getLogger("elsewhere").warning("patient %s", "secret-1")


def event(kind, **fields):
    return {"event": kind, "time": "2026-01-31T12:00:00.000Z", "level": kind, "run": "1f", **fields}


def told_lines(capsys, **options):
    usual = warnings.showwarning, logging.lastResort
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with reported(extra="cohort", kept="nothing", **options):
            warn_of_all()
    assert (warnings.showwarning, logging.lastResort) == usual
    return capsys.readouterr().err.splitlines()


def test_our_warnings_are_one_line_and_those_of_others_tell_their_place_alone(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("elsewhere"), "propagate", False)  # to pytest's handlers
    ours, other, logged = told_lines(capsys, debug=False)
    assert ours == "deeplift-fast: FusionWarning: slow"
    assert re.fullmatch(r"deeplift-fast: UserWarning at .*test_exit\.py:\d+; --debug shows the rest, .*", other)
    assert re.fullmatch(r"deeplift-fast: WARNING of elsewhere at .*test_exit\.py:\d+; --debug .*", logged)
    assert "secret" not in other + logged
    _, other, logged = told_lines(capsys, debug=True)
    assert other.endswith(": patient secret-0")
    assert logged.endswith(": patient secret-1")
    assert told_lines(capsys, debug=False, style="errors") == []
    found = [json.loads(line) for line in told_lines(capsys, debug=False, style="json", run="1f")]
    assert found[0] == event("warning", message="FusionWarning: slow") | {"kind": "FusionWarning"}
    assert [line["kind"] for line in found[1:]] == ["UserWarning", "WARNING of elsewhere"]
    assert [(line["event"], line["level"]) for line in found] == [("warning", "warning")] * 3


def test_errors_are_lines_of_json_where_the_others_are(capsys):
    with pytest.raises(typer.Exit) as error, reported(False, "cohort", "all is kept", "json", "1f"):
        raise KeyboardInterrupt
    assert error.value.exit_code == 130
    assert json.loads(capsys.readouterr().err) == event("error", message="interrupted; all is kept", code=130)


def test_a_traceback_is_a_field_of_the_errors_line(capsys):
    with pytest.raises(typer.Exit), reported(True, "cohort", "all is kept", "json", "1f"):
        raise RuntimeError("secret-0")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["traceback"].endswith("RuntimeError: secret-0\n")


def test_sigterm_ends_a_command_as_ctrl_c_does(capsys):
    with pytest.raises(typer.Exit) as error, reported(False, "cohort", "finished parts are kept"):
        signal.raise_signal(signal.SIGTERM)
    assert error.value.exit_code == 143
    assert capsys.readouterr().err == "deeplift-fast: terminated; finished parts are kept\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def broken_by_sigterm():
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGTERM)  # a second one does not disturb what is put in order
        raise RuntimeError("DataLoader worker is killed by signal: Terminated") from None


def test_what_sigterm_breaks_is_told_as_sigterm(capsys):
    with pytest.raises(typer.Exit) as error, reported(False, "cohort", "all is kept", "json"):
        broken_by_sigterm()
    assert error.value.exit_code == 143
    assert json.loads(capsys.readouterr().err)["message"] == "terminated; all is kept"


@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda *_: None])
def test_another_answer_to_sigterm_stays(own):
    before = signal.signal(signal.SIGTERM, own)
    try:
        with reported(False, "cohort", "all is kept"):
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_a_forked_child_ends_by_sigterm_without_a_word(capfd):
    with reported(False, "cohort", "all is kept"):
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
    assert capfd.readouterr() == ("", "")


def test_commands_run_in_threads_too(capsys):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(told_in_a_thread()))
    thread.start()
    thread.join()
    assert ended == [2]
    assert capsys.readouterr().err == "deeplift-fast: nowhere: No such file or directory\n"


def told_in_a_thread():
    try:
        with reported(False, "cohort", "nothing"):
            raise FileNotFoundError(2, "No such file or directory", "nowhere")
    except typer.Exit as error:
        return error.exit_code


def test_messages_hold_no_control_characters(capsys):
    with pytest.raises(typer.Exit), reported(False, "cohort", "nothing"):
        raise FileNotFoundError(2, "No such file", "a\x1b[2J\u202e\rb")
    assert capsys.readouterr().err == "deeplift-fast: a\\x1b[2J\\u202e\\rb: No such file\n"


@pytest.mark.parametrize(("missing", "extra"), [("pyarrow", "cohort"), ("pyhealth", "cohort"), ("distributed", "dask")])
def test_a_missing_package_is_named_with_its_extra(capsys, missing, extra):
    with pytest.raises(typer.Exit) as error, reported(False, "cohort", "nothing"):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
    assert error.value.exit_code == 1
    assert capsys.readouterr().err == f'deeplift-fast: this needs {missing}: pip install "deeplift_fast[{extra}]"\n'


def test_a_reader_that_left_ends_a_command_without_a_word(capfd):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as left, contextlib.redirect_stdout(left):
        with pytest.raises(typer.Exit) as error, reported(False, "cohort", "all is kept"):
            print("some words")
        assert error.value.exit_code == 141
        print("what follows is dropped")
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # so that the file can be closed
    assert capfd.readouterr().err == ""


def test_another_broken_pipe_is_an_error(capsys):
    with pytest.raises(typer.Exit) as error, reported(False, "cohort", "all is kept"):
        raise BrokenPipeError(32, "Broken pipe")
    assert error.value.exit_code == 2
    assert "Broken pipe" in capsys.readouterr().err
