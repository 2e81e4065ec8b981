"""Where samples come from: datasets, loaders and iterables of batches, window by window.

A dataset is read by index in a process of its own, a few windows ahead; windows travel as plain arrays through a pipe
(shared memory is often small in containers). Batches are taken as they come, in this process, and so
are samples that come one by one.
"""

import copy
import os
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import batched, chain, islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from deeplift_fast.cohort.entries import regular, taken
from deeplift_fast.cohort.hashing import digest, of_processors
from deeplift_fast.cohort.identifiers import FIELDS
from deeplift_fast.cohort.windows import Group, PaddedGroup, Window, window_of, windows_of
from deeplift_fast.errors import CohortError, is_reader_death

LOOKED_AT = 16
"""Samples whose content identifies a dataset, spread evenly over it."""

MOST_READERS = 2
"""Reading processes that are chosen at most: together they read some 60,000 samples/s of two code sequences."""

WINDOWS_AHEAD = 2
"""Windows that each reading process may have ready."""


class Source(Protocol):
    """Samples, numbered from 0."""

    total: int | None
    """Number of samples; `None` where only reading tells."""

    read_once: bool
    """Whether the samples can be read only once, as those of a generator."""

    def identity(self) -> dict[str, Any]:
        """What tells the samples from others: class, length, schemas, processors and content, as texts and numbers."""

    def looked_at(self) -> Sequence[Group]:
        """Some of the samples: those by whose content they are recognised, or the first of a batch."""

    def windows(self, parts: Callable[[int], bool], part_samples: int, read_ahead: int | None) -> Iterator[Window]:
        """The windows of the parts wanted, in order.

        Args:
            parts: whether a part is wanted.
            part_samples: samples per part.
            read_ahead: reading processes; `None` to choose; 0 to read in this one.
        """


class DatasetSource:
    """Samples by index: a PyHealth `SampleDataset`, or anything with `len` and integer indices.

    Args:
        dataset: it; items are processed samples.
        model: the model they are for, whose processors are taken where the dataset has none.
        limit: how many of its first samples to read; `None` for all.
    """

    def __init__(self, dataset: Any, model: Any, limit: int | None = None) -> None:
        self.dataset = dataset
        self.read_once = False
        self._model = model
        self.length = len(dataset)
        self.total: int | None = self.length if limit is None else min(limit, self.length)

    def identity(self) -> dict[str, Any]:
        """As :meth:`Source.identity`."""
        return {
            "class": _class(self.dataset),
            "length": self.length,
            **_schemas(self.dataset, self._model),
            "content": digest(self._spread()),
        }

    def looked_at(self) -> Sequence[Group]:
        """As :meth:`Source.looked_at`."""
        return window_of(self._spread(), 0, 0).groups

    def _spread(self) -> list[Mapping[str, Any]]:
        """Samples spread evenly over the dataset."""
        spread = np.unique(np.linspace(0, self.length - 1, min(LOOKED_AT, self.length)).astype(np.int64))
        return [sample_of(self.dataset, int(index)) for index in spread]

    def windows(self, parts: Callable[[int], bool], part_samples: int, read_ahead: int | None) -> Iterator[Window]:
        """As :meth:`Source.windows`."""
        assert self.total is not None
        wanted = [part for part in range(-(-self.total // part_samples)) if parts(part)]
        reader = _Reader(unopened(self.dataset), self.total, part_samples)
        processes = self._processes(len(wanted)) if read_ahead is None else read_ahead
        if not processes or not wanted:
            return map(reader.window, wanted)
        return _checked(_ahead(reader, wanted, min(processes, len(wanted))))

    def window(self, part: int, part_samples: int) -> Window:
        """One window, read in this process."""
        assert self.total is not None
        return _Reader(self.dataset, self.total, part_samples).window(part)

    def _processes(self, parts: int) -> int:
        """Two for a PyHealth dataset on disk, which are idle where attribution is the slower; none for others.

        What is in memory needs none, and of a dataset of the user's own nobody knows whether it can be forked.
        """
        cores = len(os.sched_getaffinity(0))
        return min(MOST_READERS, parts, cores) if cores > 1 and parts > 1 and _is_on_disk(self.dataset) else 0


class BatchSource:
    """Batches as they come.

    Args:
        batches: a `DataLoader`, or any iterable of what PyHealth's loader yields, or of processed samples, which
            a loader without a batch size and an iterable dataset give.
        model: the model they are for.
        limit: how many of the first samples to read; `None` for all.
    """

    def __init__(self, batches: Iterable[Mapping[str, Any]], model: Any, limit: int | None = None) -> None:
        self.total: int | None = None
        self.read_once = isinstance(batches, Iterator)
        self._batches = batches
        self._model = model
        self._limit = limit
        self._begun: Iterator[Mapping[str, Any]] | None = None
        self._first: list[Mapping[str, Any]] = []

    def identity(self) -> dict[str, Any]:
        """As :meth:`Source.identity`; reads the first batch.

        Raises:
            CohortError: if an iterator has no batches, or none left; if the first batch is none.
        """
        self._begin()
        if self.read_once and not self._first:
            raise CohortError(
                f"dataset is a {type(self._batches).__name__} with no batches left; an iterator can be read once: make "
                "it anew, from its first batch, for each run"
            )
        if self._first and not _is_sample(self._first[0], self._model):
            self._regular(self._first[0], 0)  # before anything is written
        return {
            "class": _class(self._batches),
            "length": None,
            **_schemas(None, self._model),
            "content": digest(self._first),
        }

    def looked_at(self) -> Sequence[Group]:
        """As :meth:`Source.looked_at`."""
        self._begin()
        if not self._first:
            return []
        if _is_sample(self._first[0], self._model):
            return window_of(self._first, 0, 0).groups
        size, batch = self._regular(self._first[0], 0)
        few = np.arange(min(size, LOOKED_AT))
        return [PaddedGroup(few, {key: taken(value, few) for key, value in batch.items()})]

    def windows(self, parts: Callable[[int], bool], part_samples: int, read_ahead: int | None) -> Iterator[Window]:
        """As :meth:`Source.windows`; what belongs to parts that are not wanted is read and dropped."""
        self._begin()
        one_by_one = bool(self._first) and _is_sample(self._first[0], self._model)
        windows = self._of_samples(part_samples) if one_by_one else windows_of(self._sized(), part_samples)
        return (window for window in windows if parts(window.part))

    def _of_samples(self, part_samples: int) -> Iterator[Window]:
        assert self._begun is not None
        first, self._first = self._first, []
        for part, samples in enumerate(batched(islice(chain(first, self._begun), self._limit), part_samples)):
            for sample in samples:
                if not isinstance(sample, Mapping):
                    raise CohortError(f"the dataset yields a {type(sample).__name__} among samples, which are dicts")
            yield window_of(samples, part, part * part_samples)

    def _begin(self) -> None:
        if self._begun is None:
            self._begun = self._readable()
            self._first = [batch for _, batch in zip(range(1), self._begun, strict=False)]

    def _readable(self) -> Iterator[Mapping[str, Any]]:
        """The batches, or an error that quotes none of them."""
        try:
            yield from self._batches
        except Exception as error:
            if isinstance(error, CohortError) or is_reader_death(error):
                raise
            raise CohortError(
                f"a batch of the dataset cannot be read ({type(error).__name__} at {_place(error)}); what is written "
                "is kept: put it right and run the same again to go on; reading it alone shows the error in full"
            ) from None  # whose message may hold a patient's values

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
    """The source of what a user gives.

    Args:
        dataset: a PyHealth `SampleDataset`, on disk or in memory; any other dataset with `len` and integer indices
            whose items are processed samples; a `DataLoader`; an iterable of batches.
        model: the model the samples are for.
        limit: how many of the first samples to read; `None` for all.

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


class _Reader(Dataset):
    """Windows by part number."""

    def __init__(self, dataset: Any, total: int, part_samples: int) -> None:
        self._dataset, self._total, self._part_samples = dataset, total, part_samples

    def __getitem__(self, part: int) -> Window | CohortError:
        """The window of a part, or what went wrong, as torch would add a traceback to an error that is raised."""
        try:
            return self.window(part)
        except CohortError as error:
            return error

    def window(self, part: int) -> Window:
        """The window of a part.

        Raises:
            CohortError: if a sample cannot be read.
        """
        begin = part * self._part_samples
        indices = range(begin, min(begin + self._part_samples, self._total))
        return window_of([sample_of(self._dataset, index) for index in indices], part, begin)


def _ahead(reader: _Reader, parts: Sequence[int], processes: int) -> Iterator[Window | CohortError]:
    with warnings.catch_warnings():
        # Python warns of forks beside threads, and torch of more processes than cores: the reading processes take no
        # lock that a thread of this one may hold, and the number of them is asked for.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        loader = DataLoader(
            reader,
            batch_size=None,
            sampler=parts,
            num_workers=processes,
            prefetch_factor=WINDOWS_AHEAD,
            collate_fn=_as_it_is,
            worker_init_fn=_behind,
            generator=torch.Generator(device="cpu"),  # a loader draws a seed, which must not be the user's
        )
        with torch.device("cpu"):  # whatever the default device, the seed is drawn there
            return iter(loader)


def _checked(windows: Iterator[Window | CohortError]) -> Iterator[Window]:
    """Windows of reading processes, whose errors are this process's errors."""
    try:
        for window in windows:
            if isinstance(window, CohortError):
                raise window
            yield window
    finally:
        del windows  # ends the processes, also where a traceback keeps this frame


def _as_it_is(window: Any) -> Any:
    return window


def _behind(worker: int) -> None:
    """A reading process takes what attribution leaves of the cores.

    PyTorch's threads wait for each other after every operation: where one has to share its core, all of them wait.
    """
    torch.set_num_threads(1)
    os.nice(19)


def unopened(dataset: Any) -> Any:
    """A dataset that shares no open file with the one given, so that a forked process may read from it.

    Forked processes share the position in an open file, and would read each other's bytes.
    """
    if not _is_on_disk(dataset):
        return dataset
    fresh = copy.copy(dataset)
    fresh.item_loader = copy.deepcopy(dataset.item_loader)
    fresh.reset()
    return fresh


def _is_on_disk(dataset: Any) -> bool:
    from litdata import StreamingDataset

    return isinstance(dataset, StreamingDataset) and "cache" in vars(dataset)


def sample_of(dataset: Any, index: int) -> Mapping[str, Any]:
    """One sample of a dataset.

    Raises:
        CohortError: if it cannot be read; the message quotes nothing of it.
    """
    try:
        sample = dataset[index]
    except Exception as error:
        raise CohortError(
            f"sample {index} of the dataset cannot be read ({type(error).__name__}); what is written is kept: put it "
            f"right and run the same again to go on; dataset[{index}] shows the error in full"
        ) from None  # whose message may hold a patient's values
    if not isinstance(sample, Mapping):
        raise CohortError(
            f"the dataset's items are {type(sample).__name__}s; accepted: processed samples, dicts by field"
        )
    return sample


def _place(error: BaseException) -> str:
    """File and line where an error was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def is_by_index(dataset: Any) -> bool:
    """Whether a dataset has a length and takes indices."""
    getitem = getattr(type(dataset), "__getitem__", None)
    return hasattr(dataset, "__len__") and getitem not in (None, getattr(Dataset, "__getitem__", None))


def _holds_batches(dataset: Any, model: Any) -> bool:
    """Whether a sequence holds batches rather than samples: identifiers or tensors have an entry per sample."""
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
    """Whether these are several identifiers rather than one."""
    return (
        not isinstance(identifiers, str | bytes)
        and getattr(identifiers, "shape", None) != ()
        and (isinstance(identifiers, Sequence) or hasattr(identifiers, "__array__"))
    )


def _has_more(value: Any, most: int) -> bool:
    """Whether a feature has more dimensions than a sample's: its tensor, or the first, the times, of a pair."""
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return value[0].dim() > 1
    return isinstance(value, Tensor) and value.dim() > most


def _is_sample(given: Any, model: Any) -> bool:
    """Whether what an iterable gives is a sample rather than a batch: it has one identifier, or a sample's tensors."""
    if not isinstance(given, Mapping) or _is_batch(given, model):
        return False
    known = ((given.get(key), _dimensions(each, -1)) for key, each in model.dataset.input_processors.items())
    return any(isinstance(given.get(name), str | int) for name in FIELDS) or any(
        isinstance(value, Tensor) and value.dim() == dimensions for value, dimensions in known
    )


def _dimensions(processor: Any, unknown: int) -> int:
    """Dimensions of one sample's tensor, or `unknown` where the processor does not tell."""
    try:
        return int(processor.dim()[0])
    except (AttributeError, NotImplementedError, TypeError, IndexError):
        return unknown


def _reads_in_order(loader: DataLoader) -> bool:
    """Whether a loader gives a PyHealth dataset's samples in its order, each once."""
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
    return spec if isinstance(spec, str) else _class(spec)


def _class(thing: Any) -> str:
    kind = thing if isinstance(thing, type) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"
