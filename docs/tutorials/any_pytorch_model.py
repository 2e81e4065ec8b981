# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Any PyTorch model, for users of Captum and SHAP
#
# deeplift_fast explains any module. This tutorial needs `pip install deeplift_fast` alone, and runs in
# seconds. You see `attribute`, Captum's classes with the same arguments, and a background as in SHAP.

# %%
import torch
from torch import nn

from deeplift_fast import attribute

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(6, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)
).eval()
x, x0 = torch.randn(4, 6), torch.zeros(1, 6)

# %% [markdown]
# ## `attribute`
#
# `x0` is the baseline, one row for all samples. `target` is the class. `rules="complete"` has an exact
# multiplier for every operation, so that the contributions of a sample sum to
# `output − baseline_output`.

# %%
found = attribute(model, x, x0, target=1, rules="complete")
print(found.contributions)
print("sums      ", found.contributions.sum(1))
print("difference", found.output - found.baseline_output)

# %% [markdown]
# That sum holds without any scaling afterwards: every operation has a rule. Captum's DeepLift has
# rules for some activations only. Here GELU and layer norm get their gradients there, and the sum
# misses the difference. `report` names the rule of each operation.

# %%
print(found.report)

# %% [markdown]
# ## Captum's classes
#
# Change the import, and keep the call.

# %%
from deeplift_fast.captum import DeepLift  # was: from captum.attr import DeepLift

contributions, delta = DeepLift(model).attribute(x, x0, target=1, return_convergence_delta=True)
print("convergence delta", delta)

# %% [markdown]
# ## A background, as in SHAP
#
# `DeepLiftShap` takes a distribution of baselines and gives the mean of the contributions. These are
# approximate SHAP values.

# %%
from deeplift_fast.captum import DeepLiftShap

background = torch.randn(20, 6)
values = DeepLiftShap(model).attribute(x, background, target=1)
expected = model(background)[:, 1].mean()
print("sum of values         ", values.sum(1))
print("output − mean output  ", (model(x)[:, 1] - expected).detach())

# %% [markdown]
# ## Two players, checked
#
# Shapley values average over all orders in which the inputs change from baseline to input. For two
# inputs they are easy to compute. The rule of a product gives the same numbers. In larger models,
# contributions at one step and Shapley values differ.

# %%
product = lambda v: v[:, :1] * torch.sigmoid(v[:, 1:])
a, b, a0, b0 = 2.0, 1.0, 0.0, -1.0
f = lambda p, q: float(product(torch.tensor([[p, q]])))
shapley = (f(a, b0) - f(a0, b0) + f(a, b) - f(a0, b)) / 2
ours = attribute(product, torch.tensor([[a, b]]), torch.tensor([[a0, b0]]), target=0, rules="complete").contributions
print(f"first input: Shapley {shapley:.4f}, deeplift_fast {float(ours[0, 0]):.4f}")

# %% [markdown]
# ## What has no rule
#
# Sorting and masks that depend on the data get gradients under every rule set. The convergence delta
# then differs from 0, a warning says so, and the report names the operation.

# %%
import warnings


class Sorted(nn.Module):
    def forward(self, v):
        return (v.sort(1).values * torch.arange(6.0)).sum(1, keepdim=True)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = attribute(Sorted(), x, torch.linspace(1, -1, 6), target=0, rules="complete")
print(*(warning.message for warning in caught), sep="\n")
print(found.report)

# %% [markdown]
# Next: [a model of the library transformers](../how-to/transformers.md), [rule sets](../rules.md),
# [a rule of your own](../rules.md#a-rule-of-your-own).
