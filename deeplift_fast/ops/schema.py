"""The signature of every op, in one place.

Names, order and types here are what `naive/`, `triton/` and `csrc/` implement.
"""

NAMESPACE = "deeplift_fast"

SCHEMAS = {
    "secant": "secant(Tensor x, Tensor x0, str function, str variant) -> (Tensor y, Tensor y0, Tensor multiplier)",
}
