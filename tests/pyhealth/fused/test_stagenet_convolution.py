"""The convolution of short samples' windows: as one over all places, with less arithmetic."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from deeplift_fast.pyhealth.fused.stagenet_convolution import FEW, Convolution, in_parts


def windows(lengths, window, size=3, out=4):
    """Steps' values in both streams, 0 where there is no step; which are; weight and bias."""
    generator = torch.Generator().manual_seed(0)
    real = torch.arange(window) >= window - torch.tensor(lengths)[:, None]
    local = torch.randn(2, len(lengths), window, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(out, window * size, generator=generator, dtype=torch.float64)
    bias = torch.randn(out, generator=generator, dtype=torch.float64)
    return local * real[None, :, :, None], real, weight, bias


def assert_is_a_convolution_of_all(local, real, weight, bias):
    found, back = in_parts(local, real, weight, bias)
    expected = local.flatten(2) @ weight.T + bias
    torch.testing.assert_close(torch.stack([found.x, found.x0]), expected)
    m = torch.randn(expected.shape[1:], dtype=torch.float64)
    multipliers = back(m)
    there = real.unsqueeze(-1)
    torch.testing.assert_close(multipliers * there, (m @ weight).view_as(multipliers) * there)


@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=40), window=st.integers(1, 5), ordered=st.booleans())
def test_any_lengths_in_any_order(lengths, window, ordered):
    lengths = sorted(lengths, reverse=True) if ordered else lengths
    assert_is_a_convolution_of_all(*windows(lengths, window))


def test_steps_with_gaps():
    local, _, weight, bias = windows([3] * 9, 3)
    real = torch.rand(9, 3) < 0.5
    assert_is_a_convolution_of_all(local * real[None, :, :, None], real, weight, bias)


@pytest.mark.parametrize(("lengths", "rows"), [([9] * 16, [32]), ([9] * 8 + [1] * 8, [8, 8, 32]), ([0] * 4, [])])
def test_no_product_of_samples_without_a_step(lengths, rows, monkeypatch):
    local, real, weight, bias = windows(lengths, 4)
    seen = []
    addmm_, function = torch.Tensor.addmm_, torch.nn.functional.linear

    def counted(out, a, b):
        seen.append(len(a))
        return addmm_(out, a, b)

    def counted_whole(x, *args):
        seen.append(len(x))
        return function(x, *args)

    monkeypatch.setattr(torch.Tensor, "addmm_", counted)
    monkeypatch.setattr(torch.nn.functional, "linear", counted_whole)
    in_parts(local, real, weight, bias)
    assert seen == rows


def layer_for(window, size=3, out=4, bias=True):
    torch.manual_seed(0)
    return nn.Conv1d(size, out, window, bias=bias, dtype=torch.float64).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("samples", [1, 2, FEW, FEW + 1, 17])
def test_it_is_the_layer_for_any_number_of_samples(samples, static, bias):
    layer = layer_for(5, bias=bias)
    local, real, _, _ = windows([i % 7 for i in range(samples)], 5)
    found, back = Convolution(layer).run(local, real, static)
    expected = layer(local.flatten(0, 1).mT).squeeze(-1)
    torch.testing.assert_close(torch.cat([found.x, found.x0]), expected)
    m = torch.randn(samples, 4, dtype=torch.float64)
    there = real.unsqueeze(-1)
    multipliers = torch.einsum("so,oiw->swi", m, layer.weight)
    torch.testing.assert_close(back(m) * there, multipliers * there)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("samples", [1, FEW + 1])
@pytest.mark.parametrize("change", [lambda weight: weight.mul_(2), lambda weight: weight[0, 0].neg_()])
def test_a_change_that_pytorch_does_not_count_is_noticed(samples, static, change):
    layer = layer_for(5)
    local, real, _, _ = windows([9] * samples, 5)
    convolution = Convolution(layer)
    before, _ = convolution.run(local, real, static)
    change(layer.weight.data)
    after, _ = convolution.run(local, real, static)
    torch.testing.assert_close(torch.cat([after.x, after.x0]), layer(local.flatten(0, 1).mT).squeeze(-1))
    assert not torch.equal(before.x, after.x)
