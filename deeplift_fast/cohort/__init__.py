"""Attributions of many samples: turned into tables, written as they come."""

from deeplift_fast.cohort.tables import (
    ATTRIBUTIONS,
    SAMPLES,
    CohortWriter,
    attributions_table,
    samples_table,
)

__all__ = ["ATTRIBUTIONS", "SAMPLES", "CohortWriter", "attributions_table", "samples_table"]
