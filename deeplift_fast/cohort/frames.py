"""One batch's contributions as a data frame, with the columns of the cohort's table `attributions`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from deeplift_fast.cohort.identifiers import of_batch
from deeplift_fast.cohort.metadata_columns import metadata_of_batch
from deeplift_fast.cohort.part_tables import Texts, columns_of, part_tables
from deeplift_fast.core.result import Attribution


def frame(
    found: Attribution,
    model: Any,
    batch: Mapping[str, Any],
    dimensions: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """The rows of a batch.

    Args:
        found: the attribution of the batch.
        model: the PyHealth model explained.
        batch: the batch explained, on the model's device.
        dimensions: by feature key, the names of a continuous feature's dimensions.

    Returns:
        The columns of `attributions`; texts are objects, and `sample` is the place in the batch.

    Raises:
        ValueError: if the batch does not fit the model or the contributions, or its metadata
            (:mod:`deeplift_fast.cohort.metadata`) do not fit it.

    Example:
        >>> from deeplift_fast import DeepLift
        >>> from deeplift_fast.cohort import frame
        >>> found = DeepLift(model, rules="complete").explain(**batch)
        >>> frame(found, model, batch)[["sample", "feature", "code"]].head(1).values.tolist()
        [[0, 'codes', 'I10']]
    """
    size = len(found.output)
    if found.baseline_output.dim() > 1:
        found = replace(
            found,
            baseline_output=found.baseline_output.mean(0),
            convergence_delta=found.convergence_delta.mean(0),
        )
    metadata = metadata_of_batch(batch, size, model)
    for place, fault in sorted(metadata.group.faults.items()):
        raise ValueError(f"sample {place} of the batch: {fault}")
    texts = Texts(model, dimensions)
    rows = columns_of(texts, batch, found, np.arange(size), None, metadata)
    _, attributions = part_tables([rows], 0, of_batch(batch, size), list(model.feature_keys), texts)
    table: pd.DataFrame = attributions.to_pandas()
    texts_of = ["patient_id", "visit_id", "feature", "code", "stay", "measured"]
    return table.astype(dict.fromkeys(texts_of, object))
