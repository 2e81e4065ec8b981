"""What is built from a checkout: the sources, the wheel with the library, and the wheel without a compiler."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
NO_COMPILER = {"CXX": "/nonexistent/c++", "CC": "/nonexistent/cc"}


def python(*arguments, cwd, **environment):
    """A Python that needs no library unless told so."""
    inherited = {name: value for name, value in os.environ.items() if name != "DEEPLIFT_FAST_REQUIRE_CPP"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=inherited | environment, capture_output=True, text=True, check=False
    )


def copied(folder):
    """A copy of what is built, without a library built before."""
    for name in COPIED:
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "deeplift_fast", folder / "deeplift_fast", ignore=ignored)
    return folder


def files():
    """The package's Python files and data, by their paths in a wheel."""
    package = ROOT / "deeplift_fast"
    templates = package / "report/templates"
    found = [*package.rglob("*.py"), *package.rglob("*.csv"), *templates.iterdir(), package / "py.typed"]
    return {path.relative_to(ROOT).as_posix() for path in found}


def only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the sources' archive, and the wheel with the library that was built from it."""
    checkout = copied(tmp_path_factory.mktemp("checkout"))
    done = python("-m", "build", "--no-isolation", cwd=checkout, DEEPLIFT_FAST_REQUIRE_CPP="1")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return checkout / "dist"


@pytest.fixture(scope="module")
def built_without_a_compiler(tmp_path_factory):
    """The folder with the wheel, and what the build said."""
    checkout = copied(tmp_path_factory.mktemp("checkout"))
    done = python("-m", "build", "--no-isolation", "--wheel", cwd=checkout, **NO_COMPILER)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return checkout / "dist", done.stdout + done.stderr


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def used(wheel, folder):
    """The backends of a Python that has the unpacked wheel alone, and no PyHealth; and what it warned of."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    code = """
import sys, warnings
sys.modules["pyhealth"] = None
sys.meta_path = [finder for finder in sys.meta_path if not finder.__module__.startswith("__editable__")]
import torch, deeplift_fast
warnings.simplefilter("always")
from deeplift_fast import ops
from deeplift_fast.demo.codes import DIAGNOSES, LAB_ITEMS, PROCEDURES
assert DIAGNOSES and LAB_ITEMS and PROCEDURES
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
found = deeplift_fast.attribute(model, torch.ones(2, 3).double(), target=1, rules="complete")
print(deeplift_fast.__file__)
print(ops.backend_for("recurrent", "cpu"), ops.backend_for("secant", "cuda"))
print(float(found.convergence_delta.abs().max()))
"""
    done = python("-P", "-c", code, cwd=folder, PYTHONPATH=str(folder / "unpacked"))
    assert done.returncode == 0, done.stderr
    file, backends, delta = done.stdout.splitlines()
    assert Path(file).is_relative_to(folder / "unpacked")
    assert float(delta) < 1e-12
    return backends, done.stderr


@pytest.mark.slow
def test_the_sources_hold_all_that_is_built(built):
    with tarfile.open(only(built, "*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    kernels = {f"csrc/{path.name}" for path in (ROOT / "csrc").iterdir()}
    assert any(name.endswith(".h") for name in kernels)
    assert files() | kernels | {*COPIED} <= names
    assert not [name for name in names if name.startswith("tests/")]


@pytest.mark.slow
def test_the_wheel_holds_the_package_the_library_and_the_triton_kernels(built):
    wheel = only(built, "*.whl")
    assert re.search(r"-cp312-abi3-\w+\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files() | {"deeplift_fast/_C.abi3.so"}
    assert {"deeplift_fast/ops/triton/secant.py", "deeplift_fast/support/codes.csv"} <= names


@pytest.mark.slow
def test_the_library_names_its_sources_and_no_folder_of_the_build(built):
    with zipfile.ZipFile(only(built, "*.whl")) as archive:
        texts = archive.read("deeplift_fast/_C.abi3.so").split(b"\0")
    names = {text.decode() for text in texts if re.fullmatch(rb"[\x20-\x7e]*/[\x20-\x7e]*\.(cpp|h)", text)}
    assert {"csrc/secant.cpp", "torch/csrc/stable/library.h"} <= names
    assert not [name for name in names if not name.startswith(("csrc/", "torch/"))]


@pytest.mark.slow
def test_the_wheel_names_what_it_needs(built):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = metadata(only(built, "*.whl"))
    assert set(found.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    needed = [line for line in found.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(needed) == sorted(project["dependencies"])
    assert found["Requires-Python"] == project["requires-python"]


@pytest.mark.slow
def test_the_wheel_alone_runs(built, tmp_path):
    backends, said = used(only(built, "*.whl"), tmp_path)
    assert backends == "C++ Triton"
    assert "plain torch" not in said


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_for_every_platform_and_says_so(built_without_a_compiler):
    folder, said = built_without_a_compiler
    assert re.search("warning: the C.. kernels .*plain torch", said)
    wheel = only(folder, "*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files()


@pytest.mark.slow
def test_the_wheel_without_the_library_alone_runs_and_says_so(built_without_a_compiler, tmp_path):
    backends, said = used(only(built_without_a_compiler[0], "*.whl"), tmp_path)
    assert backends == "naive Triton"
    assert re.search("BackendWarning: .*plain torch on the CPU.*C.. library is missing", said)


def test_without_a_compiler_the_build_fails_where_the_library_is_required(tmp_path):
    done = python("setup.py", "build_ext", cwd=copied(tmp_path), DEEPLIFT_FAST_REQUIRE_CPP="1", **NO_COMPILER)
    assert done.returncode != 0
    assert "/nonexistent/c++" in done.stdout + done.stderr
