"""Every sample has the contributions that are its own, wherever the batch stands in the tensors of a layer."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from deeplift_fast.captum import LayerDeepLift, LayerDeepLiftShap

pytestmark = pytest.mark.filterwarnings("error")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(kind, *args):
    torch.manual_seed(1)
    return kind(*args).double().eval()


def complete(model, layer, inputs, baselines):
    """The attributions of a layer that is a cut; they sum to the model's difference."""
    found, delta = LayerDeepLift(model, layer).attribute(inputs, baselines, 1, return_convergence_delta=True)
    assert delta.abs().max() < 1e-12
    return found


class Sequences(nn.Module):
    """A recurrent layer of two directions, batch first or steps first, read through its output and both states."""

    def __init__(self, batch_first):
        super().__init__()
        self.lstm, self.last = nn.LSTM(3, 4, bidirectional=True, batch_first=batch_first), nn.Linear(16, 2)

    def forward(self, x):
        out, (h, c) = self.lstm(x if self.lstm.batch_first else x.transpose(0, 1))
        out = out if self.lstm.batch_first else out.transpose(0, 1)
        return self.last(torch.cat([out.mean(1), h[-1] * c[0], h[0]], 1))


class Folded(nn.Module):
    """A linear layer over the steps of all samples, in the order of samples or of steps."""

    def __init__(self, steps_first):
        super().__init__()
        self.linear, self.last, self.steps_first = nn.Linear(3, 3), nn.Linear(3, 2), steps_first

    def forward(self, x):
        x = x.transpose(0, 1) if self.steps_first else x
        y = self.linear(x.reshape(-1, 3)).view(x.shape)
        return self.last(torch.tanh(y).mean(0 if self.steps_first else 1))


class TestShapes:
    """Every sample has the convergence delta and the mean that are its own, wherever the batch stands in a tensor."""

    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("batch", [1, 2, 5])
    def test_tuples(self, batch_first, batch):
        model, x = built(Sequences, batch_first), normal(batch, 5, 3)
        out, (h, c) = complete(model, model.lstm, x, None)
        shapes = [tuple(each.shape) for each in model.lstm(x if batch_first else x.transpose(0, 1))[1]]
        assert [tuple(h.shape), tuple(c.shape)] == shapes
        assert out.shape == ((batch, 5, 8) if batch_first else (5, batch, 8))
        difference = (model(x) - model(0 * x))[:, 1].detach()
        total = out.sum((1, 2) if batch_first else (0, 2)) + (h + c).sum((0, 2))
        torch.testing.assert_close(total, difference)

    @pytest.mark.parametrize("steps_first", [False, True])
    @pytest.mark.parametrize(("batch", "steps"), [(3, 2), (2, 4), (3, 3), (1, 4)])
    def test_rows_of_steps(self, steps_first, batch, steps):
        model, x, x0 = built(Folded, steps_first), normal(batch, steps, 3), normal(2, steps, 3, seed=1)
        found = complete(model, "linear", x, x0[0])
        assert found.shape == (batch * steps, 3)
        mean, deltas = LayerDeepLiftShap(model, "linear", rows=3).attribute(x, x0, 1, return_convergence_delta=True)
        assert deltas.abs().max() < 1e-12
        torch.testing.assert_close(mean, (found + complete(model, "linear", x, x0[1])) / 2)
        segments = LayerDeepLift(model, "linear", steps=4, segments_at_once=3)
        assert segments.attribute(x, x0[0], 1, return_convergence_delta=True)[1].abs().max() < 1e-12

    def test_an_empty_batch(self):
        model = built(Folded, False)
        for explainer, baselines in ((LayerDeepLift, None), (LayerDeepLiftShap, normal(2, 4, 3))):
            found, delta = explainer(model, model.last).attribute(
                normal(0, 4, 3), baselines, 1, return_convergence_delta=True
            )
            assert (found.shape, delta.shape) == ((0, 2), (0,))

    def test_infinite_masks_have_no_contributions(self):
        class Attention(nn.Module):
            def forward(self, x, mask):
                return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

        class Causal(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = Attention()

            def forward(self, x):
                mask = torch.full((x.shape[1], x.shape[1]), -torch.inf, dtype=x.dtype).triu(1)
                return self.attention(torch.tanh(x), mask).sum(1)

        found, delta = LayerDeepLift(Causal(), "attention").attribute(
            normal(2, 3, 4), None, 1, None, True, attribute_to_layer_input=True
        )
        assert found.shape == (2, 3, 4)
        assert delta.abs().max() < 1e-12

    def test_structures_stay(self):
        class Named(nn.Module):
            def forward(self, x):
                return {"twice": 2 * x, "nothing": None, "sum": x.sum(1), "size": torch.tensor(len(x))}

        class Product(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = Named()

            def forward(self, x):
                found = self.inner(x)
                return found["twice"].sum(1) * found["sum"]

        found = LayerDeepLift(Product(), "inner").attribute(normal(3, 2))
        assert list(found) == ["twice", "nothing", "sum", "size"]
        assert found["nothing"] is found["size"] is None
        torch.testing.assert_close(found["twice"].sum(1) + found["sum"], 2 * normal(3, 2).sum(1) ** 2)

    def test_packed_sequences(self):
        """The rows of several samples are mixed in the packed values; those of one sample are its steps."""

        class Packed(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

            def forward(self, x):
                packed = pack_padded_sequence(x, torch.arange(len(x)) + 4, batch_first=True, enforce_sorted=False)
                out, _ = self.lstm(packed)
                return self.last(pad_packed_sequence(out, batch_first=True)[0].mean(1))

        model = built(Packed)
        out, _ = complete(model, "lstm", normal(1, 4, 3), 0.0)
        steps, lengths = pad_packed_sequence(out, batch_first=True)
        assert steps.shape == (1, 4, 4)
        assert lengths.tolist() == [4]
        with pytest.raises(ValueError, match=r"shape \(9, 4\), in which the 2 samples have no .* one sample at a time"):
            LayerDeepLift(model, "lstm").attribute(normal(2, 5, 3), target=0)

    def test_samples_without_a_dimension(self):
        class Summed(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Identity()

            def forward(self, x):
                return x + self.inner(x.sum())

        with pytest.raises(ValueError, match=r"shape \(\), in which the 3 samples have no dimension"):
            LayerDeepLift(Summed(), "inner").attribute(normal(3, 2), target=0)

    def test_shapes_that_differ(self):
        class Chosen(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Tanh()

            def forward(self, x):
                return self.inner(x[:, : int(x.detach().abs().sum() > 0) + 1]).sum(1, keepdim=True)

        with pytest.raises(ValueError, match=r"shape \(3, 2\) at the input and \(3, 1\) at the baseline"):
            LayerDeepLift(Chosen(), "inner").attribute(normal(3, 2))
