"""Fast DeepLIFT: contributions of inputs to the difference of a model's output from its output at a baseline.

`DeepLift` has the interface of PyHealth's interpreters and needs PyHealth; `attribute` serves any module or callable.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplift_fast.core.attribution import Attribution, attribute
    from deeplift_fast.core.diagnostics import Report
    from deeplift_fast.errors import (
        BaselineWarning,
        ConvergenceWarning,
        FusionWarning,
        GraphWarning,
        InterceptionError,
        InterceptionWarning,
        PredictionWarning,
        TrainingModeWarning,
    )
    from deeplift_fast.pyhealth.interactions import Interactions
    from deeplift_fast.pyhealth.interpreter import DeepLift
    from deeplift_fast.pyhealth.players import Player
    from deeplift_fast.rules import register_rule, unregister_rule

try:
    __version__ = version("deeplift_fast")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = [
    "Attribution",
    "BaselineWarning",
    "ConvergenceWarning",
    "DeepLift",
    "FusionWarning",
    "GraphWarning",
    "Interactions",
    "InterceptionError",
    "InterceptionWarning",
    "Player",
    "PredictionWarning",
    "Report",
    "TrainingModeWarning",
    "attribute",
    "register_rule",
    "unregister_rule",
]

# Loaded on first use: the command line's help should not wait seconds for torch.
_HOMES = {
    "Attribution": "core.result",
    "BaselineWarning": "errors",
    "ConvergenceWarning": "errors",
    "DeepLift": "pyhealth.interpreter",
    "FusionWarning": "errors",
    "GraphWarning": "errors",
    "Interactions": "pyhealth.interactions",
    "InterceptionError": "errors",
    "InterceptionWarning": "errors",
    "Player": "pyhealth.players",
    "PredictionWarning": "errors",
    "Report": "core.diagnostics",
    "TrainingModeWarning": "errors",
    "attribute": "core.attribution",
    "register_rule": "rules",
    "unregister_rule": "rules",
}
_MODULES = {
    "attribution": "core.attribution",
    "baselines": "baselines",
    "captum": "captum",
    "cohort": "cohort",
    "diagnostics": "core.diagnostics",
    "errors": "errors",
    "features": "pyhealth.features",
    "ops": "ops",
    "plot": "plot",
    "report": "report",
    "rules": "rules",
    "tasks": "tasks",
}
_EXTRAS = {"DeepLift": "pyhealth", "cohort": "cohort", "plot": "plot", "report": "cohort", "tasks": "pyhealth"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return _imported(_MODULES[name], name)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_imported(_HOMES[name], name), name)
    globals()[name] = found
    return found


def _imported(module: str, name: str) -> Any:
    """Import a module of this package, for a public name."""
    try:
        return import_module(f"deeplift_fast.{module}")
    except ImportError as error:
        if name not in _EXTRAS or (error.name or "").partition(".")[0] == __name__:
            raise
        raise ImportError(
            f'deeplift_fast.{name} needs another package ({error}): pip install "deeplift_fast[{_EXTRAS[name]}]"'
            + ("; deeplift_fast.attribute serves other models without it" if name == "DeepLift" else "")
        ) from error


def __dir__() -> list[str]:
    own = (name for name in globals() if name.startswith("__") and name.endswith("__"))
    return sorted({*own, *__all__, *_MODULES})
