import sys

import pytest
from torch import nn

from deeplift_fast.cli.recipe import load_recipe
from deeplift_fast.errors import RecipeError

GOOD = """
from torch import nn
import beside
def build():
    return nn.Linear(1, 1), beside.DATASET
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory of its own, and modules as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)
    (tmp_path / "beside.py").write_text("DATASET = [1, 2]\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("beside", "recipe") or name.startswith("package_"):
            del sys.modules[name]


def write(folder, text):
    (folder / "recipe.py").write_text(text)


@pytest.mark.parametrize("given", ["recipe.py:build", "recipe:build", "./recipe.py:build"])
def test_a_recipe_is_called(folder, given):
    write(folder, GOOD)
    model, dataset, further = load_recipe(given)
    assert isinstance(model, nn.Linear)
    assert dataset == [1, 2]
    assert further == {}


def test_what_else_attribution_needs(folder):
    write(folder, "from torch import nn\ndef build(): return nn.Linear(1, 1), [], {'dimensions': {'labs': ['Sodium']}}")
    assert load_recipe("recipe:build")[2] == {"dimensions": {"labs": ["Sodium"]}}


def test_a_recipe_may_name_the_splits(folder):
    write(folder, "from torch import nn\ndef build(): return nn.Linear(1, 1), [], {'splits': {'train': [0, 2]}}")
    assert load_recipe("recipe:build")[2] == {"splits": {"train": [0, 2]}}


def test_a_file_elsewhere_imports_what_lies_beside_it(folder, monkeypatch):
    write(folder, GOOD)
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert load_recipe(f"{folder}/recipe.py:build")[1] == [1, 2]


def test_a_module_in_a_package(folder):
    (folder / "package_a").mkdir()
    (folder / "package_a" / "__init__.py").write_text("")
    (folder / "package_a" / "recipe.py").write_text(GOOD)
    assert load_recipe("package_a.recipe:build")[1] == [1, 2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("recipe.py", "RECIPE is 'recipe.py'; accepted: module:function or file.py:function"),
        ("recipe.py:", "accepted: module:function"),
        (":build", "accepted: module:function"),
        ("recipe.py:build()", "accepted: module:function"),
        ("nowhere.py:build", "nowhere.py is not a file"),
        ("package_nowhere:build", "there is no module 'package_nowhere' here"),
        ("package_nowhere.sub:build", "there is no module 'package_nowhere.sub' here"),
    ],
)
def test_a_recipe_that_is_not_there(folder, given, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(): pass", r"recipe.py has no function 'build'; it has other"),
        ("build = 3", "build is a int; accepted"),
        ("def build(path): pass", "build needs arguments.*'path'"),
        ("def build(): return 1", "returned a int; accepted: the pair"),
        ("def build(): return 1, 2, 3, 4", "returned a tuple of 4; accepted: the pair"),
        (
            "from torch import nn\ndef build(): return nn.Linear(1, 1), [], {'steps': 2}",
            "third item with 1 unknown key.s., such as 'steps'; accepted: none, or a dict with keys of baseline,",
        ),
        (
            "from torch import nn\ndef build(): return nn.Linear(1, 1), [], {'secret-7': 2, 'baseline': 'unk'}",
            r"third item with 1 unknown key\(s\); accepted: none, or a",
        ),
        (
            "from torch import nn\ndef build(): return nn.Linear(1, 1), [], [2]",
            "returned a list as third item; accepted",
        ),
        ("def build(): return 'secret-7', []", "returned a str for the model"),
        ("from torch import nn\ndef build(): return [], nn.Linear(1, 1)", r"returned \(dataset, model\)"),
        ("from torch import nn\ndef build(): return nn.Linear(1, 1), 3", "returned a int for the dataset"),
        ("def build(): raise KeyError('secret-7')", r"failed: KeyError at .*recipe\.py:1 \(--debug"),
        ("def build(): raise SystemExit(0)", r"failed: SystemExit at .*recipe\.py:1"),
        ("raise SystemExit('secret-7')", r"importing recipe\.py failed: SystemExit at .*recipe\.py:1"),
        ("raise ValueError('secret-7')", r"importing recipe\.py failed: ValueError at .*recipe\.py:1"),
        ("import package_gone", "importing recipe.py failed: ModuleNotFoundError: No module named 'package_gone'"),
        ("def build(:", "importing recipe.py failed: SyntaxError"),
        ("def build(): open('weights.ckpt')", "failed: FileNotFoundError: .*'weights.ckpt'"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_without_quoting_data(folder, text, message):
    write(folder, text)
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe("recipe.py:build")
    assert "secret" not in str(error.value)


def test_a_module_that_fails_to_import_another_is_not_called_missing(folder):
    write(folder, "import package_gone")
    with pytest.raises(RecipeError, match=r"importing recipe failed: .*No module named 'package_gone'"):
        load_recipe("recipe:build")
