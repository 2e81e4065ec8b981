"""Numbers in, numbers out: the arithmetic of the rules, with one implementation per backend.

Each op is a function with the signature of its naive implementation. It checks its arguments, then PyTorch's dispatcher
picks the implementation. `specs.py` has the shapes and dtypes that ops take.

On CUDA no number of an index is checked, since that would wait for the device: one that lies outside reads or writes
beside its tensor.
"""

from deeplift_fast.ops import naive
from deeplift_fast.ops.registry import (
    SCHEMAS,
    Backend,
    BackendWarning,
    backend_for,
    backends,
    checked,
    release_memory,
)
from deeplift_fast.ops.specs import NAMESPACE

__all__ = [
    "NAMESPACE",
    "SCHEMAS",
    "Backend",
    "BackendWarning",
    "attention",
    "attention_backward",
    "backend_for",
    "backends",
    "convergence",
    "gated_sum",
    "gelu",
    "layer_norm_backward",
    "lockstep",
    "lockstep_backward",
    "log_mean_softmax",
    "log_mean_softmax_backward",
    "recurrent",
    "recurrent_backward",
    "release_memory",
    "secant",
    "stage_window",
    "stage_window_backward",
    "token_contributions",
]

attention = checked(naive.attention)
attention_backward = checked(naive.attention_backward)
convergence = checked(naive.convergence)
gated_sum = checked(naive.gated_sum)
gelu = checked(naive.gelu)
layer_norm_backward = checked(naive.layer_norm_backward)
lockstep = checked(naive.lockstep)
lockstep_backward = checked(naive.lockstep_backward)
log_mean_softmax = checked(naive.log_mean_softmax)
log_mean_softmax_backward = checked(naive.log_mean_softmax_backward)
recurrent = checked(naive.recurrent)
recurrent_backward = checked(naive.recurrent_backward)
secant = checked(naive.secant)
stage_window = checked(naive.stage_window)
stage_window_backward = checked(naive.stage_window_backward)
token_contributions = checked(naive.token_contributions)
