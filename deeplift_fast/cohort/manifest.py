"""`manifest.json`: everything that a cohort's numbers depend on, and the finished parts.

identity   object   everything that the numbers depend on; a run with another identity refuses the folder
    versions       deeplift_fast, torch, pyhealth
    interpreter    rules, steps, use_embeddings, fuse
    target         the explained class; null for the predicted one
    baseline       its name, with digests of its numbers (older folders: "default" or a digest)
    model          class, weights: a digest of parameters and buffers, and modules: by path, their class, plain
                   attributes and hooks (`deeplift_fast.cohort.module_texts`)
    dataset        class, length (null if unknown before the end), input_schema, output_schema, processors: a digest
                   of their learned state, content: a digest of some samples
    part_samples   samples per part: part k holds the samples from k·part_samples on
    dimensions     "none", or a digest of the names
    splits         "none", or a digest of the names and numbers that `attribute_cohort(splits=…)` was given
    interactions   strongest codes per sample whose pairs are in `interactions`; absent for a run without that table
about      object   facts about the run for readers, as in the files' metadata (`deeplift_fast.cohort.about`)
run        text     id of the last run, as the events of `--log-json` name it
device     text     the model's device, cpu or cuda
budget     int      padded steps per batch; null until the first part
limit      int      number of samples that the last run was limited to; null for all
total      int      samples of the dataset, or the limit, or those in parts if they are more; null until known
finished   bool     whether every sample within the limit is in a part
read_from_cache
           bool     whether samples of any part were read from the dataset's cache, which changes no number
outputs    list     logits of some samples, which identify the model; null for a model with random outputs
prediction_difference
           object   the largest difference between the model's own predictions and the explained ones
                    (`deeplift_fast.cohort.differences`); null if nothing was compared
parts      object   by number of the part: begin, end (samples [begin, end)), samples (attributed), failures, rows
                    (of attributions), budget, seconds, and files: by name, bytes and sha256; and interactions, the
                    rows of that table, where the run writes it
"""

import json
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from deeplift_fast.cohort import differences
from deeplift_fast.cohort.about import check_about, check_schema
from deeplift_fast.cohort.hashing import SHORT, class_name, digest, of_weights
from deeplift_fast.cohort.manifest_content import (
    ALL_FOLDERS,
    INTERACTIONS,
    MOST_BYTES,
    check_files,
    check_identity,
    check_interactions,
    check_outputs,
    check_parts,
    check_place,
    folders_of,
    is_count,
    is_duration,
    parsed,
    quoted,
)
from deeplift_fast.cohort.module_texts import of_modules
from deeplift_fast.cohort.outputs import Outputs
from deeplift_fast.cohort.store import Store, whole_version
from deeplift_fast.errors import CohortError
from deeplift_fast.pyhealth.given_baselines import NAMES, default_name
from deeplift_fast.support.printable import printable

if TYPE_CHECKING:
    from deeplift_fast.cohort.settings import Settings

__all__ = ["ALL_FOLDERS", "NAME", "Manifest", "Part", "check_same", "folders_of", "identity_of", "is_intact", "load"]

NAME = "manifest.json"
_DIGEST = re.compile("[0-9a-f]{64}")
_RUN = re.compile("[0-9a-f]{1,64}")
_OPTIONAL = {"run", "budget", "limit", "total", "finished", "outputs", "prediction_difference", "read_from_cache"}


@dataclass(frozen=True)
class Part:
    """A finished part.

    Attributes:
        begin: number of its first sample.
        end: number of its last sample, plus 1.
        samples: number of attributed samples.
        failures: number of samples that could not be attributed.
        rows: number of rows in its `attributions`.
        budget: padded steps per batch at its end.
        seconds: duration of its attribution.
        files: by name, `bytes` and `sha256`.
        interactions: number of rows in its `interactions`; `None` for a run without that table.
    """

    begin: int
    end: int
    samples: int
    failures: int
    rows: int
    budget: int
    seconds: float
    files: dict[str, dict[str, Any]]
    interactions: int | None = None

    @cached_property
    def entry(self) -> str:
        """The part as JSON, without a number of rows of a table that the run does not write.

        It is made once, although each later part writes the manifest anew.
        """
        return json.dumps(
            {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}
        )


@dataclass
class Manifest:
    """The content of `manifest.json`; the module describes it."""

    identity: dict[str, Any]
    about: dict[str, Any]
    device: str
    run: str | None = None
    budget: int | None = None
    limit: int | None = None
    total: int | None = None
    finished: bool = False
    read_from_cache: bool = False
    outputs: Outputs | None = None
    prediction_difference: dict[str, Any] | None = None
    parts: dict[int, Part] = field(default_factory=dict)

    def save(self, store: Store, require: Callable[[], None]) -> None:
        """Replaces the manifest in the folder; `require` as for `Store.write`."""
        about = dict(vars(self))
        del about["parts"]
        parts = [f'  "{number}": {part.entry}' for number, part in sorted(self.parts.items())]
        lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in about.items()]
        lines.append(' "parts": {\n' + ",\n".join(parts) + "\n }")
        store.replace(NAME, ("{\n" + ",\n".join(lines) + "\n}\n").encode(), require=require)
        store.settle("")

    def samples(self) -> int:
        """Number of attributed samples in all parts."""
        return sum(part.samples for part in self.parts.values())

    def end(self) -> int:
        """Number of the last sample in any part, plus 1; 0 without parts."""
        return max((part.end for part in self.parts.values()), default=0)

    def failures(self) -> int:
        """Number of samples in all parts that could not be attributed."""
        return sum(part.failures for part in self.parts.values())


def load(store: Store) -> Manifest | None:
    """The manifest of a folder, for a run that continues it; `None` if it is missing.

    Raises:
        CohortError: if it cannot be read.
    """
    try:
        return read(store, repair=True)
    except CohortError:
        raise
    except ValueError as error:
        raise CohortError(
            f"{NAME} in {store.shown} cannot be read ({error}); it is not a manifest of this version: choose another "
            "folder, or start over with force=True (on the command line: --force)"
        ) from None


def read(store: Store, repair: bool = False) -> Manifest | None:
    """The manifest of a folder, or its second version while it is being written; `None` if it is missing.

    Args:
        store: the folder.
        repair: as for :func:`whole_version`; `False` for callers that only read.

    Raises:
        ValueError: if its content is faulty; the message names the fault.
        CohortError: if the file cannot be read.
    """
    return whole_version(store, NAME, MOST_BYTES, lambda content: _manifest(parsed(content)), repair=repair)


def _manifest(found: dict[str, Any]) -> Manifest:
    """A manifest from parsed JSON; raises ValueError for a field that is missing, unknown or of another type."""
    if "about" not in found and "format" in found:  # from before there was a schema version
        check_schema(found["format"])
    _require_names(found, Manifest, "it", optional=_OPTIONAL)
    check_about(found["about"])
    check_identity(found["identity"])
    if found.get("run") is not None and not _RUN.fullmatch(str(found["run"])):
        raise ValueError(f"run is {quoted(found['run'])}")
    for name in ("budget", "limit", "total"):
        if found.get(name) is not None and not is_count(found[name]):
            raise ValueError(f"{name} is {quoted(found[name])}")
    of_bools = all(isinstance(found.get(name, False), bool) for name in ("finished", "read_from_cache"))
    if not isinstance(found["device"], str) or not of_bools:
        raise ValueError("device, finished or read_from_cache is of another type")
    check_outputs(found.get("outputs"))
    differences.check(found.get("prediction_difference"))
    size = found["identity"].get("part_samples")
    check_parts(found["parts"], lambda number, part: _check_part(number, part, size))
    check_interactions(found["identity"], found["parts"])
    return Manifest(**found | {"parts": {int(number): Part(**part) for number, part in found["parts"].items()}})


def _check_part(number: int, part: Mapping[str, Any], size: Any) -> None:
    """Raise ValueError unless a part has its fields, and its own samples among parts of `size` samples."""
    _require_names(part, Part, f"part {number}", optional={INTERACTIONS})
    for name in ("begin", "end", "samples", "failures", "rows", "budget"):
        if not is_count(part[name]):
            raise ValueError(f"part {number}: {name} is {quoted(part[name])}")
    if not is_duration(part["seconds"]):
        raise ValueError(f"part {number}: seconds is {quoted(part['seconds'])}")
    check_place(number, part, size)
    check_files(number, part["files"])
    for about in part["files"].values():
        if "bytes" not in about or not _DIGEST.fullmatch(str(about.get("sha256"))):
            raise ValueError(f"part {number}: a file lacks its bytes or sha256")


def check_total(manifest: Manifest) -> None:
    """Raise ValueError unless the total follows from length, limit and parts, as far as they are known."""
    about = manifest.identity.get("dataset")
    if not isinstance(about, dict):
        return
    length, limit, total = about.get("length"), manifest.limit, manifest.total
    given = [number for number in (length, limit) if number is not None]
    if not all(map(is_count, given)):
        raise ValueError(f"length is {quoted(length)} and limit {quoted(limit)}")
    expected = max(manifest.end(), 0 if length is None else min(given))
    if total != expected and not (length is None and total is None):
        raise ValueError(f"total is {quoted(total)}, where length, limit and parts make it {expected}")


def _require_names(found: Mapping[str, Any], of: type, where: str, optional: Set[str] = frozenset()) -> None:
    known = {each.name for each in fields(of)}
    for name in sorted(known - optional - found.keys()):
        raise ValueError(f"{where} has no {name}")
    for name in sorted(found.keys() - known):
        raise ValueError(f"{where} has the unknown field {quoted(name)}")


def identity_of(
    interpreter: Any, dataset: dict[str, Any], settings: "Settings", run: Callable[[], Any] | None = None
) -> dict[str, Any]:
    """Everything that the numbers of a run depend on.

    Args:
        interpreter: the `DeepLift`.
        dataset: the identity of the source.
        settings: the run's settings.
        run: runs the model once, as :func:`deeplift_fast.cohort.module_texts.of_modules` takes it.
    """
    model = interpreter.model
    asked = {} if settings.interactions is None else {INTERACTIONS: settings.interactions}
    return {
        "versions": {name: _version(name) for name in ("deeplift_fast", "torch", "pyhealth")},
        "interpreter": {name: getattr(interpreter, name) for name in ("rules", "steps", "use_embeddings", "fuse")},
        "target": settings.target,
        "baseline": settings.baseline.name,
        "model": {"class": class_name(model), "weights": of_weights(model), "modules": of_modules(model, run)},
        "dataset": dataset,
        "part_samples": settings.part_samples,
        "dimensions": digest(settings.dimensions) if settings.dimensions else "none",
        "splits": settings.splits.digest,
        **asked,
    }


def check_same(found: Manifest, identity: dict[str, Any], shown: str, read_once: bool = False) -> None:
    """Raise unless a folder's manifest has this identity.

    Args:
        found: the folder's manifest.
        identity: the identity of this run.
        shown: the folder's name in messages.
        read_once: whether the dataset is an iterator, which may have been read in part before.

    Raises:
        CohortError: if a field differs; the message names each with both values.
    """
    before, now = _flat(found.identity), _flat(identity)
    differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if differing:
        lines = [
            f"  {printable(key)}: {_shown(before.get(key))} there, {_shown(now.get(key))} now" for key in differing
        ]
        raise CohortError(
            f"out is {shown}, which holds the attributions of another run; these differ:\n"
            + "\n".join(lines)
            + ("\ndataset is an iterator, which begins where it was left: make it anew" if read_once else "")
            + _goes_on(before, now, differing)
            + "\nchoose another folder, repeat the run that wrote it, or start over with force=True (on the command "
            "line: --force)"
        )


def _goes_on(before: dict[str, Any], now: dict[str, Any], differing: list[str]) -> str:
    """The options that continue the folder, if nothing but options differs."""
    named = {"interpreter.rules": "rules", "interpreter.steps": "steps", "baseline": "baseline"}
    named[INTERACTIONS] = INTERACTIONS
    if not set(differing) <= named.keys():
        return ""
    options = {name: before.get(key) for key, name in named.items() if key in differing}
    each_default = all(it.get("baseline") == default_name(str(it.get("interpreter.rules"))) for it in (before, now))
    if "rules" in options and each_default:
        options.pop("baseline", None)  # the rule set implies it
    if options.get("baseline", "unk") not in NAMES:
        return ""
    given = " ".join(f"--{name} {value}" for name, value in options.items() if value is not None)
    left_out = [f"leaving out --{name}" for name, value in options.items() if value is None]
    shown = ", ".join(filter(None, [given, *left_out]))
    arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"\n{shown} goes on with it (in Python: {arguments})"


def is_intact(part: Part, store: Store) -> bool:
    """Whether a part's numbers agree, and all of its files have their recorded size and checksum."""
    if part.samples + part.failures != part.end - part.begin or len(part.files) != len(folders_of(part.interactions)):
        return False
    files = part.files.items()
    return all(store.size(name) == each["bytes"] and store.digest(name) == each["sha256"] for name, each in files)


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


def _shown(value: Any) -> str:
    is_digest = isinstance(value, str) and len(value) == 64 and all(letter in "0123456789abcdef" for letter in value)
    return f"{value[:SHORT]}…" if is_digest else json.dumps(value)
