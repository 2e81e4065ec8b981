"""Plain torch implementations: the fallback on every device, and the oracle of the kernels' tests."""

from deeplift_fast.ops.naive.attention import attention, attention_backward
from deeplift_fast.ops.naive.convergence import convergence
from deeplift_fast.ops.naive.gated_sum import gated_sum
from deeplift_fast.ops.naive.gelu import gelu
from deeplift_fast.ops.naive.layer_norm import layer_norm_backward
from deeplift_fast.ops.naive.lockstep import lockstep, lockstep_backward
from deeplift_fast.ops.naive.log_mean_softmax import log_mean_softmax, log_mean_softmax_backward
from deeplift_fast.ops.naive.recurrent import recurrent, recurrent_backward
from deeplift_fast.ops.naive.secant import secant
from deeplift_fast.ops.naive.stage_window import stage_window, stage_window_backward
from deeplift_fast.ops.naive.token_contributions import token_contributions

__all__ = [
    "attention",
    "attention_backward",
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
    "secant",
    "stage_window",
    "stage_window_backward",
    "token_contributions",
]
