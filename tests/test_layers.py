"""The package's floors: a module imports what stands on its own floor or below, and none imports itself in a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

import deeplift_fast

ROOT = Path(deeplift_fast.__file__).parent
FLOORS = [
    {"errors", "support"},
    {"ops"},
    {"rules"},
    {"core"},
    {"pyhealth"},
    {"baselines", "captum", "tasks"},
    {"cohort"},
    {"report"},
    {"plot"},
    {"demo"},
    {"cli"},
]
ANY_MODULE = {"errors", "support", "ops", "rules", "core", "captum"}  # without PyHealth
OWN = {"deeplift_fast"}  # lazy names and the version, for whoever asks


def name_of(path):
    parts = ("deeplift_fast", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_for_types_alone(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree):
    """Dotted names that a module imports, those within its functions too."""
    found = []
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif not is_for_types_alone(node):
            left += ast.iter_child_nodes(node)
    return found


FILES = {name_of(path): path for path in ROOT.rglob("*.py")}
FOREIGN = {name: imports(ast.parse(path.read_text())) for name, path in FILES.items()}


def module_of(dotted):
    """The module of this package that an imported name is or stands in; `None` for another package's."""
    while dotted and dotted not in FILES:
        dotted = dotted.rpartition(".")[0]
    return dotted or None


GRAPH = {name: {found for each in names if (found := module_of(each))} - OWN for name, names in FOREIGN.items()}


def floor_of(module):
    head = module.split(".")[1]
    return next(number for number, heads in enumerate(FLOORS) if head in heads)


INSIDE = sorted(set(GRAPH) - OWN)


def test_every_module_has_a_floor():
    for module in INSIDE:
        floor_of(module)


def test_no_module_imports_itself_in_a_circle():
    tuple(graphlib.TopologicalSorter(GRAPH).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", INSIDE)
def test_imports_go_down(module):
    above = {each for each in GRAPH[module] if floor_of(each) > floor_of(module)}
    assert not above, f"{module} imports {above}, which stand above it"


@pytest.mark.parametrize("module", [each for each in INSIDE if each.split(".")[1] in ANY_MODULE])
def test_what_serves_any_module_does_not_know_pyhealth(module):
    assert not [name for name in FOREIGN[module] if name.partition(".")[0] == "pyhealth"]
