"""Every error and warning of the package, and the function that issues a warning."""

import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


class ConvergenceWarning(UserWarning):
    """Contributions do not sum to the difference in output, or a misleading rescaling makes them do so."""


class BaselineWarning(UserWarning):
    """A baseline may not mean what the user expects.

    The default baseline is the embedding of the unknown code, which training never changes. A fitted baseline may have
    dimensions that were never measured in its samples.
    """


class PredictionWarning(UserWarning):
    """The model's prediction for a batch differs from the explained predictions, or the model fails on the batch.

    Explained is the prediction for each sample alone. Many models do not ignore padding, so that their prediction for
    a sample depends on the batch.
    """


class TrainingModeWarning(UserWarning):
    """The model is in training mode, in which its output may be random or depend on the batch."""


class InterceptionWarning(UserWarning):
    """Part of the model cannot be intercepted and is attributed by its gradient."""


class FusionWarning(UserWarning):
    """A model with fused layers is attributed operation by operation: the same numbers, but slower."""


class GraphWarning(UserWarning):
    """CUDA graphs were requested but are not used: the same numbers, with more work for the CPU."""


class InterceptionError(RuntimeError):
    """The operations of the two streams cannot be paired, or no gradient leads from the output to an input."""


class ArgumentValueError(ValueError, AssertionError):
    """An argument's value, length or shape does not fit; also an AssertionError, for code written for Captum."""


class ArgumentTypeError(TypeError, AssertionError):
    """An argument's type or dtype does not fit; also an AssertionError, for code written for Captum."""


class TargetIndexError(ArgumentValueError, IndexError):
    """A target lies outside the model's output; also an IndexError, for code written for Captum."""


class Diverged(InterceptionError):
    """The two streams took different paths."""

    def __init__(self, position: int, actual: str, baseline: str) -> None:
        super().__init__(
            f"activation {position + 1} of the forward pass is {actual} at the input but {baseline} at the baseline: "
            "the model took another path there. Choose a baseline that takes the same path (same shapes, lengths and "
            'masks), make the model\'s control flow independent of the attributed values, or use rules="complete", '
            "which attributes unpaired operations by their gradient."
        )


class Unfit(Exception):
    """The fused layers do not support a batch; the message says why."""


class NotFused(Exception):
    """The fused layers do not support a model; the message says why, and is empty for models of other kinds."""


class Again(Exception):
    """A read-back shows that a call rests on a wrong assumption, which the message names: it is computed again."""


class WeightsChanged(Again):
    """The weights are no longer those that were packed."""


class PaddingCounts(Again):
    """Further padding changes the numbers of the batch.

    Args:
        keys: the token features whose embedding of padding is not 0.
    """

    def __init__(self, message: str, keys: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.keys = keys


class BackendWarning(UserWarning):
    """A compiled backend is missing: the same results, but slower."""


class CohortError(ValueError):
    """A cohort cannot be computed or read; the message says why and what to do."""


class CohortWarning(UserWarning):
    """A fact about a cohort that its user should know; the run continues."""


class CacheError(CohortError):
    """A cache of samples is damaged, or the one that was asked for cannot be used."""


class CacheWarning(UserWarning):
    """A cache of samples is not used or not made: the same numbers, read from the dataset itself, but slower."""


class NoWorkersError(Exception):
    """A cluster had no running worker for the longest accepted time."""


def is_reader_death(error: BaseException) -> bool:
    """Whether an error says that a DataLoader worker died; torch's signal handler may raise it at any line."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


class SummaryError(ValueError):
    """The report cannot be made; the message says why and what to do."""


class DemoError(Exception):
    """The job cannot run; the message says why and what to do."""


class RecipeError(ValueError):
    """The recipe cannot be used; the message says why."""


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning that points at the caller outside this package."""
    warnings.warn(message, category, skip_file_prefixes=(_PACKAGE,))
