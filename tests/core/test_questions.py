"""Questions to numbers: answered at once, or later in one read-back."""

import pytest
import torch

from deeplift_fast.core.baselines import require_finite
from deeplift_fast.core.questions import NOW, Later, wanted


@pytest.mark.parametrize("kind", [lambda: NOW, Later])
def test_answers_come_in_order_and_as_they_were(kind):
    questions, found = kind(), []
    questions.ask([torch.tensor([True, False]), torch.tensor(3)], lambda numbers: found.append(numbers))
    questions.bring([torch.tensor([1.5]), torch.tensor([7])], lambda tensors: found.extend(tensors))
    questions.total(torch.tensor([2.0, 3.0]), lambda total: found.append(total))
    questions.fetch()
    assert found == [[1.0, 0.0, 3.0], torch.tensor([1.5]), torch.tensor([7]), 5.0]
    assert found[2].dtype == torch.int64


def test_one_sum_answers_for_all_tensors_of_a_dtype():
    later = Later()
    for dtype in (torch.float32, torch.float64, torch.float32):
        later.total(torch.ones(3, dtype=dtype), lambda total: None)
    later.ask([torch.ones(2)], lambda numbers: None)
    assert [each.tolist() for each in wanted(later.open)] == [6.0, 3.0, [1.0, 1.0]]


def test_the_tensor_that_is_not_finite_is_named():
    later = Later()
    require_finite("first", torch.ones(3), later)
    require_finite("second", torch.tensor([1.0, torch.inf]), later)
    with pytest.raises(ValueError, match=r"^second holds 1 value"):
        later.fetch()


def test_a_sum_that_overflows_is_no_error():
    later = Later()
    for questions in (NOW, later):
        require_finite("values", torch.full((2,), 1.7e308, dtype=torch.float64), questions)
    later.fetch()
