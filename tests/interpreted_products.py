"""Products of bfloat16 in Triton's interpreter, which by itself multiplies the bits of the numbers as integers."""

import numpy as np


def widen_products(monkeypatch):
    """Give the interpreter's `tl.dot` bfloat16 operands as float32, which holds each of them exactly."""
    from triton.runtime import interpreter

    original = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, *rest):
        return original(self, _widened(a), _widened(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


def _widened(operand):
    from triton.language import bfloat16, float32
    from triton.runtime.interpreter import TensorHandle

    if operand.dtype.scalar != bfloat16:
        return operand
    bits = operand.data.view(np.uint16).astype(np.uint32) << 16
    return TensorHandle(bits.view(np.float32), float32)
