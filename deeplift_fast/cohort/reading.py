"""Where samples come from: datasets, loaders and iterables of batches, one part's stretch of samples after another.

Datasets are read by index, ahead in other processes. Batches, and samples that an iterable yields, are read in order in
this process.
"""

import os
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import batched, chain, islice
from pathlib import Path
from typing import Any, Protocol, override

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from deeplift_fast.cohort.entries import regular, taken
from deeplift_fast.cohort.hashing import class_name, digest, of_processors
from deeplift_fast.cohort.identifiers import FIELDS
from deeplift_fast.cohort.reading_ahead import Reader, is_by_index, is_on_disk, read_ahead, sample_of, unopened
from deeplift_fast.cohort.samples import Group, PaddedGroup, Stretch, stretch_of, stretches_of
from deeplift_fast.errors import CohortError, is_reader_death

MOST_EXAMPLES = 16
"""Samples whose content identifies a dataset, spread evenly over it."""

MOST_READERS = 2
"""Most reading processes by default: two read some 60,000 samples/s of two code sequences."""


class Source(Protocol):
    """Samples, numbered from 0."""

    total: int | None
    """Number of samples; `None` where it is unknown before the last is read."""

    read_once: bool
    """Whether the samples can be read only once, as those of a generator."""

    read_from: Path | None = None
    """The cache that samples were read from."""

    made: Path | None = None
    """The cache that was made of the samples."""

    def identity(self) -> dict[str, Any]:
        """Class, length, schemas, processors and content of the samples, as texts, numbers and digests."""

    def examples(self) -> Sequence[Group]:
        """Some of the samples: those whose content is in the identity, or the first of a batch."""

    def stretches(self, parts: Callable[[int], bool], part_samples: int, processes: int | None) -> Generator[Stretch]:
        """The stretches of the wanted parts, in order; closing the generator ends the reading processes.

        Args:
            parts: tells whether a part is wanted.
            part_samples: samples per part.
            processes: reading processes; `None` for the default; 0 to read in this process.
        """


class DatasetSource(Source):
    """Samples by index: a PyHealth `SampleDataset`, or anything with `len` and integer indices.

    Args:
        dataset: the dataset; its items are processed samples.
        model: the model that they are for; its processors serve where the dataset has none.
        limit: number of first samples to read; `None` for all.
    """

    def __init__(self, dataset: Any, model: Any, limit: int | None = None) -> None:
        self.dataset = dataset
        self.model = model
        self.limit = limit
        self.read_once = False
        self.length = len(dataset)
        self.total: int | None = self.length if limit is None else min(limit, self.length)

    @override
    def identity(self) -> dict[str, Any]:
        return {
            "class": class_name(self.dataset),
            "length": self.length,
            **_schemas(self.dataset, self.model),
            "content": digest(self._spread()),
        }

    @override
    def examples(self) -> Sequence[Group]:
        return stretch_of(self._spread(), 0, 0).groups

    def _spread(self) -> list[Mapping[str, Any]]:
        """Samples spread evenly over the dataset."""
        spread = np.unique(np.linspace(0, self.length - 1, min(MOST_EXAMPLES, self.length)).astype(np.int64))
        return [sample_of(self.dataset, int(index)) for index in spread]

    @override
    def stretches(self, parts: Callable[[int], bool], part_samples: int, processes: int | None) -> Generator[Stretch]:
        assert self.total is not None
        wanted = [part for part in range(-(-self.total // part_samples)) if parts(part)]
        reader = Reader(unopened(self.dataset), self.total, part_samples)
        count = self._processes(len(wanted)) if processes is None else processes
        if not count or not wanted:
            return (reader.stretch(part) for part in wanted)
        return read_ahead(reader, wanted, min(count, len(wanted)))

    def stretch(self, part: int, part_samples: int) -> Stretch:
        """The stretch of one part, read in this process."""
        assert self.total is not None
        return Reader(self.dataset, self.total, part_samples).stretch(part)

    def _processes(self, parts: int) -> int:
        """Default number of reading processes: up to two for a PyHealth dataset on disk, none for others.

        A dataset in memory gains nothing from them. Other datasets may not survive a fork.
        """
        cores = len(os.sched_getaffinity(0))
        return min(MOST_READERS, parts, cores) if cores > 1 and parts > 1 and is_on_disk(self.dataset) else 0


class BatchSource(Source):
    """Batches in the order in which a loader or an iterable yields them.

    Args:
        batches: a `DataLoader` or any iterable; it yields batches as PyHealth's loader makes them, or processed
            samples.
        model: the model that they are for.
        limit: number of first samples to read; `None` for all.
    """

    def __init__(self, batches: Iterable[Mapping[str, Any]], model: Any, limit: int | None = None) -> None:
        self.total: int | None = None
        self.read_once = isinstance(batches, Iterator)
        self._batches = batches
        self._model = model
        self._limit = limit
        self._begun: Iterator[Mapping[str, Any]] | None = None
        self._first: list[Mapping[str, Any]] = []

    @override
    def identity(self) -> dict[str, Any]:
        """Also reads the first batch.

        Raises:
            CohortError: if an iterator has no batches left; if the first item is no batch.
        """
        self._begin()
        if self.read_once and not self._first:
            raise CohortError(
                f"dataset is a {type(self._batches).__name__} with no batches left; an iterator can be read once: make "
                "it anew, from its first batch, for each run"
            )
        if self._first and not _is_sample(self._first[0], self._model):
            self._regular(self._first[0], 0)  # raises before anything is written
        return {
            "class": class_name(self._batches),
            "length": None,
            **_schemas(None, self._model),
            "content": digest(self._first),
        }

    @override
    def examples(self) -> Sequence[Group]:
        self._begin()
        if not self._first:
            return []
        if _is_sample(self._first[0], self._model):
            return stretch_of(self._first, 0, 0).groups
        size, batch = self._regular(self._first[0], 0)
        few = np.arange(min(size, MOST_EXAMPLES))
        return [PaddedGroup(few, {key: taken(value, few) for key, value in batch.items()})]

    @override
    def stretches(self, parts: Callable[[int], bool], part_samples: int, processes: int | None) -> Generator[Stretch]:
        self._begin()  # samples of other parts are read and dropped
        one_by_one = bool(self._first) and _is_sample(self._first[0], self._model)
        stretches = self._of_samples(part_samples) if one_by_one else stretches_of(self._sized(), part_samples)
        return (stretch for stretch in stretches if parts(stretch.part))

    def _of_samples(self, part_samples: int) -> Iterator[Stretch]:
        assert self._begun is not None
        first, self._first = self._first, []
        for part, samples in enumerate(batched(islice(chain(first, self._begun), self._limit), part_samples)):
            for sample in samples:
                if not isinstance(sample, Mapping):
                    raise CohortError(f"the dataset yields a {type(sample).__name__} among samples, which are dicts")
            yield stretch_of(samples, part, part * part_samples)

    def _begin(self) -> None:
        if self._begun is None:
            self._begun = self._readable()
            self._first = list(islice(self._begun, 1))

    def _readable(self) -> Iterator[Mapping[str, Any]]:
        """The batches; errors quote no value."""
        try:
            yield from self._batches
        except Exception as error:
            if isinstance(error, CohortError) or is_reader_death(error):
                raise
            raise CohortError(
                f"a batch of the dataset cannot be read ({type(error).__name__} at {origin(error)}); finished "
                "parts are kept: correct the cause and run the same again to continue; reading the batch alone shows "
                "the error in full"
            ) from None  # its message may hold a patient's values

    def _sized(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        self._begin()
        assert self._begun is not None
        seen = 0
        for number, given in enumerate(chain(self._first, self._begun)):
            self._first = []
            size, batch = self._regular(given, number)
            if self._limit is not None and seen + size > self._limit:
                few = np.arange(self._limit - seen)
                batch, size = {key: taken(value, few) for key, value in batch.items()}, len(few)
            seen += size
            if size:
                yield size, batch
            if seen == self._limit:
                return

    def _regular(self, given: Any, number: int) -> tuple[int, dict[str, Any]]:
        if not isinstance(given, Mapping):
            raise CohortError(
                f"the dataset yields a {type(given).__name__}; accepted: batches as PyHealth's loader gives them, "
                f"dicts with {list(self._model.feature_keys)}"
            )
        return regular(given, self._model, f"batch {number} of the dataset")


def open_source(dataset: Any, model: Any, limit: int | None = None) -> Source:
    """The source for a user's dataset, loader or iterable.

    Args:
        dataset: a PyHealth `SampleDataset`, on disk or in memory; any other dataset of processed samples with `len` and
            integer indices; a `DataLoader`; an iterable of batches or of processed samples.
        model: the model that the samples are for.
        limit: number of first samples to read; `None` for all.

    Raises:
        CohortError: for anything else.
    """
    if isinstance(dataset, DataLoader):
        if _reads_in_order(dataset):
            return DatasetSource(dataset.dataset, model, limit)
        return BatchSource(dataset, model, limit)
    if is_by_index(dataset) and not isinstance(dataset, str | bytes | Mapping) and not _holds_batches(dataset, model):
        return DatasetSource(dataset, model, limit)
    if isinstance(dataset, Iterable) and not isinstance(dataset, str | bytes | Mapping):
        return BatchSource(dataset, model, limit)
    raise CohortError(
        f"dataset is a {type(dataset).__name__}; accepted: a PyHealth SampleDataset, a dataset of processed samples "
        "with len and integer indices, a DataLoader, or an iterable of batches or of processed samples"
    )


def origin(error: BaseException) -> str:
    """File and line where an error was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _holds_batches(dataset: Any, model: Any) -> bool:
    """Whether a sequence holds batches: their identifiers or tensors have one entry per sample."""
    if not isinstance(dataset, Sequence) or not len(dataset) or not isinstance(dataset[0], Mapping):
        return False
    return _is_batch(dataset[0], model)


def _is_batch(given: Mapping[str, Any], model: Any) -> bool:
    if any(_is_listed(given.get(name)) for name in FIELDS):
        return True
    processors = {**model.dataset.input_processors, **model.dataset.output_processors}
    known = ((given.get(key), _dimensions(processor, 3)) for key, processor in processors.items())
    return any(_has_more(value, most) for value, most in known)


def _is_listed(identifiers: Any) -> bool:
    """Whether there are several identifiers."""
    return (
        not isinstance(identifiers, str | bytes)
        and getattr(identifiers, "shape", None) != ()
        and (isinstance(identifiers, Sequence) or hasattr(identifiers, "__array__"))
    )


def _has_more(value: Any, most: int) -> bool:
    """Whether a feature has more than `most` dimensions, or the times of a pair (time, value) more than one."""
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return value[0].dim() > 1
    return isinstance(value, Tensor) and value.dim() > most


def _is_sample(given: Any, model: Any) -> bool:
    """Whether an item is a single sample: it has one identifier, or tensors with a sample's dimensions."""
    if not isinstance(given, Mapping) or _is_batch(given, model):
        return False
    known = ((given.get(key), _dimensions(each, -1)) for key, each in model.dataset.input_processors.items())
    return any(isinstance(given.get(name), str | int) for name in FIELDS) or any(
        isinstance(value, Tensor) and value.dim() == dimensions for value, dimensions in known
    )


def _dimensions(processor: Any, unknown: int) -> int:
    """Dimensions of one sample's tensor; `unknown` where the processor has no answer."""
    try:
        return int(processor.dim()[0])
    except (AttributeError, NotImplementedError, TypeError, IndexError):
        return unknown


def _reads_in_order(loader: DataLoader) -> bool:
    """Whether a loader yields the samples of a PyHealth dataset in the dataset's order, each once."""
    from pyhealth.datasets.sample_dataset import SampleDataset
    from pyhealth.datasets.utils import collate_fn_dict_with_padding

    dataset = loader.dataset
    as_pyhealth = loader.collate_fn is collate_fn_dict_with_padding and not loader.drop_last
    if not isinstance(dataset, SampleDataset) or not as_pyhealth:
        return False
    if hasattr(loader, "shuffle_samples"):
        return not loader.shuffle_samples
    in_order = loader.sampler is None or isinstance(loader.sampler, SequentialSampler)
    return in_order and not getattr(dataset, "shuffle", getattr(dataset, "_shuffle", True))


def _schemas(dataset: Any, model: Any) -> dict[str, Any]:
    about = dataset if hasattr(dataset, "input_processors") else model.dataset
    return {
        "input_schema": {str(key): _name(spec) for key, spec in about.input_schema.items()},
        "output_schema": {str(key): _name(spec) for key, spec in about.output_schema.items()},
        "processors": of_processors(about.input_processors),
    }


def _name(spec: Any) -> str:
    if isinstance(spec, tuple):
        return _name(spec[0])
    return spec if isinstance(spec, str) else class_name(spec)
