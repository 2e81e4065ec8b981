"""Every error and warning of the package, and how a warning is issued."""

import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


class ConvergenceWarning(UserWarning):
    """Contributions do not sum to the difference in output, or only by a rescaling that makes them mislead."""


class BaselineWarning(UserWarning):
    """A baseline is other than one may think.

    No baseline was given, and the default one is the embedding of the unknown code, which training never touches; or a
    dimension was never measured in the samples that a baseline was fitted on.
    """


class PredictionWarning(UserWarning):
    """The model says something else of a batch than what is explained, or fails on it.

    What is explained is what the model says of each sample alone. Many models take padding for real, so that what they
    say of a sample depends on the batch.
    """


class TrainingModeWarning(UserWarning):
    """The model is in training mode, where its output is random or depends on the batch."""


class InterceptionWarning(UserWarning):
    """Part of the model cannot be looked into: what it computes is attributed by its gradient."""


class FusionWarning(UserWarning):
    """A model that has fused layers is attributed operation by operation: the same numbers, and slower."""


class GraphWarning(UserWarning):
    """CUDA graphs were asked for and are not used: the same numbers, with more work for the CPU."""


class InterceptionError(RuntimeError):
    """The activations met at the input and at the baseline cannot be paired, or lead from the output to no input."""


class ArgumentValueError(ValueError, AssertionError):
    """An argument's value, length or shape does not fit.

    It is an AssertionError too, which Captum raises, so that code written for Captum catches it.
    """


class ArgumentTypeError(TypeError, AssertionError):
    """An argument's type or dtype does not fit; an AssertionError too, as :class:`ArgumentValueError`."""


class TargetIndexError(ArgumentValueError, IndexError):
    """A target lies outside the model's output; Captum raises an IndexError for it."""


class Diverged(InterceptionError):
    """The two streams took different paths."""

    def __init__(self, position: int, actual: str, baseline: str) -> None:
        super().__init__(
            f"activation {position + 1} of the forward pass is {actual} at the input but {baseline} at the baseline: "
            "the model took another path there. Choose a baseline that takes the same path (same shapes, lengths and "
            'masks), make the model\'s control flow independent of the attributed values, or use rules="complete", '
            "which attributes what differs by its gradient."
        )


class Unfit(Exception):
    """A batch that the fused layers were not written for; its text says why."""


class NotFused(Exception):
    """The fused layers step aside; its text says why, and is empty where nobody expects them."""


class BackendWarning(UserWarning):
    """A compiled backend is missing: results are the same, and slower."""


class CohortError(ValueError):
    """Something about a cohort that its user must put right: the message says what, and how."""


class CohortWarning(UserWarning):
    """Something about a cohort that its user should know: the run goes on."""


class NoWorkersError(Exception):
    """A cluster has had no worker at work for as long as the run waits."""


def is_reader_death(error: BaseException) -> bool:
    """Whether an error is torch's word that a reading process died, which its signal handler raises anywhere."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


class SummaryError(ValueError):
    """The report cannot be made as asked; the message says what was given and what to do."""


class DemoError(Exception):
    """The job cannot run as asked; the message says what was given and what to do."""


class RecipeError(ValueError):
    """The recipe cannot be used; the message says why."""


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning that points at the caller outside this package."""
    warnings.warn(message, category, skip_file_prefixes=(_PACKAGE,))
