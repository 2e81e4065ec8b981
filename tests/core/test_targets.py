"""Which number of an output is explained, and what is refused."""

import numpy as np
import pytest
import torch

from deeplift_fast import attribute
from deeplift_fast.core import targets

OUTPUT = torch.tensor([[1.0, 5.0, 2.0], [7.0, 3.0, 4.0]])
DEEP = torch.arange(24.0).reshape(2, 3, 4)


def chosen(output, target):
    output = targets.reduce(output, target, output.shape[0])
    return targets.select(output, targets.indices(output, target))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, [5.0, 7.0]),
        (0, [1.0, 7.0]),
        (2, [2.0, 4.0]),
        (np.int64(1), [5.0, 3.0]),
        ((1,), [5.0, 3.0]),
        (torch.tensor([2, 0]), [2.0, 7.0]),
        (torch.tensor([[2], [0]]), [2.0, 7.0]),
        (torch.tensor([2, 0], dtype=torch.int32), [2.0, 7.0]),
        (torch.tensor([2, 0], dtype=torch.uint8), [2.0, 7.0]),
        (torch.tensor(1), [5.0, 3.0]),
        (-1, [2.0, 4.0]),
        (-3, [1.0, 7.0]),
        (torch.tensor([-1, 1]), [2.0, 3.0]),
        ([2, 0], [2.0, 7.0]),
        ([-2, np.int64(-1)], [5.0, 4.0]),
        ([(2,), (0,)], [2.0, 7.0]),
        (lambda output: output.sum(1), [8.0, 14.0]),
        (lambda output: output[:, 1:2], [5.0, 3.0]),
    ],
)
def test_one_class_dimension(target, expected):
    assert chosen(OUTPUT, target).tolist() == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ((0, 1), [1.0, 13.0]),
        ((np.int64(2), 3), [11.0, 23.0]),
        (torch.tensor([[0, 1], [2, 3]]), [1.0, 23.0]),
        ((-1, -4), [8.0, 20.0]),
        ([(0, 1), (2, -1)], [1.0, 23.0]),
        ([[0, 1], [2, 3]], [1.0, 23.0]),
        (lambda output: output[:, 0, 0], [0.0, 12.0]),
    ],
)
def test_two_class_dimensions(target, expected):
    assert chosen(DEEP, target).tolist() == expected


@pytest.mark.parametrize("target", [None, 0, -1, [0, -1], torch.tensor([0, 0]), lambda output: output])
def test_no_class_dimension(target):
    output = torch.tensor([3.0, 4.0])
    assert chosen(output, target).tolist() == [3.0, 4.0]


def test_a_single_logit_is_class_0():
    assert targets.indices(torch.ones(3, 1), None).tolist() == [[0], [0], [0]]


@pytest.mark.parametrize(
    ("output", "target", "error", "message"),
    [
        (OUTPUT, 3, ValueError, "outside the model's output of shape"),
        (OUTPUT, -4, ValueError, "outside"),
        (OUTPUT, torch.tensor([0, 3]), ValueError, "target is 3 for sample 1, outside"),
        (OUTPUT, torch.tensor([0, -4]), ValueError, "outside"),
        (OUTPUT, True, TypeError, "target is True; accepted: None, an int, a tuple"),
        (OUTPUT, 1.0, TypeError, "target is 1.0"),
        (OUTPUT, "logit", TypeError, "target is 'logit'"),
        (OUTPUT, [0, 1.5], TypeError, r"target\[1\] is 1.5; .* one int per sample"),
        (OUTPUT, [True, False], TypeError, "one int per sample"),
        (OUTPUT, [], TypeError, r"target is \[\]; .* one int per sample"),
        (DEEP, [(0, 1), (0,)], TypeError, "one tuple of ints per sample"),
        (OUTPUT, [0, 1, 2], ValueError, r"shape \(3,\); accepted: \(2,\)"),
        (OUTPUT, (), TypeError, "accepted"),
        (OUTPUT, (True,), TypeError, "accepted"),
        (OUTPUT, (0.0,), TypeError, "accepted"),
        (OUTPUT, torch.tensor([0.0, 1.0]), TypeError, "torch.float32; accepted: an integer tensor"),
        (OUTPUT, torch.tensor([True, False]), TypeError, "torch.bool"),
        (OUTPUT, torch.tensor([0, 1, 2]), ValueError, r"shape \(3,\); accepted: \(2,\)"),
        (OUTPUT, torch.zeros(1, 2, dtype=torch.int64), ValueError, "shape"),
        (OUTPUT, (0, 1), ValueError, r"2 index.* needs 1"),
        (DEEP, 1, ValueError, r"1 index.* needs 2"),
        (DEEP, torch.tensor([0, 1]), ValueError, "needs 2"),
        (DEEP, (0, 4), ValueError, r"target is \(0, 4\), outside"),
        (DEEP, [(0, 1), (3, 0)], ValueError, r"target is \(3, 0\) for sample 1, outside"),
        (DEEP, None, ValueError, "name a target"),
        (torch.ones(2), 1, ValueError, "outside"),
        (OUTPUT, lambda output: output, ValueError, r"target, a callable, returned shape \(2, 3\).*\(2,\)"),
        (OUTPUT, lambda output: output.sum(), ValueError, r"returned shape \(\)"),
        (OUTPUT, lambda output: 1.0, ValueError, "returned a float"),
        (OUTPUT, lambda output: output.argmax(1), TypeError, "torch.int64.*floating"),
        (OUTPUT.long(), 0, TypeError, "returned torch.int64; accepted: a floating-point tensor"),
        ({"loss": OUTPUT.sum(), "logits": OUTPUT}, 0, TypeError, r"a dict.*lambda output: output\['logits'\]\[:, 0\]$"),
        ((None, OUTPUT.long(), DEEP), 0, TypeError, r"a tuple;.*target=lambda output: output\[2\]\[:, 0, 0\]$"),
        ({"logit": OUTPUT[0]}, 0, TypeError, r"output\['logit'\]$"),
        ("logits", 0, TypeError, r"returned a str;.*callable target.*output\['logit'\]\[:, 0\]$"),
        (OUTPUT.sum(), None, ValueError, "first dimension must be the batch"),
        (OUTPUT.t(), 0, ValueError, r"shape \(3, 2\) for 2 samples"),
    ],
)
def test_refusals(output, target, error, message):
    with pytest.raises(error, match=message):
        attribute(lambda x: output, torch.ones(2, 3), target=target)


def test_a_callable_takes_the_logit_out_of_any_output():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found = attribute(lambda x: {"logit": [x * 2]}, x, target=lambda output: output["logit"][0][:, 1])
    assert found.contributions.tolist() == [[0.0, 4.0], [0.0, 8.0]]
    assert found.target is None


def test_the_target_is_reported():
    x = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    assert attribute(lambda x: x, x, target=-1).target.tolist() == [1, 1]
    assert attribute(lambda x: x, x, target=[0, -1]).target.tolist() == [0, 1]
    x = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    assert attribute(lambda x: x, x).target.tolist() == [1, 0]
    assert attribute(lambda x: x, x, target=1).target.tolist() == [1, 1]
    assert attribute(lambda x: x, x, target=1).target.dtype == torch.int64
    assert attribute(lambda x: x.unsqueeze(1), x, target=(0, 1)).target.tolist() == [[0, 1], [0, 1]]
    assert attribute(lambda x: x.sum(1), x).target is None


def test_the_largest_class_is_that_at_the_input_not_at_the_baseline():
    x, x0 = torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 0.0]])
    found = attribute(lambda x: x, x, x0)
    assert found.target.tolist() == [1]
    assert (found.output.item(), found.baseline_output.item()) == (1.0, 0.0)


def test_a_target_made_in_inference_mode():
    with torch.inference_mode():
        target = torch.tensor([1, 0])
    found = attribute(torch.nn.ReLU(), torch.tensor([[1.0, 2.0], [4.0, 3.0]]), target=target)
    assert found.contributions.tolist() == [[0.0, 2.0], [4.0, 0.0]]


@pytest.mark.parametrize("given", [1, torch.tensor(1), np.int64(1)])
def test_a_class_may_be_an_int_of_another_library(given):
    found = targets.class_target(torch.nn.Linear(2, 2), given)
    assert found == 1
    assert type(found) is int


class Classifier(torch.nn.Module):
    """As PyHealth's models say how many logits they have."""

    class dataset:
        output_processors = ()

    def __init__(self, size):
        super().__init__()
        self.size = size

    def get_output_size(self):
        return self.size


@pytest.mark.parametrize(
    ("size", "given", "expected"), [(3, -1, 2), (3, -3, 0), (3, 1, 1), (1, -1, 0), (1, -2, 0), (1, 1, 0)]
)
def test_classes_are_counted_from_the_end_too(size, given, expected):
    assert targets.class_target(Classifier(size), given) == expected


@pytest.mark.parametrize(("size", "given"), [(3, 3), (3, -4), (1, 2), (1, -3)])
def test_a_class_that_is_not_there_is_refused(size, given):
    with pytest.raises(ValueError, match=f"target_class_idx is {given}; accepted: -"):
        targets.class_target(Classifier(size), given)
