"""Loads a recipe: a function that returns `(model, dataset)`.

It may return a dict as third item, with arguments of `attribute_cohort` that have no option: `dimensions` (by feature
key, the names of a continuous feature's dimensions), `splits` (by split, the numbers of its samples) and `baseline`.
"""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from deeplift_fast.cli.exit import SHOWN_BY_DEBUG, place
from deeplift_fast.errors import DemoError, RecipeError
from deeplift_fast.support.home import expanded

ACCEPTED = "accepted: module:function or file.py:function, of a function that returns (model, dataset)"

FURTHER = ("baseline", "dimensions", "splits")

_WORD = re.compile("[A-Za-z_]+")

# Errors whose message names a file or a module, never data.
_HARMLESS = (ImportError, SyntaxError, FileNotFoundError, PermissionError, DemoError)


def load_recipe(given: str) -> tuple[Any, Any, dict[str, Any]]:
    """Calls a recipe.

    Args:
        given: `module:function` or `file.py:function`; the working directory is searched for modules too.

    Returns:
        The model, the dataset, and further arguments of `attribute_cohort`.

    Raises:
        RecipeError: if the function cannot be found, fails, or returns something else. The message of an error in the
            recipe is left out if it may quote data.
    """
    function = _find_function(given)
    try:
        found = function()
    except (Exception, SystemExit) as error:  # an exit code of the recipe must not end this command
        raise RecipeError(f"RECIPE {given} failed: {_reason(error)}") from error
    return _check_found(given, found)


def _find_function(given: str) -> Callable[[], Any]:
    where, _, name = given.rpartition(":")
    if not where or not name.isidentifier():
        raise RecipeError(f"RECIPE is {given!r}; {ACCEPTED}")
    try:
        module = _load_file(expanded(where, "RECIPE")) if where.endswith(".py") or "/" in where else _load_module(where)
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:
        raise RecipeError(f"RECIPE {given}: importing {where} failed: {_reason(error)}") from error
    function = getattr(module, name, None)
    if function is None:
        own = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__]
        listed = f"; it has {', '.join(own)}" if own else ""
        raise RecipeError(f"RECIPE {given}: {where} has no function {name!r}{listed}")
    if not callable(function):
        raise RecipeError(f"RECIPE {given}: {name} is a {type(function).__name__}; {ACCEPTED}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise RecipeError(
            f"RECIPE {given}: {name} needs arguments ({error}); accepted: a function without arguments"
        ) from error
    return function  # type: ignore[no-any-return]


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise RecipeError(f"RECIPE: {path} is not a file; {ACCEPTED}")
    # As for a script, modules beside the file can be imported.
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"RECIPE: {path} is not a Python file; {ACCEPTED}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise RecipeError(f"RECIPE: there is no module {name!r} here; {ACCEPTED}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, _HARMLESS):
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__} at {place(error)} ({SHOWN_BY_DEBUG})"


def _check_found(given: str, found: Any) -> tuple[Any, Any, dict[str, Any]]:
    from torch import nn

    if not isinstance(found, tuple | list) or len(found) not in (2, 3):
        size = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise RecipeError(
            f"RECIPE {given} returned a {type(found).__name__}{size}; accepted: the pair (model, dataset), or "
            "these and a dict"
        )
    model, dataset, *rest = found
    if isinstance(dataset, nn.Module) and not isinstance(model, nn.Module):
        raise RecipeError(f"RECIPE {given} returned (dataset, model); accepted: (model, dataset)")
    if not isinstance(model, nn.Module):
        raise RecipeError(f"RECIPE {given} returned a {type(model).__name__} for the model; accepted: a PyHealth model")
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        raise RecipeError(
            f"RECIPE {given} returned a {type(dataset).__name__} for the dataset; accepted: a PyHealth SampleDataset, "
            "a DataLoader, or an iterable of batches"
        )
    if rest:
        _check_further(given, rest[0])
    return model, dataset, rest[0] if rest else {}


def _check_further(given: str, further: Any) -> None:
    """Raises RecipeError unless the third item is a dict with keys of :data:`FURTHER`."""
    accepted = f"accepted: none, or a dict with keys of {', '.join(FURTHER)}"
    if not isinstance(further, dict):
        raise RecipeError(f"RECIPE {given} returned a {type(further).__name__} as third item; {accepted}")
    unknown = [key for key in further if key not in FURTHER]
    if unknown:
        words = [key for key in unknown if isinstance(key, str) and _WORD.fullmatch(key)]
        named = f", such as {words[0]!r}" if words else ""  # other keys may be identifiers of patients
        raise RecipeError(f"RECIPE {given} returned a third item with {len(unknown)} unknown key(s){named}; {accepted}")
