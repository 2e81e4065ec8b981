"""Identifiers out of a cache: a sequence of texts, and an Arrow column without a detour."""

import pyarrow as pa

from deeplift_fast.cohort.cache.objects import Texts


def test_they_are_a_sequence_of_texts_and_none():
    texts = Texts(pa.array(["a", None, "b", "c"]).slice(1))
    assert (len(texts), list(texts), texts[0], texts[-1], texts[1:]) == (3, [None, "b", "c"], None, "c", ["b", "c"])


def test_they_are_an_arrow_column():
    column = pa.array(["a", None, "b"])
    assert pa.array(Texts(column), pa.string()).equals(column)
    assert pa.array(Texts(pa.nulls(2, pa.string())), pa.string()).null_count == 2
