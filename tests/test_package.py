"""The package as a whole: what an import costs, what is missing and how it says so, the command line."""

import collections
import dataclasses
import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deeplift_fast
from deeplift_fast import cli, ops
from deeplift_fast.cli import doctor

ROOT = Path(__file__).parents[1]
MODULES = ("captum", "cohort", "baselines", "features", "report", "plot", "ops", "tasks")


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


def run(code):
    """What a fresh Python that runs `code` prints."""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def without_extras():
    """The report of a process where PyHealth, Triton and the C++ library cannot be imported."""
    return run(
        """
import sys, warnings
for name in ("pyhealth", "triton", "deeplift_fast._C"):
    sys.modules[name] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import deeplift_fast
    import torch
    from deeplift_fast import ops
    from deeplift_fast.cli import doctor
    x = torch.linspace(-3, 3, 8).reshape(2, 4)
    found = deeplift_fast.attribute(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Tanh()), x, target=1)
    y, y0, multiplier = ops.secant(x, x - 1, "tanh")
named = [str(w.message) for w in caught if w.category is ops.BackendWarning]
print("WARNED", len(named), named[0])
print("DELTA", found.convergence_delta.abs().max().item())
print("ERROR", (multiplier - (torch.tanh(x) - torch.tanh(x - 1))).abs().max().item())
print("GRADIENT", any(result.requires_grad for result in ops.secant(x.requires_grad_(), x - 1, "relu")))
print("CPU", ops.backend_for("secant", "cpu"), "CUDA", ops.backend_for("secant", "cuda"))
print("LISTED", "DeepLift" in dir(deeplift_fast), hasattr(deeplift_fast, "nothing_of_that_name"))
try:
    deeplift_fast.DeepLift
except ImportError as error:
    print("IMPORT", error)
print(doctor.describe())
"""
    )


def test_without_the_library_one_warning_says_so(without_extras):
    assert re.search(r"WARNED 1 .*plain torch.*C\+\+20 compiler", without_extras)


def test_without_the_library_plain_torch_computes(without_extras):
    assert "CPU naive CUDA naive" in without_extras
    assert float(re.search(r"DELTA (\S+)", without_extras)[1]) < 1e-6
    assert float(re.search(r"ERROR (\S+)", without_extras)[1]) < 1e-6
    assert "GRADIENT False" in without_extras


def test_without_the_library_doctor_says_why(without_extras):
    assert re.search(r"C\+\+ +\(cpu\) missing: .*compiler.*reinstall", without_extras)
    assert re.search(r"Triton +\(cuda\) missing: .*not installed", without_extras)
    assert re.search(r"secant +naive +naive +naive", without_extras)


def test_without_pyhealth_deeplift_tells_what_to_install(without_extras):
    assert 'pip install "deeplift_fast[pyhealth]"' in re.search("IMPORT (.*)", without_extras)[1]
    assert "LISTED True False" in without_extras


def test_import_is_light():
    slow = ("torch", "pyhealth", "pandas", "triton", "torch._dynamo", "torch._inductor", "captum", "polars", "sklearn")
    code = f"import sys, deeplift_fast; print([name for name in {slow} if name in sys.modules])"
    assert run(code) == "[]"


def test_deeplift_is_found_on_first_use():
    pytest.importorskip("pyhealth")
    from deeplift_fast.pyhealth.interpreter import DeepLift

    assert deeplift_fast.DeepLift is DeepLift


def test_public_names():
    for name in set(deeplift_fast.__all__) - {"DeepLift"}:
        assert getattr(deeplift_fast, name).__doc__
    with pytest.raises(AttributeError, match=r"deeplift_fast.*no attribute 'Captum'"):
        _ = deeplift_fast.Captum
    assert set(deeplift_fast.__all__) <= set(dir(deeplift_fast))


def undocumented(thing, name):
    """The names of what a public function's or class's docstring leaves out, as `name: section` or `name: argument`."""
    if inspect.isclass(thing):
        return undocumented_class(thing, name)
    sections = sections_of(thing)
    parameters = [each for each in inspect.signature(thing).parameters if each not in ("self", "cls")]
    missing = [each for each in parameters if not re.search(rf"^ +(.*, )?\**{each}(, .*)?:", sections["Args"], re.M)]
    if parameters and inspect.signature(thing).return_annotation not in (None, "None") and not sections["Returns"]:
        missing.append("Returns")
    if re.search(r"^ +raise ", inspect.getsource(thing), re.M) and not sections["Raises"]:
        missing.append("Raises")
    return [f"{name}: {each}" for each in missing if sections[""]] or ([] if sections[""] else [f"{name}: docstring"])


def undocumented_class(kind, name):
    sections = sections_of(kind)
    if dataclasses.is_dataclass(kind):
        needed = [("Attributes", field.name) for field in dataclasses.fields(kind)]
    else:
        own = vars(kind).get("__init__")
        needed = [("Args", each) for each in inspect.signature(own).parameters if each != "self"] if own else []
    missing = [f"{name}: {each}" for section, each in needed if not re.search(rf"^ +{each}:", sections[section], re.M)]
    if not sections[""]:
        missing.append(f"{name}: docstring")
    if not hasattr(kind, "save_for_backward"):  # PyTorch calls the methods of an autograd function
        for method, value in vars(kind).items():
            if inspect.isfunction(value) and method[0] != "_" and not hasattr(value, "__override__"):
                missing += undocumented(value, f"{name}.{method}")
    return missing


def sections_of(thing):
    """A docstring's sections by title, "" for what comes before them; empty texts for those that are not there."""
    found = collections.defaultdict(str)
    title = ""
    for line in (inspect.cleandoc(thing.__doc__ or "")).splitlines():
        heading = re.fullmatch(r"([A-Z]\w+):", line)
        title = heading[1] if heading else title
        found[title] += "" if heading else f"{line}\n"
    return found


@pytest.mark.parametrize("module", ["", ".core.attribution", ".captum", ".rules", ".ops", ".baselines", ".tasks"])
def test_public_functions_and_classes_have_whole_docstrings(module):
    if module in ("", ".baselines", ".tasks"):
        pytest.importorskip("pyhealth")
    home = importlib.import_module(f"deeplift_fast{module}")
    own = [name for name, each in vars(home).items() if getattr(each, "__module__", None) == home.__name__]
    names = [name for name in getattr(home, "__all__", own) if name[0] != "_"]
    things = {name: getattr(home, name) for name in names}
    public = {name: each for name, each in things.items() if inspect.isfunction(each) or inspect.isclass(each)}
    assert public
    assert [each for name, thing in public.items() for each in undocumented(thing, name)] == []


@pytest.mark.slow
def test_modules_are_there_without_being_imported_first():
    pytest.importorskip("pyhealth")
    code = (
        f"names = {MODULES}"
        + """
import sys, deeplift_fast
listed = dir(deeplift_fast)
print("LIGHT", "torch" not in sys.modules)
print("LISTED", all(name in listed for name in (*names, "DeepLift", "attribute", "__version__")))
print("PRIVATE", [name for name in listed if name in ("Any", "version", "import_module") or name[0] == "_" != name[1]])
print("THERE", [getattr(deeplift_fast, name).__name__.rpartition(".")[2] for name in names])
print("CALLS", deeplift_fast.captum.DeepLift.__name__, deeplift_fast.cohort.attribute_cohort.__name__)
"""
    )
    assert run(code).splitlines() == [
        "LIGHT True",
        "LISTED True",
        "PRIVATE []",
        "THERE ['captum', 'cohort', 'baselines', 'features', 'report', 'plot', 'ops', 'tasks']",
        "CALLS DeepLift attribute_cohort",
    ]


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [
        ("pyarrow", "cohort", "cohort"),
        ("pandas", "report", "cohort"),
        ("pyhealth", "DeepLift", "pyhealth"),
        ("matplotlib", "plot", "plot"),
        ("pyhealth", "tasks", "pyhealth"),
    ],
)
def test_a_module_without_its_packages_tells_what_to_install(missing, name, extra):
    code = f"""
import sys
sys.modules[{missing!r}] = None
import deeplift_fast
try:
    deeplift_fast.{name}
except ImportError as error:
    print(error)
"""
    told = run(code)
    assert f"deeplift_fast.{name} needs another package" in told
    assert missing in told
    assert f'pip install "deeplift_fast[{extra}]"' in told


def test_version_is_that_of_the_distribution():
    assert deeplift_fast.__version__ == importlib.metadata.version("deeplift_fast")


def test_doctor_names_versions_backends_and_choices(capsys):
    assert cli.main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert report.strip() == doctor.describe()
    for package in ("deeplift_fast", "torch", "numpy"):
        assert re.search(rf"{package} +{re.escape(importlib.metadata.version(package))}", report)
    for backend in ops.backends():
        assert f"  {backend.name:<8} ({backend.device})" in report
    for op in ops.SCHEMAS:
        choices = [ops.backend_for(op, device) for device in ("cpu", "cuda", "elsewhere")]
        assert re.search(rf"{op} +" + " +".join(map(re.escape, choices)), report)
    assert re.search(r"Precision of float32 products in attributions\n  cpu   full \(ieee\)", report)


def test_doctor_tells_of_packages_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-package-of-this-name"))
    assert re.search("no-package-of-this-name +not installed", doctor.describe())


def test_command_line_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"deeplift_fast {deeplift_fast.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["doctor", "--nothing"]])
def test_command_line_refuses_bad_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert "Usage: deeplift-fast" in capsys.readouterr().err


def test_the_command_line_is_light():
    slow = ("torch", "pyhealth", "numpy", "pandas", "pyarrow", "dask")
    code = f"""
import contextlib, io, sys
from deeplift_fast import cli
with contextlib.redirect_stdout(io.StringIO()):
    assert cli.main(["run", "--help"]) == 0
print([name for name in {slow} if name in sys.modules])
"""
    assert run(code) == "[]"


def test_command_is_installed():
    command = Path(sys.executable).with_name("deeplift-fast")
    if not command.exists():
        pytest.skip("the package runs from a checkout that is not installed")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"deeplift_fast {deeplift_fast.__version__}\n")
