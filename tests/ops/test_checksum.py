"""The checksum of memory, which tells whether a weight has changed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplift_fast import ops
from deeplift_fast.ops.registry import checksum

pytestmark = pytest.mark.skipif(ops.backend_for("secant", "cpu") != "C++", reason="the C++ library is missing")

SIZES = st.integers(1, 700)  # numbers: a block has 128


def numbers(size, seed=0):
    return torch.randint(-(2**31), 2**31, (size,), dtype=torch.int32, generator=torch.Generator().manual_seed(seed))


@given(SIZES, st.data())
def test_each_bit_of_each_number_counts(size, data):
    values = numbers(size)
    before = checksum(values)
    place, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 31))
    values.view(torch.uint8)[4 * place + bit // 8] ^= 1 << bit % 8
    assert checksum(values) != before


@given(SIZES, st.data())
def test_places_count(size, data):
    values = numbers(size)
    before = checksum(values)
    first, second = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    if values[first] != values[second]:
        values[[first, second]] = values[[second, first]]
        assert checksum(values) != before


@given(SIZES, st.integers(0, 3), st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.uint8]))
def test_only_the_memory_counts_wherever_it_lies(size, offset, dtype):
    memory = numbers(2 * size + 8).view(dtype)
    values = memory[offset : offset + size]
    assert checksum(values) == checksum(values.clone()) == checksum(memory[offset : offset + size])
    assert checksum(values) != checksum(torch.cat([values, values.new_zeros(1)]))


def test_zero_and_minus_zero_differ_and_nan_equals_itself():
    assert checksum(torch.tensor([0.0])) != checksum(torch.tensor([-0.0]))
    assert checksum(torch.tensor([torch.nan])) == checksum(torch.tensor([torch.nan]))


def test_rows_that_are_not_next_to_each_other():
    values = numbers(600).view(20, 30)
    assert checksum(values[:, ::2]) == checksum(values[:, ::2].clone())
    assert checksum(values.T) == checksum(values.T.contiguous()) != checksum(values)


@pytest.mark.parametrize("change", [torch.neg, lambda w: 2 * w, lambda w: w / 2, lambda w: w.roll(128, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("columns", [1, 256])
def test_changes_of_only_the_highest_bits_count(change, dtype, columns):
    weight = torch.ones(256, 256, dtype=dtype)
    weight[:, 128:] = -2
    before = checksum(weight)
    weight[:, :columns] = change(weight)[:, :columns]
    assert checksum(weight) != before


class Wrapper(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return args[0]


def test_a_tensor_without_memory_has_none():
    freed = torch.ones(300)
    freed.untyped_storage().resize_(0)
    for each in (freed, torch.empty(3, device="meta"), Wrapper(torch.ones(300)), torch.ones(2, 2).to_sparse()):
        assert checksum(each) is None
    found = []
    torch.func.vmap(lambda row: found.append(checksum(row)) or row)(torch.ones(2, 3))
    assert found == [None]


def test_nothing():
    assert checksum(torch.empty(0)) == checksum(torch.empty(0)) != checksum(torch.zeros(1))


def test_parameters_are_taken():
    weight = torch.nn.Parameter(torch.ones(3))
    assert checksum(weight) == checksum(weight.detach())
    with torch.inference_mode():
        assert checksum(torch.ones(3)) == checksum(weight)
