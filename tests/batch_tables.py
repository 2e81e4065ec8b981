"""The tables of one batch, made as a part of a cohort is."""

import numpy as np

from deeplift_fast.cohort.identifiers import of_batch
from deeplift_fast.cohort.part_tables import Texts, columns_of, part_tables
from deeplift_fast.core.attribution import Attribution


def batch_tables(model, batch, found: Attribution, first_sample=0, probability=None, dimensions=None):
    """`samples` and `attributions` of a batch whose samples are numbered from `first_sample` on."""
    size = len(found.output)
    texts = Texts(model, dimensions)
    columns = columns_of(texts, batch, found, first_sample + np.arange(size), probability)
    return part_tables([columns], first_sample, of_batch(batch, size), model.feature_keys, texts)
