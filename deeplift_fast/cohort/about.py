"""Facts about a run, in the metadata of each of its Parquet files and in the manifest's `about`.

schema_version  int     version of the folder's layout: of the manifest and of the tables' columns
rules           text    rule set
steps           int     segments of the path from baseline to input
baseline        text    name of the baseline, with digests of its numbers
model           text    the model's class
model_digest    text    SHA-256 of its class, weights, buffers and modules
target          int     index of the explained logit, or the text "predicted": each sample's predicted class
units           text    units of outputs and contributions: "logit", the model's entry `logit`
versions        object  deeplift_fast, torch, pyhealth and pyarrow, when the folder was begun
created         text    time at which the folder was begun, ISO 8601 in UTC

A key of a Parquet file is the name after `deeplift_fast.`. Its value is the text, or JSON of anything else. All files
of a folder have the same metadata, whichever run or worker wrote them.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deeplift_fast.cohort.hashing import digest
from deeplift_fast.cohort.manifest_content import is_count, quoted
from deeplift_fast.cohort.store import Store
from deeplift_fast.support.clock import utc_text

SCHEMA_VERSION = 2
PREFIX = "deeplift_fast."
PREDICTED, UNITS = "predicted", "logit"
TEXTS = ("rules", "baseline", "model", "model_digest", "units", "created")
NAMES = ("schema_version", "steps", "target", "versions", *TEXTS)

_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class OtherSchemaError(ValueError):
    """Another version of this package wrote the folder."""


def about_of(identity: Mapping[str, Any], begun: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The facts about a run.

    Args:
        identity: the identity in the manifest.
        begun: facts of the run that began the folder, whose time and version of pyarrow are kept; `None` for a new one.
    """
    begun = begun or {"created": utc_text(), "versions": {"pyarrow": version("pyarrow")}}
    return {
        "schema_version": SCHEMA_VERSION,
        "rules": identity["interpreter"]["rules"],
        "steps": identity["interpreter"]["steps"],
        "baseline": identity["baseline"],
        "model": identity["model"]["class"],
        "model_digest": digest(identity["model"]),
        "target": PREDICTED if identity["target"] is None else identity["target"],
        "units": UNITS,
        "versions": {**identity["versions"], "pyarrow": begun["versions"]["pyarrow"]},
        "created": begun["created"],
    }


def metadata_of(about: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a Parquet file, from the facts."""
    return {PREFIX + name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}


def begun_in(store: Store, names: Iterable[str]) -> dict[str, Any] | None:
    """The facts that :func:`about_of` keeps, from the first of these files; `None` without any.

    Args:
        store: the folder.
        names: names of Parquet files whose checksums fit.
    """
    for name in names:
        try:
            with store.open(name) as file:
                metadata = pq.read_schema(file).metadata or {}
            created, versions = (metadata[(PREFIX + key).encode()].decode() for key in ("created", "versions"))
            found = {"created": created, "versions": {"pyarrow": json.loads(versions)["pyarrow"]}}
        except (KeyError, TypeError, ValueError, OSError, pa.ArrowException):  # another program's file, or a lost one
            continue
        if _is_time(created) and isinstance(found["versions"]["pyarrow"], str):
            return found
    return None


def check_about(about: Any) -> None:
    """Raise ValueError, with the fault, unless these are the facts about a run.

    Raises:
        OtherSchemaError: if another version of this package wrote them.
        ValueError: for any other fault.
    """
    if not isinstance(about, dict):
        raise ValueError(f"about is a {type(about).__name__}")
    check_schema(about.get("schema_version"))
    if missing := sorted(set(NAMES) - about.keys()):
        raise ValueError(f"about has no {missing[0]}")
    if unknown := sorted(about.keys() - set(NAMES)):
        raise ValueError(f"about has the unknown field {quoted(unknown[0])}")
    versions = about["versions"]
    if not isinstance(versions, dict) or not isinstance(versions.get("pyarrow"), str):
        raise ValueError(f"about.versions is {quoted(versions)}")
    texts = {name: about[name] for name in TEXTS}
    texts |= {f"versions.{name}": each for name, each in versions.items() if each is not None}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"about.{name} is {quoted(value)}")
    if not is_count(about["steps"], 1) or not (about["target"] == PREDICTED or is_count(about["target"])):
        raise ValueError(f"about: steps is {quoted(about['steps'])} and target {quoted(about['target'])}")
    if not _is_time(about["created"]):
        raise ValueError(f"about.created is {quoted(about['created'])}")


def check_schema(given: Any) -> None:
    """Raise OtherSchemaError for another schema version than this package's, and ValueError for no version."""
    if not is_count(given):
        raise ValueError(f"schema_version is {quoted(given)}")
    if given != SCHEMA_VERSION:
        age = "an earlier" if given < SCHEMA_VERSION else "a later"
        raise OtherSchemaError(
            f"its schema version is {given}, of {age} version of deeplift_fast; this version has {SCHEMA_VERSION}"
        )


def _is_time(text: str) -> bool:
    try:
        return _CREATED.fullmatch(text) is not None and datetime.fromisoformat(text) is not None
    except ValueError:
        return False
