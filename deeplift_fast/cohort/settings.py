"""The arguments of a run, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from deeplift_fast.cohort.cohort_baseline import CohortBaseline, checked_baseline
from deeplift_fast.cohort.splits import Splits
from deeplift_fast.core.targets import class_target
from deeplift_fast.errors import CohortError
from deeplift_fast.pyhealth.interpreter import DeepLift
from deeplift_fast.pyhealth.joint_effects import refuse_as_pyhealth
from deeplift_fast.pyhealth.players import MOST as MOST_PLAYERS
from deeplift_fast.support.integers import as_int

LEAST_PLAYERS = 2
"""Codes of a pair."""


@dataclass(frozen=True)
class Settings:
    """The checked arguments of `attribute_cohort`.

    Attributes:
        baseline: the baseline of every sample.
        target: index of the explained logit; `None` for the predicted class.
        budget: padded steps per batch; `None` to measure it.
        memory: bytes that attribution may use; `None` for a share of the free memory.
        part_samples: samples per part.
        read_ahead: number of reading processes; `None` for the default.
        limit: number of first samples to attribute; `None` for all.
        force: whether to start over.
        dimensions: by feature key, the names of a continuous feature's dimensions.
        splits: the split of each sample.
        interactions: strongest codes per sample whose pairs are attributed; `None` for none.
    """

    baseline: CohortBaseline
    target: int | None
    budget: int | None
    memory: int | None
    part_samples: int
    read_ahead: int | None
    limit: int | None
    force: bool
    dimensions: Mapping[str, Sequence[str]] | None
    splits: Splits = field(default_factory=Splits)
    interactions: int | None = None


def checked_settings(
    interpreter: Any, baseline: Any, target: Any, dimensions: Any, force: bool, part_samples: Any, **counts: Any
) -> Settings:
    """The settings of a run.

    Arguments are those of `attribute_cohort`. `target` is its `target_class_idx`; `counts` are its `budget`, `memory`,
    `read_ahead`, `limit` and `interactions`.

    Raises:
        CohortError: if an argument is invalid; the message names it.
        ValueError, TypeError: if the model does not have the target.
    """
    if not isinstance(interpreter, DeepLift):
        raise CohortError(f"interpreter is a {type(interpreter).__name__}; accepted: a deeplift_fast.DeepLift")
    samples = count("part_samples", part_samples, 1)
    if samples is None:
        raise CohortError("part_samples is None; accepted: an int of 1 or more")
    return Settings(
        baseline=checked_baseline(baseline, interpreter),
        target=class_target(interpreter.model, target),
        part_samples=samples,
        force=bool(force),
        dimensions=_checked_dimensions(dimensions, interpreter.model),
        budget=count("budget", counts["budget"], 1),
        memory=count("memory", counts["memory"], 1),
        read_ahead=count("read_ahead", counts["read_ahead"], 0),
        limit=count("limit", counts["limit"], 1),
        interactions=_checked_interactions(counts["interactions"], interpreter),
    )


def count(name: str, given: Any, least: int) -> int | None:
    """The argument `name`, an int of `least` or more, or `None`; raises CohortError for anything else."""
    if given is None:
        return None
    number = as_int(given)
    if number is None or number < least:
        raise CohortError(f"{name} is {given!r}; accepted: an int of {least} or more, or None")
    return number


def _checked_dimensions(
    dimensions: Mapping[str, Sequence[str]] | None, model: Any
) -> Mapping[str, Sequence[str]] | None:
    if dimensions is not None and not isinstance(dimensions, Mapping):
        raise CohortError(f"dimensions is a {type(dimensions).__name__}; accepted: a dict of names by feature key")
    unknown = sorted(set(dimensions or ()) - set(model.feature_keys))
    if unknown:
        raise CohortError(f"dimensions has the key(s) {unknown}; accepted: {list(model.feature_keys)}")
    return None if dimensions is None else {key: [str(name) for name in names] for key, names in dimensions.items()}


def _checked_interactions(given: Any, interpreter: DeepLift) -> int | None:
    number = count("interactions", given, LEAST_PLAYERS)
    if number is None:
        return None
    if number > MOST_PLAYERS:
        raise CohortError(f"interactions is {number}; accepted: an int from {LEAST_PLAYERS} to {MOST_PLAYERS}, or None")
    try:
        refuse_as_pyhealth(interpreter.rules)
    except ValueError as error:
        raise CohortError(f"interactions is {number}, and {error}") from None
    processors = interpreter.model.dataset.input_processors
    if not any(processors[key].is_token() for key in interpreter.model.feature_keys):
        raise CohortError(
            "interactions is given, which are between codes, and the model's features hold values: "
            f"{list(interpreter.model.feature_keys)}; leave interactions out"
        )
    return number


def check_client(client: Any) -> None:
    """Raise CohortError unless this is `None`, or an open synchronous Dask client and Dask is installed."""
    if client is None:
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise CohortError(f'client is given, which needs {error.name}: pip install "deeplift_fast[dask]"') from error
    if not isinstance(client, Client):
        raise CohortError(
            f"client is a {type(client).__name__}; accepted: None, or a dask.distributed.Client, such as "
            "Client(cluster) or Client('tcp://scheduler:8786')"
        )
    if client.asynchronous:
        raise CohortError("client is asynchronous; accepted: a synchronous one, as Client(…) makes it by default")
    if client.status in ("closing", "closed"):
        raise CohortError("client is closed; make a new one, and close it after the run")


def check_worker_timeout(seconds: Any) -> None:
    """Raise CohortError unless this is a number of seconds above 0."""
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not float(seconds) > 0:
        raise CohortError(f"worker_timeout is {seconds!r}; accepted: a number of seconds above 0")
