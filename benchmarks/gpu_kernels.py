"""Bytes, flops and launches of every Triton kernel, by element, at the sizes of PyHealth's defaults: on paper.

Float32, `rules="complete"`. Flops are counted from the kernels' formulas, an exponential as 22 (a polynomial of degree
7 and the scaling around it). Bytes are those that no cache spares: each tensor once.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gpu_calls import Call
from gpu_model import FLOAT, Gpu

WIDTH = 128  # of an embedding
SLOTS = 12  # codes of a visit
ROWS = 30  # of a sample in attention
HIDDEN = 384  # StageNet's units
WINDOW = 10  # steps that its convolution sees
INT, DOUBLE, BOOL = 8, 8, 1
EXPONENTIAL = 22


@dataclass(frozen=True)
class Kernel:
    """One Triton kernel, or an op's several.

    Attributes:
        op: whose it is.
        element: what is counted.
        read: bytes of an element.
        written: likewise.
        flops: likewise.
        launches: of a call.
        case: the case of `gpu_cases.py` whose tensors have the same bytes, and how many elements its call has; `None`
            where kernels hand tensors to each other within the op.
    """

    op: str
    element: str
    read: float
    written: float
    flops: float
    launches: str = "1"
    case: tuple[str, Callable[[Call], int]] | None = None

    def seconds(self, gpu: Gpu) -> tuple[float, str]:
        """Of an element at best, and what decides."""
        memory, arithmetic = (self.read + self.written) / gpu.bandwidth, self.flops / gpu.flops
        return (memory, "memory") if memory >= arithmetic else (arithmetic, "arithmetic")


def _first(call: Call) -> int:
    return call.arguments[0].numel()


def _second(call: Call) -> int:
    return call.arguments[1].numel()


def _rows(call: Call) -> int:
    return len(call.arguments[1])


def _rows_back(call: Call) -> int:
    return len(call.arguments[3])


_TANH = 5 * EXPONENTIAL  # the secant with its two values: three exponentials, and divisions
_ROW = FLOAT * WIDTH
_BY_STEP = {
    "recurrent": "1 each step, and a matrix product",
    "lockstep": "1 each step of all layers, and a batched product",
}

KERNELS = (
    Kernel("secant", "tanh at input and baseline", 2 * FLOAT, 3 * FLOAT, _TANH, case=("secant, tanh, rescale", _first)),
    Kernel("gelu", "argument", 2 * FLOAT + INT / 512, 2 * FLOAT, 8 * EXPONENTIAL, case=("gelu, secant", _first)),
    Kernel(
        "layer_norm_backward",
        "argument",
        3 * FLOAT + (INT + 4 * FLOAT) / WIDTH,
        FLOAT,
        18,
        case=("layer_norm_backward, midpoint", _first),
    ),
    Kernel(
        "token_contributions",
        f"token, {SLOTS} of a visit",
        2 * INT + _ROW / SLOTS,
        FLOAT,
        3 * WIDTH,
        case=("token_contributions", _second),
    ),
    Kernel(
        "attention",
        f"row that row 0 sees, {ROWS} of a sample",
        _ROW + INT + BOOL + _ROW / ROWS,
        FLOAT + _ROW / ROWS,
        4 * WIDTH + 3 * EXPONENTIAL,
        "2 each stream",
        ("attention, row 0", _rows),
    ),
    Kernel(
        "attention_backward",
        f"row that row 0 sees, {ROWS} of a sample",
        2 * (_ROW + INT + 2 * FLOAT) + FLOAT + 3 * _ROW / ROWS,
        2 * _ROW + FLOAT + _ROW / ROWS,
        15 * WIDTH + 3 * EXPONENTIAL,
        "4, and one that clears",
    ),
    Kernel(
        "log_mean_softmax",
        "logit at input and baseline",
        2 * FLOAT,
        2 * FLOAT,
        6 * EXPONENTIAL,
        case=("log_mean_softmax, probabilities", _first),
    ),
    Kernel("log_mean_softmax_backward", "logit", 2 * FLOAT, FLOAT, 6, case=("log_mean_softmax_backward", _first)),
    Kernel(
        "stage_window",
        f"state in a window of {WINDOW}, one stream",
        FLOAT,
        FLOAT + 2 * FLOAT / WINDOW,
        3,
        case=("stage_window", lambda call: 2 * _first(call)),
    ),
    Kernel(
        "stage_window_backward",
        f"state in a window of {WINDOW}",
        3 * FLOAT + 2 * FLOAT / WINDOW,
        FLOAT,
        8,
        "1, and one that clears",
        ("stage_window_backward, midpoint", _first),
    ),
    Kernel(
        "gated_sum",
        "gate at input and baseline",
        6 * FLOAT,
        4 * FLOAT,
        _TANH + 12,
        case=("gated_sum, midpoint", lambda call: _first(call) // 2),
    ),
    Kernel(
        "convergence",
        "sample of 2 features",
        2 * DOUBLE + 2 * FLOAT,
        FLOAT + BOOL,
        20,
        case=("convergence, complete", _second),
    ),
    *(
        Kernel(op, "StageNet's unit, a step of input and baseline", 18 * FLOAT, 14 * FLOAT, 10 * _TANH, launches)
        for op, launches in _BY_STEP.items()
    ),
    *(
        Kernel(f"{op}_backward", "StageNet's unit, a step", 11 * FLOAT, 5 * FLOAT, 20, launches)
        for op, launches in _BY_STEP.items()
    ),
)
