"""Fast DeepLIFT: which inputs moved a model's output away from a baseline.

`DeepLift` is PyHealth's interpreter and needs PyHealth; `attribute` serves any module or callable.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from deeplift_fast.attribution import Attribution, attribute
from deeplift_fast.diagnostics import Report
from deeplift_fast.errors import (
    ConvergenceWarning,
    FusionWarning,
    InterceptionError,
    InterceptionWarning,
    TrainingModeWarning,
)
from deeplift_fast.rules import register_rule, unregister_rule

if TYPE_CHECKING:
    from deeplift_fast.pyhealth import DeepLift

try:
    __version__ = version("deeplift_fast")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = [
    "Attribution",
    "ConvergenceWarning",
    "DeepLift",
    "FusionWarning",
    "InterceptionError",
    "InterceptionWarning",
    "Report",
    "TrainingModeWarning",
    "attribute",
    "register_rule",
    "unregister_rule",
]


def __getattr__(name: str) -> Any:
    # PyHealth takes seconds to import and may not be there: only DeepLift needs it.
    if name != "DeepLift":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import pyhealth  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'deeplift_fast.DeepLift needs PyHealth ({error}): pip install "deeplift_fast[pyhealth]"; '
            "deeplift_fast.attribute serves other models without it"
        ) from error
    from deeplift_fast.pyhealth import DeepLift

    globals()["DeepLift"] = DeepLift
    return DeepLift


def __dir__() -> list[str]:
    return sorted([*globals(), "DeepLift"])
