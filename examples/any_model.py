"""Attribution of a PyTorch module: the contributions of its inputs to the logit of class 1."""

import torch
from torch import nn

from deeplift_fast import attribute

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)).eval()
patients = torch.randn(4, 6)
healthy = patients.mean(0)  # one baseline for every sample

found = attribute(model, patients, healthy, target=1)

print("contributions\n", found.contributions)
print("they sum to  ", found.contributions.sum(1))
print("f(x) - f(x0) ", found.output - found.baseline_output)
print("raw delta    ", found.convergence_delta)
