"""The command: what it does without a GPU, and how it keeps results."""

import json
import os
import re
import subprocess
import sys

import gpu
import gpu_machine
import gpu_races
import gpu_steps
import pytest
import torch
from gpu_budget import Budget
from gpu_cases import CASES
from gpu_sections import PARTS, Part, Run
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
# The command, with the CPU in place of a GPU.
ON_THE_CPU = """
import functools
import gpu
import gpu_ops
import gpu_warm_up
import torch

gpu.gpu = lambda: torch.device("cpu")
torch.cuda.get_device_name = lambda device: "none"
gpu_warm_up.PROCESSES = 1
gpu_ops.speed = functools.partial(gpu_ops.speed, rounds=1, large=False)
sys.exit(gpu.main())
"""


@pytest.fixture
def bare(tmp_path):
    """Runs a script in a process that has no PyHealth."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    options = {"cwd": tmp_path, "env": environment, "check": False, "capture_output": True, "text": True}

    def run(*arguments):
        return subprocess.run([sys.executable, *map(str, arguments)], **options)

    return run


@pytest.mark.slow
def test_without_pyhealth_it_says_that_there_is_no_gpu(bare):
    assert "No module named 'pyhealth'" in bare("-c", "import pyhealth").stderr
    done = bare(gpu.ROOT / "benchmarks/gpu.py", "--only", "numbers", "speed", "-k", "no_test_has_this_name")
    assert done.stdout.startswith(gpu.NO_GPU), done.stderr
    assert "Traceback" not in done.stderr


def test_without_pyhealth_ops_are_measured_and_models_are_not(bare, tmp_path):
    script, found, folder = tmp_path / "on_the_cpu.py", tmp_path / "found.json", gpu.ROOT / "benchmarks"
    script.write_text(f"import sys\n\nsys.path.insert(0, {str(folder)!r})\n{ON_THE_CPU}")
    sections = ("numbers", "graphs", "speed", "models")
    done = bare(script, "--only", *sections, "-k", "convergence, complete", "--out", found)
    assert done.returncode == 0, done.stderr
    kept = json.loads(found.read_text())
    assert all(list(kept[section]) == ["convergence, complete"] for section in ("numbers", "graphs", "speed"))
    first = kept["compiles"]["first calls"]
    assert (first["processes"], first["calls"], first["failed"]) == (1, 3, [])
    missing = {"reason": "No module named 'pyhealth'"}
    parts = ("graphs: graphs_of_models", "models: models", "models: models_compiled")
    assert kept["not run"] == dict.fromkeys(parts, missing)
    assert kept["models"] == {}
    assert "models: models_compiled: No module named 'pyhealth'" in done.stdout


def test_the_page_answers_imports_of_packages_that_are_not_installed(tmp_path):
    page = (gpu.ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    _, _, after = page.partition("sitecustomize.py <<'END'\n")
    (tmp_path / "sitecustomize.py").write_text(after.partition("\nEND\n")[0])
    (tmp_path / "einops.py").write_text("installed = True")
    code = """
import rdkit.Chem.Draw, einops
from PIL import Image

class Dataset(Image.Image): pass

assert einops.installed
print(rdkit.Chem.Draw.MolToImage.__name__, Dataset.__mro__[1].__name__)
import anything_else
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    bare = [sys.executable, "-S", "-c", f"import sitecustomize\n{code}"]
    done = subprocess.run(bare, env=environment, check=False, capture_output=True, text=True)
    assert done.stdout == "MolToImage Image\n"
    assert "No module named 'anything_else'" in done.stderr


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "gpu", lambda: None)


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


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


ROWS = {
    "compiles": {"processes": 1, "calls": 2, "seconds": 3.0, "failed": []},
    "numbers": {"backend": "Triton", "errors": {"float32": 0.5}, "right": True},
    "graphs": {"replay": True, "right": True},
    "speed": {"ms": 1.0, "MB": 1.0, "GB/s": 1.0, "share of a copy's speed": 1.0},
    "steps": {"us a step": 1.0},
    "models": {"batch_size": 1, "ms": {"rescale": 1.0, FORWARD: 1.0}, "first_ms": {"rescale": 1.0}, "warnings": []},
    "memory": {"peak_MB": {}},
    "races": {"summary": "0 hazards displayed (0 errors, 0 warnings)", "right": True},
}
NAMES = ("gelu, secant", "gelu, derivative", "secant, tanh")


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    """A GPU whose measurements are given; returns the rows by section, the clock and the file of results."""
    rows, clock = {section: dict(row) for section, row in ROWS.items()}, Clock()
    monkeypatch.setattr(gpu, "gpu", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(gpu, "Budget", lambda minutes: Budget(minutes, clock))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(gpu_machine, "described", lambda name: {"device": name, "torch": "2", "triton": "3"})
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "results")

    def part(section):
        def measure(name):
            found = rows[section]
            return found(name) if callable(found) else dict(found)

        def cases(run):
            yield from ((name, lambda name=name: measure(name)) for name in NAMES)

        return Part(section, cases, 10)

    monkeypatch.setattr(gpu, "PARTS", [part(section) for section in ROWS])
    return rows, clock, tmp_path / "results" / "gpu-nvidia-h100-80gb-hbm3.json"


def test_every_case_is_measured_and_kept(pretended, capsys):
    _, _, path = pretended
    assert gpu.main([]) == 0
    kept = json.loads(path.read_text())
    assert all(list(kept[section]) == [*NAMES] for section in gpu.SECTIONS)
    assert kept["machine"]["last run"]["device"] == "NVIDIA H100 80GB HBM3"
    said = capsys.readouterr().out
    assert str(path) in said
    assert said.startswith("NVIDIA H100 80GB HBM3, torch 2, Triton 3\n")


@pytest.mark.parametrize("section", gpu.CHECKED)
def test_a_run_replaces_only_what_it_measured(section, pretended):
    rows, _, path = pretended
    gpu.main([])
    rows[section]["right"] = False
    assert gpu.main(["-k", "gelu", "--only", section]) == 1
    kept = json.loads(path.read_text())
    assert all(list(kept[section]) == [*NAMES] for section in gpu.SECTIONS)
    assert {name for name, row in kept[section].items() if not row["right"]} == {"gelu, derivative", "gelu, secant"}


def test_no_case_begins_that_could_end_after_the_budget(pretended):
    rows, clock, path = pretended
    gpu.main([])

    def slow(name):
        clock.now += 51
        return ROWS["numbers"] | {"backend": "naive"}

    rows["numbers"] = slow
    assert gpu.main(["--minutes", "1.01", "--only", "numbers", "speed"]) == 0
    kept = json.loads(path.read_text())
    # The first case leaves 9.6 s, and each may take 10.
    assert [row["backend"] for row in kept["numbers"].values()] == ["naive", "Triton", "Triton"]
    left = [f"numbers: {name}" for name in NAMES[1:]] + [f"speed: {name}" for name in NAMES]
    assert kept["not run"] == {name: {"reason": "no time left"} for name in left}
    assert gpu.main(["--only", "speed"]) == 0
    assert json.loads(path.read_text())["not run"] == {}


def fails(name):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_case_that_fails_is_a_row_and_the_others_follow(pretended, monkeypatch, capsys):
    rows, _, path = pretended
    monkeypatch.setattr(gpu, "gpu", lambda: torch.device("cpu"))  # takes more work after the error
    rows["graphs"] = lambda name: fails(name) if "tanh" in name else ROWS["graphs"]
    assert gpu.main([]) == 1
    kept = json.loads(path.read_text())
    assert [row["right"] for row in kept["graphs"].values()] == [True, True, False]
    assert list(kept["races"]) == [*NAMES]
    shown = capsys.readouterr()
    assert "graphs, secant, tanh: RuntimeError: CUDA error: an illegal memory access" in shown.out
    assert shown.err == "wrong: graphs, secant, tanh\n"


def test_what_was_measured_before_the_device_failed_is_kept(pretended):
    rows, _, path = pretended
    rows["graphs"] = fails
    with pytest.raises(RuntimeError, match=f"no more work after graphs, {NAMES[0]}; run the rest with --only"):
        gpu.main([])
    kept = json.loads(path.read_text())
    assert list(kept["numbers"]) == [*NAMES]
    assert "illegal memory access" in kept["graphs"][NAMES[0]]["error"]
    assert kept["speed"] == {}


def test_the_parts_stand_in_the_order_of_their_worth():
    assert gpu.SECTIONS == ("compiles", "numbers", "graphs", "speed", "steps", "models", "memory", "races")


def test_every_case_of_every_part_has_a_name(monkeypatch):
    monkeypatch.setattr(gpu_races, "tool", lambda: "compute-sanitizer")
    run = Run(torch.device("cpu"), "", Budget(1))
    names = {part.cases.__name__: [name for name, _ in part.cases(run)] for part in PARTS}
    assert names["numbers"] == [*CASES]
    assert sorted(names["speed"]) == sorted(CASES)
    assert [name.partition(",")[0] for name in names["speed"][:6]] == ["secant"] * 6
    assert names["graphs"] == [*CASES, "pinned memory in another thread"]
    assert names["steps"] == [*gpu_steps.STEPS]
    assert names["graphs_of_models"] == ["StageNet", "Transformer, 1 layer", "MLP", "RNN (GRU)"]
    assert "StageNet, batch 4096" in names["models"]
    assert names["memory"] == names["models"]
    assert names["models_compiled"] == [f"{name}, torch.compile" for name in names["models"]]
    assert names["races"] == [*gpu_races.WATCHED]


def test_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    asked = []

    def run(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="570.1, 345, 1980, 2619, 700.00\n")

    monkeypatch.setattr(subprocess, "run", run)
    found = gpu_machine.described("H100")
    assert (found["device"], found["devices"], found["torch"]) == ("H100", 2, torch.__version__.partition("+")[0])
    assert (found["driver"], found["highest clock, MHz"], found["power limit, W"]) == ("570.1", "1980", "700.00")
    assert found["TF32 in matrix products"] is torch.backends.cuda.matmul.allow_tf32
    assert asked[0][1] == "--id=1"


def test_a_machine_without_nvidia_smi(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert gpu_machine.described("MI300")["driver"] is None
