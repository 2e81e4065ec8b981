"""The signature of every op, in one place.

Names, order and types here are what `naive/`, `triton/` and `csrc/` implement.
"""

NAMESPACE = "deeplift_fast"

SCHEMAS = {
    "secant": "secant(Tensor x, Tensor x0, str function, str variant) -> (Tensor y, Tensor y0, Tensor multiplier)",
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
    "token_contributions": (
        "token_contributions(Tensor weight, Tensor tokens, Tensor baseline, Tensor multipliers) -> Tensor"
    ),
}
