"""The quotient rule in whole models: contributions against zero baselines keep their size, and sum to the change."""

import warnings

import pytest
import torch
from torch import nn

from deeplift_fast import attribute


def test_layer_norm_of_a_sum_is_near_its_shapley_values():
    torch.manual_seed(0)
    norm = nn.LayerNorm(8).double()
    w = torch.randn(8, dtype=torch.float64)
    a, b = torch.randn(1, 8, dtype=torch.float64), torch.randn(1, 8, dtype=torch.float64)
    found = attribute(lambda a, b: norm(a + b) @ w, (a, b), rules="complete")
    sums = [float(each.sum()) for each in found.contributions]
    assert sums == pytest.approx([-0.9363, -0.7040], abs=5e-5)
    assert sums == pytest.approx([-0.9625, -0.6779], abs=0.03)  # with halves of rsqrt(eps): −35.4 and 33.8


class HandWritten(nn.Module):
    """RMS norm as models write it."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Block(nn.Module):
    def __init__(self, norm, width=16):
        super().__init__()
        self.norm = norm(width)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x):
        return x + self.inner(self.norm(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("norm", [nn.LayerNorm, HandWritten])
@pytest.mark.parametrize("blocks", range(1, 13))
def test_contributions_of_deep_residual_models_do_not_cancel(blocks, norm, dtype):
    torch.manual_seed(blocks)
    model = nn.Sequential(*(Block(norm) for _ in range(blocks)), nn.Linear(16, 1)).to(dtype)
    found = attribute(model, torch.randn(64, 16, dtype=torch.float64).to(dtype), rules="complete")
    change = (found.output.double() - found.baseline_output.double()).abs()
    size = found.contributions.double().abs().sum(1)
    missed = found.convergence_delta.double().abs()
    assert (size / change).median() < 15
    assert (missed / change).median() < 1e-6
    assert (missed / size).max() < 1e-6


def _models():
    """A small one of each of the Transformers library's families, and whether it rounds to float32 inside."""
    import transformers as t  # takes seconds

    small = {
        "vocab_size": 20,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    grouped = {"num_key_value_heads": 1, "head_dim": 8}
    return {
        "BERT": (lambda: t.BertModel(t.BertConfig(**small)), False),
        "GPT-2": (lambda: t.GPT2Model(t.GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, **ids)), False),
        "Llama": (lambda: t.LlamaModel(t.LlamaConfig(**small, **grouped)), True),
        "T5": (
            lambda: t.T5EncoderModel(t.T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)),
            True,
        ),
        "Gemma": (lambda: t.GemmaModel(t.GemmaConfig(**small, **grouped)), True),
        "Mamba": (
            lambda: t.MambaModel(t.MambaConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, state_size=4)),
            True,
        ),
    }


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Llama", "T5", "Gemma", "Mamba"])
def test_transformers_are_complete(name):
    make, rounds = _models()[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make().double().eval()
    w, x = torch.randn(16, dtype=torch.float64), torch.randn(4, 6, 16, dtype=torch.float64)
    found = attribute(
        lambda inputs_embeds: model(inputs_embeds=inputs_embeds).last_hidden_state.mean(1) @ w,
        x,
        rules="complete",
        modules=(model,),
    )
    change = (found.output - found.baseline_output).abs()
    assert (found.convergence_delta.abs() <= (1e-5 if rounds else 1e-10) * change).all(), found.report
    assert (found.contributions.abs().sum((1, 2)) / change).median() < 100
    assert any(row.rule == "quotient" for row in found.report)
    assert all("gradient" not in row.rule for row in found.report)
