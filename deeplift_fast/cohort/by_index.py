"""The samples that a cohort's baseline is fitted on."""

from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader

from deeplift_fast.cohort.reading import DatasetSource, Source, is_by_index, sample_of
from deeplift_fast.errors import CohortError


class ByIndex:
    """The samples of a dataset, with errors that quote none of them.

    Args:
        dataset: anything with `len` and integer indices.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return sample_of(self.dataset, index)


def by_index(source: Source, dataset: Any) -> ByIndex:
    """The samples that a baseline can be fitted on.

    Args:
        source: the cohort's.
        dataset: what its user gave.

    Raises:
        CohortError: where samples come batch by batch, and no dataset is known that holds them.
    """
    if isinstance(source, DatasetSource):
        return ByIndex(source.dataset)
    if isinstance(dataset, DataLoader) and is_by_index(dataset.dataset):
        return ByIndex(dataset.dataset)
    raise CohortError(
        f"baseline is 'typical', which is fitted on samples by index, and dataset is a {type(dataset).__name__}, which "
        "gives batches; give deeplift_fast.baselines.typical(…), with the dataset that the model was trained on"
    )
