"""Options of an attribution."""

import numpy as np

from deeplift_fast.core.options import Options


def test_integers_of_numpy_become_plain():
    options = Options("complete", np.int64(3), segments_at_once=np.int32(2))
    assert options == Options("complete", 3, segments_at_once=2)
    assert [type(each) for each in (options.steps, options.segments_at_once)] == [int, int]
