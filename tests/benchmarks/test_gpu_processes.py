"""The processes that compile and those that look for races."""

import subprocess
import sys

import gpu_first_calls
import gpu_races
import gpu_warm_up
import pytest
import torch
from gpu_cases import CASES, Case
from gpu_steps import STEPS

CPU = torch.device("cpu")


def test_every_case_is_called_in_all_its_dtypes_and_sizes():
    calls = gpu_first_calls.first_calls()
    assert len({*calls}) == len(calls)
    for name, case in CASES.items():
        of_case = [(dtype, large) for called, dtype, large in calls if called == name]
        assert of_case == [(dtype, False) for dtype in (*case.dtypes, *case.on_gpu)] + [(torch.float32, True)]
    assert {name for name, _, _ in calls} == {*CASES, *STEPS}


def test_shares_are_whole(monkeypatch):
    made = []
    monkeypatch.setattr(gpu_first_calls, "make", lambda calls, device: made.extend(calls) or [])
    for number in range(3):
        assert gpu_first_calls.main(["cpu", "-k", "gelu", "--share", str(number), "3"]) == 0
    assert sorted(made, key=str) == sorted(gpu_first_calls.first_calls("gelu"), key=str)


def test_calls_that_fail_are_named_and_the_others_made(monkeypatch, capsys):
    made = []

    def returned(self, call):
        made.append(self.name)
        if self.op == "gelu":
            raise RuntimeError("no kernel")

    monkeypatch.setattr(Case, "returned", returned)
    names = ("gelu, secant", "secant, tanh, rescale")
    assert gpu_first_calls.main(["cpu", "--names", *names]) == 1
    assert made == [*names]
    said = capsys.readouterr().out
    assert said == '{"call": "gelu, secant, torch.float32", "error": "RuntimeError: no kernel"}\n'


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Processes run the given code instead of making calls."""

    def use(code):
        (tmp_path / "script.py").write_text(f"import json, sys, time\nshare = sys.argv[-2]\n{code}")
        monkeypatch.setattr(gpu_warm_up, "SCRIPT", tmp_path / "script.py")

    return use


def test_processes_share_the_calls(script):
    script("print(json.dumps({'call': share, 'error': str(sys.argv[1:5])})); sys.exit(1)")
    row = gpu_warm_up.warm_up(torch.device("cuda", 0), "gelu", 60, processes=2)
    given = "['cuda:0', '-k', 'gelu', '--share']"
    assert row["failed"] == [{"call": "0", "error": given}, {"call": "1", "error": given}]
    assert (row["processes"], row["calls"]) == (2, len(gpu_first_calls.first_calls("gelu")))


def test_a_process_that_dies_is_named(script):
    script("sys.exit('illegal memory access' if share == '1' else 0)")
    row = gpu_warm_up.warm_up(CPU, "gelu", 60, processes=2)
    assert row["failed"] == [{"call": "process 1", "error": "exit code 1: illegal memory access"}]


def test_a_process_that_takes_too_long_is_ended(script):
    script("time.sleep(600)")
    row = gpu_warm_up.warm_up(CPU, "gelu", 0.2, processes=1)
    assert row["failed"] == [{"call": "process 0", "error": "ended: its time was over"}]


def test_no_calls_need_no_process():
    assert gpu_warm_up.warm_up(CPU, "no such op", 1)["processes"] == 0


def test_what_is_watched_for_races_exists():
    assert {name for names in gpu_races.WATCHED.values() for name in names} <= {*CASES}


@pytest.mark.parametrize(("code", "hazards"), [(0, 0), (gpu_races.FOUND, 2)])
def test_races(code, hazards, monkeypatch):
    summary = f"{hazards} hazards displayed ({hazards} errors, 0 warnings)"
    commands = []

    def run(command, **options):
        commands.append(command)
        said = f"========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: {summary}\n"
        return subprocess.CompletedProcess(command, code, stdout=said, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    row = gpu_races.checked("/bin/compute-sanitizer", "lockstep", torch.device("cuda", 0), 60)
    assert row == {"summary": summary, "right": not hazards}
    (command,) = commands
    assert command[:3] == ["/bin/compute-sanitizer", "--tool", "racecheck"]
    assert command[-5:] == [str(gpu_warm_up.SCRIPT), "cuda:0", "--names", "lockstep, secant", "lockstep_backward"]


def test_races_without_a_summary_are_no_result(monkeypatch):
    done = subprocess.CompletedProcess([], 1, stdout="Traceback", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: done)
    with pytest.raises(RuntimeError, match="ended with code 1: Traceback"):
        gpu_races.checked("sanitizer", "lockstep", CPU, 1)


def test_races_that_take_too_long_are_no_result():
    with pytest.raises(RuntimeError, match="more than 0 s"):
        gpu_races.checked(sys.executable, "lockstep", CPU, 0.0)


def test_the_tool_may_lie_in_cuda_home(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert gpu_races.tool() is None
    program = tmp_path / "bin" / "compute-sanitizer"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert gpu_races.tool() == str(program)
