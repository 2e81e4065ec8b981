"""Samples of a dataset by index, read in this process or ahead in other processes.

Reading processes send their samples as plain arrays through a pipe: shared memory is often small in containers.
"""

import copy
import os
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from deeplift_fast.cohort.samples import Stretch, stretch_of
from deeplift_fast.errors import CohortError, is_reader_death

STRETCHES_AHEAD = 2
"""Stretches that each reading process may hold ready."""


class Reader(Dataset):
    """The stretches of a dataset by part number.

    Args:
        dataset: samples by index.
        total: number of samples to read.
        part_samples: samples per part.
    """

    def __init__(self, dataset: Any, total: int, part_samples: int) -> None:
        self._dataset, self._total, self._part_samples = dataset, total, part_samples

    def __getitem__(self, part: int) -> Stretch | CohortError:
        """The stretch of a part, or the error: torch would add a traceback to a raised one."""
        try:
            return self.stretch(part)
        except CohortError as error:
            return error

    def stretch(self, part: int) -> Stretch:
        """The stretch of a part.

        Raises:
            CohortError: if a sample cannot be read.
        """
        begin = part * self._part_samples
        indices = range(begin, min(begin + self._part_samples, self._total))
        return stretch_of([sample_of(self._dataset, index) for index in indices], part, begin)


def read_ahead(reader: Reader, parts: Sequence[int], processes: int) -> Generator[Stretch]:
    """The stretches of some parts, in order, read by other processes, which end when the generator is closed.

    Their errors are raised here.
    """
    with warnings.catch_warnings():
        # Python warns of forks beside threads. The reading processes take no lock that a thread here may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Torch warns of more processes than cores. The caller chose their number.
        warnings.simplefilter("ignore", UserWarning)
        loader = DataLoader(
            reader,
            batch_size=None,
            sampler=parts,
            num_workers=processes,
            prefetch_factor=STRETCHES_AHEAD,
            collate_fn=_unchanged,
            worker_init_fn=_yield_cores,
            generator=torch.Generator(device="cpu"),  # a loader draws a seed, which must not be the user's
        )
        with torch.device("cpu"):  # the seed is drawn there, whatever the default device
            return _raising(iter(loader))


def _raising(stretches: Iterator[Stretch | CohortError]) -> Generator[Stretch]:
    try:
        for stretch in stretches:
            if isinstance(stretch, CohortError):
                raise stretch
            yield stretch
    finally:
        _end(stretches)


def _end(stretches: Any) -> None:
    """Ends the processes of a loader's iterator at once.

    Torch ends them when the iterator is freed, which a traceback delays. Until then torch's signal handler raises the
    death of a process at any line: a SIGTERM to all processes reaches a busy one late.
    """
    try:
        stretches._shutdown_workers()
    except RuntimeError as error:
        if not is_reader_death(error):
            raise


def _unchanged(stretch: Any) -> Any:
    return stretch


def _yield_cores(worker: int) -> None:
    """Leaves the cores to attribution: PyTorch's threads all wait for one that shares its core."""
    torch.set_num_threads(1)
    os.nice(19)


def unopened(dataset: Any) -> Any:
    """A copy of a dataset without open files: forked processes would share the position in them."""
    if not is_on_disk(dataset):
        return dataset
    fresh = copy.copy(dataset)
    fresh.item_loader = copy.deepcopy(dataset.item_loader)
    fresh.reset()
    return fresh


def is_on_disk(dataset: Any) -> bool:
    """Whether a dataset reads its samples from files, as PyHealth's does unless it is made in memory."""
    from litdata import StreamingDataset

    return isinstance(dataset, StreamingDataset) and "cache" in vars(dataset)


def is_by_index(dataset: Any) -> bool:
    """Whether a dataset has a length and takes indices."""
    getitem = getattr(type(dataset), "__getitem__", None)
    return hasattr(dataset, "__len__") and getitem not in (None, getattr(Dataset, "__getitem__", None))


def sample_of(dataset: Any, index: int) -> Mapping[str, Any]:
    """One sample of a dataset.

    Raises:
        CohortError: if it cannot be read; the message quotes no value of the sample.
    """
    try:
        sample = dataset[index]
    except Exception as error:
        raise CohortError(
            f"sample {index} of the dataset cannot be read ({type(error).__name__}); finished parts are kept: correct "
            f"the cause and run the same again to continue; dataset[{index}] shows the error in full"
        ) from None  # its message may hold a patient's values
    if not isinstance(sample, Mapping):
        raise CohortError(
            f"the dataset's items are {type(sample).__name__}s; accepted: processed samples, dicts by field"
        )
    return sample
