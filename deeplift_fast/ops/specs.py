"""One line per op: the dimensions and dtypes of its arguments and results.

`checks.py` makes the checks of shapes and dtypes, the fake kernel, the schema and the documentation from a line.

- `x:f[rows size]` is a tensor. A dimension's name is the same number at each place, and may be an argument's name
  (`levels`). `[2*levels]` is computed from other sizes. `...` is any number of dimensions, the same at each place.
- `function=relu|tanh` takes one of these texts. A bare name is another argument.
- The op writes to `coefficients!`.

Dtypes:

| letter | dtype |
|---|---|
| `f` | the dtype of the first such tensor: float32 or float64, and on other devices than the CPU float16 or bfloat16 |
| `h` | the same, with float16 and bfloat16 also on the CPU |
| `w` | the dtype that the op computes in: float32 for the half types |
| `d`, `i`, `b` | float64, int64, bool |

A tensor on the CPU is contiguous, unless `~` follows its dtype; other devices accept any strides. All tensors are on
the device of the first `f` or `h`, except those with `@`. A result with `~` has the strides of an elementwise result of
that first tensor.
"""

NAMESPACE = "deeplift_fast"
SAMPLES_AT_ONCE = 1024  # of one program of `convergence` on CUDA
_TOGETHER = {"token_rows": "rows", "value_rows": "rows", "token_survey": "surveys", "value_survey": "surveys"}


def stem_of(op: str) -> str:
    """The name of the files that implement an op; a backward op, or one with fewer results, shares another's file."""
    return _TOGETHER.get(op, op.removesuffix("_backward").removesuffix("_at_input"))


def parts(size: int, wide: int) -> int:
    """The number of pieces, `wide` each, that hold `size`."""
    return -(-size // (wide or 1))


def padded(size: int, wide: int) -> int:
    """`size`, rounded up to a multiple of `wide`."""
    return parts(size, wide) * wide


def sums(batch: int, on_cuda: bool) -> int:
    """The number of parts of a batch that `convergence` sums separately."""
    return parts(batch, SAMPLES_AT_ONCE) if on_cuda else 1


SPECS = {
    "secant": "x:h~[...] x0:h~[...] function=relu|sigmoid|tanh variant=rescale|pyhealth -> "
    "y:h~[...] y0:h~[...] multiplier:h~[...]",
    "secant_at_input": "x:h~[...] x0:h~[...] function=relu|sigmoid|tanh variant=rescale|pyhealth -> "
    "y:h~[...] multiplier:h~[...]",
    "recurrent": "u:f[rows inputs] u0:f[rows0 inputs] where:i[samples] counts:i@[steps] counts0:i@[steps] "
    "weight_u:f[panels inputs from_input lanes] weight_h:f[panels panels*lanes from_state lanes] "
    "bias:f[panels gates lanes] master_u:f[inputs width] master_h:f[panels*lanes width] master_bias:f[width] "
    "coefficients!:f[rows kept panels*lanes] levels cell=stagenet|lstm|gru|rnn_tanh|rnn_relu "
    "slope=secant|derivative|pyhealth half -> "
    "h:f[rows panels*lanes] h0:f[rows0 panels*lanes] log_p:f[rows 2*levels] log_p0:f[rows0 2*levels]",
    "recurrent_backward": "m_h:f[rows units] m_master:f[rows levels] coefficients:f[rows kept units] "
    "shares:f[rows 2*levels] counts:i@[steps] back_u:f[parts(inputs,wide_u) panels from_u wide_u] "
    "back_h:f[parts(units,wide_h) panels from_h wide_h] back_master_u:f[parts(inputs,wide_u) 2*levels wide_u] "
    "back_master_h:f[parts(units,wide_h) 2*levels wide_h] levels cell=stagenet|lstm|gru|rnn_tanh|rnn_relu inputs -> "
    "m_u:f[rows padded(inputs,wide_u//4)]",
    "lockstep": "projected:f[2*rows columns] where:i[samples] steps order:i~[turned layers] lengths:i~[turned layers] "
    "column_of weight:f[layers units columns] "
    "bias:f[layers columns] coefficients!:f[rows 8 units] levels slope=secant|pyhealth half -> "
    "h:f[rows units] h0:f[rows units] log_p:f[rows 2*levels] log_p0:f[rows 2*levels]",
    "lockstep_backward": "m_h:f[rows units] m_master:f[rows levels] coefficients:f[rows 8 units] "
    "shares:f[rows 2*levels] steps order:i~[turned layers] lengths:i~[turned layers] column_of "
    "weight:f[layers units columns] levels -> d:f[rows columns]",
    "stage_window": "h:f~[states units] h0:f~[states0 units] log_p:f~[steps 2*levels] log_p0:f~[steps0 2*levels] "
    "places:i~[samples window] places0:i~[samples window] rows:i~[samples window] rows0:i~[samples window] "
    "real:b~[samples window] levels hidden -> local:f[2 samples window hidden] mean:f[2 samples hidden] "
    "last:f[2 samples hidden] log_stage:f[2 samples window]",
    "stage_window_backward": "m_local:f~[samples window hidden] m_mean:f~[samples hidden] m_last:f~[samples hidden] "
    "h:f~[states units] h0:f~[states0 units] places:i~[samples window] places0:i~[samples window] "
    "rows:i~[samples window] real:b~[samples window] log_stage:f~[2 samples window] log_p:f~[steps 2*levels] "
    "levels half -> m_h:f[states units] m_master:f[steps levels]",
    "attention": "asked:f[heads asking width] rows:f[rows width] index:i[all] starts:i[ends] queries:i[ends] "
    "looks:b[asking] seen:b[all] -> mixed:f[heads asking width] log_sums:w[heads asking]",
    "attention_backward": "m:f[heads asking width] asked:f[heads asking width] asked0:f[heads asking0 width] "
    "rows:f[rows width] rows0:f[rows0 width] index:i[all] index0:i[all0] starts:i[ends] starts0:i[ends0] "
    "queries:i[ends] queries0:i[ends0] where:i[ends-1] looks:b[asking] looks0:b[asking0] seen:b[all] seen0:b[all0] "
    "log_sums:w[heads asking] log_sums0:w[heads asking0] half -> "
    "m_asked:f[heads asking width] m_rows:f[rows width]",
    "convergence": "totals:d[features batch] output:f~[batch] output0:f~[batch] rescale tolerance -> "
    "delta:f[batch] factor:w[batch*int(rescale)] fine:b[batch] figures:d[sums(batch,on_cuda) 3]",
    "few_rows": "x:f~[rows inputs] weight:f~[outputs inputs] bias:f~[outputs] -> f[rows outputs]",
    "few_rows_backward": "m:f~[rows outputs] weight:f~[outputs inputs] -> f[rows inputs]",
    "gated_sum": "a:h~[2 ...] b:h~[2 ...] c:h~[2 ...] variant=rescale|pyhealth half -> y:h[2 ...] multipliers:h[2 ...]",
    "gelu": "x:f[rows size] x0:f[rows0 size] where:i[rows] secant -> y:f[rows size] multiplier:f[rows size]",
    "layer_norm_backward": "m:f[rows size] x:f[rows size] x0:f[rows0 size] where:i[rows] average:w[rows 1] "
    "average0:w[rows0 1] scale:w[rows 1] scale0:w[rows0 1] weight:f[size] half -> f[rows size]",
    "log_mean_softmax": "z:h~[...] z0:h~[...] dim log -> y:h[...] mean:h[...]",
    "log_mean_softmax_backward": "g:h~[...] mean:h~[...] dim -> h[...]",
    "target": "logits:f~[2 batch classes] weight:f~[parts classes width] chosen -> classes:i[batch] ends:f[2 batch] "
    "seeds:f[parts batch width]",
    "token_contributions": "weight:f[vocabulary dim] tokens:i[rows slots] baseline:i[rows slots] "
    "multipliers:f[rows dim] -> f[rows slots]",
    "token_layers": "table:f[vocabulary dim] tokens:i[rows slots] baseline:i[rows slots] real:b[rows slots] "
    "weight:f[hidden dim] bias:f[hidden] weight2:f[width hidden] bias2:f[width] begin end "
    "function=relu|sigmoid|tanh variant=rescale|pyhealth -> out:f[2*rows width] slope:f[rows hidden]",
    "token_layers_backward": "m:f[seeds width] weight2:f[width hidden] slope:f[rows hidden] weight:f[hidden dim] "
    "table:f[vocabulary dim] tokens:i[rows slots] baseline:i[rows slots] real:b[rows slots] -> f[rows slots]",
    "token_rows": "weight:f~[vocabulary dim] tokens:i~[batch steps slots] baseline:i~[batch steps slots] "
    "times:f~[batch steps] -> rows:f[2 steps batch dim+1] both:i[2 steps batch slots]",
    "token_survey": "times:f~[batch steps] tokens:i~[batch steps slots] -> real:b[batch steps slots] "
    "unknown:i[batch steps slots] held:b[batch steps] ends:i[batch] bounds:i[batch 2] bad:b[batch]",
    "value_rows": "values:f~[batch steps size] baseline:f~[batch steps size] times:f~[batch steps] -> "
    "rows:f[2 steps batch size+1] difference:f[steps batch size]",
    "value_survey": "values:f~[batch steps size] times:f~[batch steps] neutral -> filled:b[batch steps] "
    "real:b[batch steps] baseline:f[batch steps size] ends:i[batch] bad:b[batch]",
}
