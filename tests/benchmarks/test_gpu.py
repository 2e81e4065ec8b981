"""The command: what it does without a GPU, and how it keeps results."""

import json
import os
import re
import subprocess
import sys

import gpu
import gpu_models
import gpu_ops
import model_cases
import pytest
import torch
from model_results import FORWARD

PASSING = """
import os
import pytest

@pytest.mark.triton
def test_interpreted():
    assert os.environ["TRITON_INTERPRET"] == "1"

def test_compiled():
    assert os.environ["TRITON_INTERPRET"] != "1"
"""


# A `sitecustomize` module: none of these packages can be imported, as on a machine that has only torch and Triton.
BLOCKER = """
import sys

MISSING = (
    "pyhealth", "pandas", "pyarrow", "psutil", "scipy", "sklearn", "tqdm", "typer", "rich", "distributed",
)


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker())
"""
# The command, on a GPU that the CPU stands in for.
ON_THE_CPU = """
import gpu
import gpu_ops
import torch

torch.cuda.is_available = lambda: True
torch.cuda.current_device = lambda: 0
torch.cuda.get_device_name = lambda device: "none"
numbers, speed, cpu = gpu_ops.numbers, gpu_ops.speed, torch.device("cpu")
gpu_ops.numbers = lambda case, device: numbers(case, cpu)
gpu_ops.speed = lambda case, device: speed(case, cpu, rounds=1, large=False)
sys.exit(gpu.main())
"""


@pytest.fixture
def bare(tmp_path):
    """Runs a script in a process that has no PyHealth and, but for the path, no deeplift_fast."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join(map(str, (tmp_path, gpu.ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    options = {"cwd": gpu.ROOT, "env": environment, "check": False, "capture_output": True, "text": True}

    def run(*arguments):
        return subprocess.run([sys.executable, *map(str, arguments)], **options)

    return run


@pytest.mark.slow
def test_without_pyhealth_it_says_that_there_is_no_gpu(bare):
    assert "No module named 'pyhealth'" in bare("-c", "import pyhealth").stderr
    done = bare("benchmarks/gpu.py", "--only", "numbers", "speed", "-k", "no_test_has_this_name")
    assert done.stdout.startswith(gpu.NO_GPU), done.stderr
    assert "Traceback" not in done.stderr


def test_without_pyhealth_ops_are_measured(bare, tmp_path):
    script, found, folder = tmp_path / "on_the_cpu.py", tmp_path / "found.json", gpu.ROOT / "benchmarks"
    script.write_text(f"import sys\n\nsys.path.insert(0, {str(folder)!r})\n{ON_THE_CPU}")
    done = bare(script, "--only", "numbers", "speed", "-k", "convergence, complete", "--out", found)
    assert done.returncode == 0, done.stderr
    kept = json.loads(found.read_text())
    assert list(kept["numbers"]) == list(kept["speed"]) == ["convergence, complete"]
    assert kept["models"] == {}
    assert "convergence, complete" in done.stdout


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_it_says_so_and_runs_what_can_be_checked(no_gpu, monkeypatch, tmp_path, capfd):
    (tmp_path / "test_kernels.py").write_text(PASSING)
    monkeypatch.setattr(gpu, "KERNELS", str(tmp_path))
    assert gpu.main([]) == 0
    said = capfd.readouterr().out
    assert said.startswith(gpu.NO_GPU)
    assert len(re.findall("1 passed, 1 deselected", said)) == 2


@pytest.mark.parametrize(("codes", "code"), [((1, 0), 1), ((0, 1), 1), ((0, 0), 0), ((5, 0), 1)])
def test_without_a_gpu_it_fails_if_a_check_does(codes, code, no_gpu, monkeypatch):
    left = [*codes]
    commands = []

    def ended(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, left.pop(0))

    monkeypatch.setattr(subprocess, "run", ended)
    assert gpu.main(["-k", "secant"]) == code
    assert left == []
    assert all(command[-2:] == ["-k", "secant"] for command in commands)


def test_the_kernels_tests_are_where_they_are_looked_for():
    assert [*(gpu.ROOT / gpu.KERNELS).glob("test_*.py")]


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    """A GPU whose measurements are given; returns the command."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(model_cases, "make_dataset", lambda samples, data: data)
    rows = {"right": True}
    monkeypatch.setattr(
        gpu_ops, "numbers", lambda case, device: {"backend": "Triton", "errors": {"float32": 0.5}, **rows}
    )
    speed = {"ms": 1.0, "MB": 1.0, "GB/s": 1.0, "share of a copy's speed": 1.0}
    monkeypatch.setattr(gpu_ops, "speed", lambda case, device: speed)
    times = {"rescale": 1.0, FORWARD: 1.0}
    model = {"batch_size": 1, "ms": times, "first_ms": times, "peak_MB": {}, "distance": {"rescale": 0}, "warnings": []}
    monkeypatch.setattr(gpu_models, "measured", lambda case, dataset, device: model)
    return rows, tmp_path / "results" / "gpu-nvidia-h100-80gb-hbm3.json"


def test_every_case_is_measured_and_kept(pretended, capsys):
    _, path = pretended
    assert gpu.main([]) == 0
    kept = json.loads(path.read_text())
    assert list(kept["numbers"]) == list(kept["speed"]) == list(gpu.CASES)
    assert list(kept["models"]) == list(model_cases.CASES)
    assert kept["machine"]["last run"]["device"] == "NVIDIA H100 80GB HBM3"
    assert str(path) in capsys.readouterr().out


def test_a_run_replaces_only_what_it_measured(pretended):
    rows, path = pretended
    gpu.main([])
    rows["right"] = False
    assert gpu.main(["-k", "gelu", "--only", "numbers"]) == 1
    kept = json.loads(path.read_text())
    assert list(kept["numbers"]) == list(gpu.CASES)
    assert {name for name, row in kept["numbers"].items() if not row["right"]} == {"gelu, derivative", "gelu, secant"}
    assert list(kept["models"]) == list(model_cases.CASES)


def test_what_was_measured_before_the_process_ended_is_kept(pretended, monkeypatch):
    def dies(case, dataset, device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    _, path = pretended
    monkeypatch.setattr(gpu_models, "measured", dies)
    with pytest.raises(RuntimeError):
        gpu.main([])
    assert list(json.loads(path.read_text())["numbers"]) == list(gpu.CASES)
