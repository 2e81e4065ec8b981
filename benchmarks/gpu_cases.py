"""The cases of all ops, for their numbers and their speed on a device.

A case draws the same numbers in every dtype and on every device, at a small, odd size or at a size that fills a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gpu_calls
import gpu_calls_windows
import torch
from gpu_calls import Call, Maker
from torch import Tensor

from deeplift_fast.ops import NAMESPACE, naive
from deeplift_fast.ops.cells import SLOPES

FLOATS = (torch.float32, torch.float64)
HALVES = (torch.float16, torch.bfloat16)
EVERY_FLOAT = (*FLOATS, *HALVES)
# Relative and absolute tolerance; some cases have a larger one in float32.
ALLOWED = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@dataclass(frozen=True)
class Case:
    """A form of an op.

    Attributes:
        op: a name in `SCHEMAS`.
        form: name of the case among the op's cases.
        make: makes the call.
        dtypes: dtypes to compare.
        float32: tolerance of float32 against float64.
        on_gpu: dtypes that only kernels for GPUs accept.
        rounds: whether results are rounded; others are masks, classes or numbers of the arguments.
    """

    op: str
    form: str
    make: Callable[[Maker], Call]
    dtypes: tuple[torch.dtype, ...] = FLOATS
    float32: float = ALLOWED[torch.float32]
    on_gpu: tuple[torch.dtype, ...] = ()
    rounds: bool = True

    @property
    def name(self) -> str:
        """The op and its form."""
        return f"{self.op}, {self.form}" if self.form else self.op

    def call(self, dtype: torch.dtype, device: torch.device | str, large: bool = False) -> Call:
        """The call in a dtype on a device."""
        return self.make(Maker(dtype, torch.device(device), large))

    def allowed(self, dtype: torch.dtype) -> float:
        """The tolerance of a dtype, relative and absolute."""
        return self.float32 if dtype == torch.float32 else ALLOWED[dtype]

    def returned(self, call: Call) -> Any:
        """The op's result."""
        return getattr(getattr(torch.ops, NAMESPACE), self.op).default(*call.arguments)

    def run(self, call: Call) -> list[Tensor]:
        """The tensors to compare."""
        return call.compared(self.returned(call))

    def bytes_moved(self, call: Call) -> int:
        """Bytes of all arguments and results, which every implementation must move once."""
        given = [each for each in call.arguments if isinstance(each, Tensor)]
        return sum(each.nbytes for each in given + gpu_calls.listed(self.returned(call)))


def worst_error(case: Case, dtype: torch.dtype, device: torch.device | str, large: bool = False) -> float:
    """The largest distance from float64, divided by the tolerance; right if at most 1.

    The cases give finite numbers only, so NaN and inf count as an infinite distance. Small calls are compared with the
    CPU. Large ones are compared with plain torch on the device, since a CPU would take minutes.
    """
    found = case.run(case.call(dtype, device, large))
    expected = _exact(case, dtype, torch.device(device if large else "cpu"), large)
    worst = 0.0
    for result, exact in zip(found, expected, strict=True):
        if result.shape != exact.shape:
            raise ValueError(f"{case.name}: a result has shape {tuple(result.shape)}, in float64 {tuple(exact.shape)}")
        result, exact = result.double(), exact.double()  # masks and classes too
        distance = (result - exact).abs() / (1 + exact.abs()) / case.allowed(dtype)
        if distance.numel():
            worst = max(worst, float(torch.nan_to_num(distance, nan=torch.inf).max()))
    return worst


def _exact(case: Case, dtype: torch.dtype, device: torch.device, large: bool) -> list[Tensor]:
    """The tensors to compare, in float64, of numbers rounded to the dtype; on CUDA without the op's own kernel."""
    call = case.make(Maker(torch.float64, device, large, rounded=dtype))
    if device.type == "cpu":
        return case.run(call)
    return call.compared(naive.FUNCTIONS[case.op](*call.arguments))


def _cases() -> list[Case]:
    cases = [
        Case("secant", f"{function}, {variant}", partial(gpu_calls.secant, function=function, variant=variant), *of)
        for function in ("relu", "sigmoid", "tanh")
        for variant, of in (("rescale", (EVERY_FLOAT, 1e-6)), ("pyhealth", (FLOATS, 2e-5)))
    ]
    cases += [
        Case(
            "secant_at_input",
            function,
            partial(gpu_calls.secant, function=function, variant="rescale"),
            EVERY_FLOAT,
            1e-6,
        )
        for function in ("relu", "tanh")
    ]
    cases += [
        Case("gelu", name, partial(gpu_calls.gelu, secant=secant), on_gpu=HALVES)
        for name, secant in (("derivative", False), ("secant", True))
    ]
    for half in (0.0, 0.5):
        rule = "midpoint" if half else "gradient"
        make = partial(gpu_calls.layer_norm_backward, half=half)
        cases.append(Case("layer_norm_backward", rule, make, on_gpu=HALVES))
        gate = partial(gpu_calls_windows.gated_sum, half=half)
        cases.append(Case("gated_sum", rule, gate, EVERY_FLOAT))
    for rescale, form in ((False, "complete"), (True, "scaled")):
        make = partial(gpu_calls_windows.convergence, rescale=rescale)
        cases.append(Case("convergence", form, make))
    cases.append(Case("token_contributions", "", gpu_calls.token_contributions, float32=5e-5, on_gpu=HALVES))
    cases.append(Case("target", "", gpu_calls.target, on_gpu=HALVES, rounds=False))
    cases.append(Case("token_rows", "", gpu_calls.token_rows, on_gpu=HALVES))
    cases.append(Case("value_rows", "", gpu_calls.value_rows, on_gpu=HALVES))
    cases.append(Case("token_survey", "", gpu_calls.token_survey, rounds=False))
    cases.append(Case("value_survey", "", gpu_calls.value_survey, rounds=False))
    for of_first, queries in ((True, "row 0"), (False, "every row")):
        cases.append(Case("attention", queries, partial(gpu_calls.attention, of_first=of_first), on_gpu=HALVES))
        for half, rule in ((0.0, "gradient"), (0.5, "midpoint")):
            make = partial(gpu_calls.attention_backward, of_first=of_first, half=half)
            cases.append(Case("attention_backward", f"{queries}, {rule}", make, on_gpu=HALVES))
    for log, form in ((False, "probabilities"), (True, "logarithms")):
        make = partial(gpu_calls_windows.log_mean_softmax, log=log)
        cases.append(Case("log_mean_softmax", form, make, EVERY_FLOAT))
    cases.append(Case("log_mean_softmax_backward", "", gpu_calls_windows.log_mean_softmax_backward, EVERY_FLOAT))
    cases.append(Case("stage_window", "", gpu_calls_windows.stage_window, on_gpu=HALVES))
    for half, rule in ((0.0, "gradient"), (0.5, "midpoint")):
        make = partial(gpu_calls_windows.stage_window_backward, half=half)
        cases.append(Case("stage_window_backward", rule, make, on_gpu=HALVES))
    for slope in SLOPES["stagenet"]:
        make = partial(gpu_calls.lockstep, slope=slope, half=0.5 if slope == "secant" else 0.0)
        cases.append(Case("lockstep", slope, make, float32=2e-5))
    cases.append(Case("lockstep_backward", "", gpu_calls.lockstep_backward, float32=2e-5))
    for cell, slopes in SLOPES.items():
        for slope in slopes:
            half = 0.5 if slope == "secant" else 0.0
            make = partial(gpu_calls.recurrent, cell=cell, slope=slope, half=half)
            cases.append(Case("recurrent", f"{cell}, {slope}", make, float32=2e-5))
        make = partial(gpu_calls.recurrent_backward, cell=cell)
        cases.append(Case("recurrent_backward", cell, make, float32=2e-5))
    return cases


CASES = {case.name: case for case in _cases()}
