"""The explained class: against each sample written out."""

import math

import pytest
import torch

from deeplift_fast import ops
from deeplift_fast.ops import NAMESPACE

LOGITS = torch.tensor([[[1.0, 3.0, 3.0], [math.nan, 2.0, math.nan], [-math.inf] * 3], [[1.0, 2.0, 3.0]] * 3])


@pytest.mark.parametrize(("chosen", "expected"), [(-1, [1, 0, 0]), (2, [2, 2, 2])])
def test_every_sample_written_out(chosen, expected):
    weight = torch.randn(2, 3, 4)
    classes, ends, seeds = ops.target(LOGITS, weight, chosen)
    assert classes.tolist() == expected
    for i, kind in enumerate(expected):
        torch.testing.assert_close(ends[:, i], LOGITS[:, i, kind], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(seeds[:, i], weight[:, kind])


@pytest.mark.parametrize("chosen", [-2, 3])
def test_other_classes_are_refused(chosen):
    with pytest.raises(ValueError, match=f"chosen is {chosen}; accepted: -1 to 2"):
        ops.target(LOGITS, torch.ones(1, 3, 4), chosen)


def test_registered_as_pytorch_expects():
    torch.library.opcheck(getattr(torch.ops, NAMESPACE).target, (torch.randn(2, 3, 4), torch.ones(2, 4, 5), -1))
