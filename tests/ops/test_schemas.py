"""Schemas made from the naive functions' annotations are those that compiled code and exported programs know."""

import pytest
import torch

from deeplift_fast import ops
from deeplift_fast.ops import naive
from deeplift_fast.ops.checks import OpSpec, schema

SCHEMAS = {
    "secant": "secant(Tensor x, Tensor x0, str function, str variant) -> (Tensor y, Tensor y0, Tensor multiplier)",
    "secant_at_input": (
        "secant_at_input(Tensor x, Tensor x0, str function, str variant) -> (Tensor y, Tensor multiplier)"
    ),
    "recurrent": (
        "recurrent(Tensor u, Tensor u0, Tensor where, Tensor counts, Tensor counts0, Tensor weight_u, Tensor weight_h, "
        "Tensor bias, Tensor master_u, Tensor master_h, Tensor master_bias, Tensor(a!) coefficients, int levels, "
        "str cell, str slope, float half) -> (Tensor h, Tensor h0, Tensor log_p, Tensor log_p0)"
    ),
    "recurrent_backward": (
        "recurrent_backward(Tensor m_h, Tensor m_master, Tensor coefficients, Tensor shares, Tensor counts, "
        "Tensor back_u, Tensor back_h, Tensor back_master_u, Tensor back_master_h, int levels, str cell, int inputs"
        ") -> Tensor m_u"
    ),
    "lockstep": (
        "lockstep(Tensor projected, Tensor where, int[] steps, Tensor order, Tensor lengths, int[] column_of, "
        "Tensor weight, Tensor bias, Tensor(a!) coefficients, int levels, str slope, float half) -> (Tensor h, "
        "Tensor h0, Tensor log_p, Tensor log_p0)"
    ),
    "lockstep_backward": (
        "lockstep_backward(Tensor m_h, Tensor m_master, Tensor coefficients, Tensor shares, int[] steps, "
        "Tensor order, Tensor lengths, int[] column_of, Tensor weight, int levels) -> Tensor d"
    ),
    "stage_window": (
        "stage_window(Tensor h, Tensor h0, Tensor log_p, Tensor log_p0, Tensor places, Tensor places0, Tensor rows, "
        "Tensor rows0, Tensor real, int levels, int hidden) -> (Tensor local, Tensor mean, Tensor last, "
        "Tensor log_stage)"
    ),
    "stage_window_backward": (
        "stage_window_backward(Tensor m_local, Tensor m_mean, Tensor m_last, Tensor h, Tensor h0, Tensor places, "
        "Tensor places0, Tensor rows, Tensor real, Tensor log_stage, Tensor log_p, int levels, "
        "float half) -> (Tensor m_h, Tensor m_master)"
    ),
    "attention": (
        "attention(Tensor asked, Tensor rows, Tensor index, Tensor starts, Tensor queries, Tensor looks, Tensor seen) "
        "-> (Tensor mixed, Tensor log_sums)"
    ),
    "attention_backward": (
        "attention_backward(Tensor m, Tensor asked, Tensor asked0, Tensor rows, Tensor rows0, Tensor index, "
        "Tensor index0, Tensor starts, Tensor starts0, Tensor queries, Tensor queries0, Tensor where, Tensor looks, "
        "Tensor looks0, Tensor seen, Tensor seen0, Tensor log_sums, Tensor log_sums0, float half) -> "
        "(Tensor m_asked, Tensor m_rows)"
    ),
    "convergence": (
        "convergence(Tensor totals, Tensor output, Tensor output0, bool rescale, float tolerance) -> (Tensor delta, "
        "Tensor factor, Tensor fine, Tensor figures)"
    ),
    "gated_sum": "gated_sum(Tensor a, Tensor b, Tensor c, str variant, float half) -> (Tensor y, Tensor multipliers)",
    "gelu": "gelu(Tensor x, Tensor x0, Tensor where, bool secant) -> (Tensor y, Tensor multiplier)",
    "layer_norm_backward": (
        "layer_norm_backward(Tensor m, Tensor x, Tensor x0, Tensor where, Tensor average, Tensor average0, "
        "Tensor scale, Tensor scale0, Tensor weight, float half) -> Tensor"
    ),
    "log_mean_softmax": "log_mean_softmax(Tensor z, Tensor z0, int dim, bool log) -> (Tensor y, Tensor mean)",
    "log_mean_softmax_backward": "log_mean_softmax_backward(Tensor g, Tensor mean, int dim) -> Tensor",
    "token_contributions": (
        "token_contributions(Tensor weight, Tensor tokens, Tensor baseline, Tensor multipliers) -> Tensor"
    ),
    "token_layers": (
        "token_layers(Tensor table, Tensor tokens, Tensor baseline, Tensor real, Tensor weight, Tensor bias, "
        "Tensor weight2, Tensor bias2, float begin, float end, str function, str variant) -> (Tensor out, Tensor slope)"
    ),
    "token_layers_backward": (
        "token_layers_backward(Tensor m, Tensor weight2, Tensor slope, Tensor weight, Tensor table, Tensor tokens, "
        "Tensor baseline, Tensor real) -> Tensor"
    ),
    "target": "target(Tensor logits, Tensor weight, int chosen) -> (Tensor classes, Tensor ends, Tensor seeds)",
    "token_rows": (
        "token_rows(Tensor weight, Tensor tokens, Tensor baseline, Tensor times) -> (Tensor rows, Tensor both)"
    ),
    "value_rows": ("value_rows(Tensor values, Tensor baseline, Tensor times) -> (Tensor rows, Tensor difference)"),
    "token_survey": (
        "token_survey(Tensor times, Tensor tokens) -> (Tensor real, Tensor unknown, Tensor held, Tensor ends, "
        "Tensor bounds, Tensor bad)"
    ),
    "value_survey": (
        "value_survey(Tensor values, Tensor times, float neutral) -> (Tensor filled, Tensor real, Tensor baseline, "
        "Tensor ends, Tensor bad)"
    ),
}


def test_every_op_is_still_there():
    assert set(ops.SCHEMAS) >= set(SCHEMAS)


@pytest.mark.parametrize("op", SCHEMAS)
def test_the_text_is_what_it_was(op):
    assert ops.SCHEMAS[op] == SCHEMAS[op]


@pytest.mark.parametrize("op", SCHEMAS)
def test_the_registered_op_has_it(op):
    assert getattr(torch.ops.deeplift_fast, op).default._schema == torch._C.parse_schema(
        f"deeplift_fast::{SCHEMAS[op]}"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "x:f[rows size] x0:f[rows0 size] where:i[rows] -> y:f[rows size] multiplier:f[rows size]",
            "has the arguments",
        ),
        ("x:f[rows size] x0:f[rows0 size] where:i[rows] secant -> y:f[rows size]", "1 result"),
    ],
)
def test_a_line_that_is_not_the_functions_is_refused(line, message):
    with pytest.raises(ValueError, match=message):
        schema(OpSpec.of("gelu", line), naive.gelu)


def test_what_is_no_tensor_in_a_line_is_refused():
    with pytest.raises(ValueError, match=r"'x:q\[rows\]' is no tensor; accepted: name:dtype"):
        OpSpec.of("gelu", "x:q[rows] -> f[rows]")
