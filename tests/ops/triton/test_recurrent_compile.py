"""The kernels of recurrent layers and of the stage window compiled ahead of time: what they load, store and spill."""

import collections
import importlib.util
import itertools
import re

import pytest
import torch
from compiled_kernels import (
    ARCHITECTURES,
    COMPILES,
    MAX_REGISTERS,
    NVIDIA,
    VECTOR,
    accesses,
    assert_spills_nothing,
    compiled,
    resources,
)

from deeplift_fast.ops.cells import COEFFICIENTS, SLOPES

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton import recurrent as launcher
    from deeplift_fast.ops.triton import stage_window
    from deeplift_fast.ops.triton.recurrent import elements_of, forward_options, forward_tile, tile
    from deeplift_fast.ops.triton.recurrent_cells import forward_kernel

pytestmark = COMPILES

DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "fp16": torch.float16, "bf16": torch.bfloat16}
CASES = [(cell, slope) for cell, slopes in SLOPES.items() for slope in slopes]
CHUNK, LEVELS, WINDOW = 128, 4, 16  # a power of two above PyHealth's 3 levels and 10 steps
# Sizes that PyHealth's defaults make multiples of 16; those that change from step to step are not specialised.
SIZES = ("units", "chunk", "padded", "hidden", "projected_width", "product_width", "width", "bias_width")
COUNTS = (
    "count", "count0", "centre", "rows", "first", "first0", "started", "later", "further", "slots", "stride", "samples",
    "levels", "window",
)  # fmt: skip


def build(function, dtype, constants, **options):
    inner = "*fp64" if dtype == "fp64" else "*fp32"
    types = {}
    for name in function.arg_names:
        if name in constants:
            continue
        if name in SIZES or (name in COUNTS and not (name == "rows" and function is not forward_kernel)):
            types[name] = "i32"
        elif name in ("where", "places", "places0", "rows", "rows0"):
            types[name] = "*i64"
        elif name == "real":
            types[name] = "*i1"
        else:
            types[name] = inner if name in ("c_old", "c_new", "carried_c") else f"*{dtype}"
    return compiled(function, types, constants, aligned=SIZES, **options)


def forward(cell, slope, dtype, half=0.5, of=None, **options):
    """The forward kernel; its tile may be `of` a number of elements."""
    high, wide = forward_tile(DTYPES[dtype], CHUNK, cell) if of is None else tile(of, CHUNK)
    constants = {
        "CELL": cell, "SLOPE": slope, "HALF": half, "COUNT": COEFFICIENTS[cell],
        "LEVELS": LEVELS if cell == "stagenet" else 1, "ROWS": high, "UNITS": wide,
    }  # fmt: skip
    launched = forward_options(DTYPES[dtype], cell, slope, options.get("architecture", NVIDIA[0]) in NVIDIA)
    return build(forward_kernel, dtype, constants, **launched | options)


def backward(cell, dtype, **options):
    if cell == "stagenet":
        constants = {"LEVELS": LEVELS, "UNITS": min(CHUNK, elements_of(DTYPES[dtype]) // LEVELS)}
        return build(launcher.stagenet_backward_kernel, dtype, constants, **options)
    high, wide = tile(elements_of(DTYPES[dtype]), CHUNK)
    constants = {"CELL": cell, "COUNT": COEFFICIENTS[cell], "ROWS": high, "UNITS": wide}
    return build(launcher.backward_kernel, dtype, constants, **options)


def staged(dtype, half=None, **options):
    """The forward kernel, or with `half` the backward one."""
    high, wide = stage_window.window_tile(DTYPES[dtype], WINDOW, CHUNK)
    constants = {"LEVELS": 3, "WINDOW": high, "UNITS": wide}
    if half is None:
        return build(stage_window._kernel, dtype, constants, **options)
    return build(stage_window._backward_kernel, dtype, constants | {"HALF": half}, **options)


def widest(kernel, dtype):
    """How many loads and stores bring 16 bytes."""
    found = collections.Counter(accesses(kernel))
    return found["ld", VECTOR[dtype]], found["st", VECTOR[dtype]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("cell", "slope"), CASES)
def test_every_cell_forward(cell, slope, dtype, tmp_path):
    assert_spills_nothing(forward(cell, slope, dtype), tmp_path)


@pytest.mark.parametrize("half", [0.0, 0.5])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("cell", SLOPES)
def test_every_cell_forward_on_every_architecture(cell, architecture, half, tmp_path):
    assert_spills_nothing(forward(cell, "secant", "fp32", half, architecture=architecture), tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("cell", SLOPES)
def test_every_cell_backward(cell, architecture, tmp_path):
    for dtype in DTYPES if architecture in NVIDIA else ("fp32",):
        assert_spills_nothing(backward(cell, dtype, architecture=architecture), tmp_path)


@pytest.mark.parametrize("half", [None, 0.0, 0.5])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stage_window(architecture, half, tmp_path):
    for dtype in DTYPES if architecture in NVIDIA else ("fp32",):
        assert_spills_nothing(staged(dtype, half, architecture=architecture), tmp_path)


def test_three_levels_of_a_window_cost_three():
    loads = accesses_of_levels(staged("fp32"), "load", "log_p")
    stores = accesses_of_levels(staged("fp32", 0.5), "store", "m_master")
    assert (loads, stores) == ([f"{WINDOW}"] * 6, [f"{WINDOW}"] * 3)  # both streams' three, the input's three


def accesses_of_levels(kernel, kind, argument):
    """The lanes of each access to numbers per step and level, through a chain of pointers from the argument on."""
    text = kernel.asm["ttir"]
    names, lanes = {f"%{argument}", f"%{argument}0"}, []
    for name, rest in re.findall(r"(%[\w#]+) = (tt\.(?:addptr|splat) .*)", text):
        if {*re.findall(r"%\w+", rest.split(" : ")[0])} & names:
            names.add(name)
    for pointer, size in re.findall(rf"tt\.{kind} (%\w+).* tensor<([\dx]+)x!tt\.ptr<f32>>", text):
        lanes += [size] if pointer in names else []
    return lanes


# Of the coefficients each one; of the gates both streams' two products and the bias; of c both streams; h in its three
# places and the new c.
FORWARD = {"stagenet": (22, 12), "lstm": (22, 10), "gru": (18, 8), "rnn_tanh": (5, 4), "rnn_relu": (5, 4)}


# What does not fit into 128 registers so: of these a thread takes 8 bytes.
NARROW = {("stagenet", "fp64"), *itertools.product(("stagenet", "lstm", "gru"), ("fp16", "bf16"))}


@pytest.mark.parametrize("architecture", NVIDIA)
@pytest.mark.parametrize(("cell", "dtype"), sorted({*itertools.product(FORWARD, DTYPES)} - NARROW))
def test_units_are_read_and_written_16_bytes_at_a_time_forward(cell, dtype, architecture, tmp_path):
    kernel = forward(cell, "secant", dtype, architecture=architecture)
    assert widest(kernel, dtype) == FORWARD[cell]
    if cell not in ("lstm", "stagenet") or dtype == "fp64":
        assert_spills_nothing(kernel, tmp_path)


@pytest.mark.parametrize(("cell", "dtype"), sorted(NARROW))
def test_16_bytes_at_a_time_take_too_many_registers(cell, dtype, tmp_path):
    """And held to as many as there may be, the kernel spills."""
    wide = elements_of(DTYPES[dtype])
    kernel = forward(cell, "secant", dtype, of=wide)
    loads, stores = widest(kernel, dtype)
    assert loads >= FORWARD[cell][0]
    assert stores >= FORWARD[cell][1]
    assert resources(kernel, tmp_path)[0] > MAX_REGISTERS
    _, stack, local = resources(forward(cell, "secant", dtype, of=wide, maxnreg=MAX_REGISTERS), tmp_path)
    assert stack + local > 0


@pytest.mark.parametrize("architecture", NVIDIA)
@pytest.mark.parametrize(("cell", "dtype"), sorted(NARROW))
def test_of_those_units_are_read_and_written_8_bytes_at_a_time(cell, dtype, architecture):
    found = collections.Counter(accesses(forward(cell, "secant", dtype, architecture=architecture)))
    for kind, count in zip(("ld", "st"), FORWARD[cell], strict=True):
        pieces = ("b64",) if dtype == "fp64" else ("v2.b32", VECTOR[dtype])  # c is float32: 16 bytes of it
        assert sum(found[kind, piece] for piece in pieces) >= count


BACKWARD = {"stagenet": (11, 5), "lstm": (9, 5), "gru": (7, 5), "rnn_tanh": (3, 1), "rnn_relu": (3, 1)}


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("cell", BACKWARD)
def test_units_are_read_and_written_16_bytes_at_a_time_backward(cell, dtype):
    assert widest(backward(cell, dtype), dtype) == BACKWARD[cell]


@pytest.mark.parametrize("dtype", DTYPES)
def test_windows_are_read_and_written_16_bytes_at_a_time(dtype):
    for kernel in (staged(dtype), staged(dtype, 0.5)):
        loads, stores = widest(kernel, dtype)
        assert loads >= 1
        assert stores >= 1


def kernels(dtype):
    yield from (forward(cell, "secant", dtype) for cell in SLOPES)
    yield from (backward(cell, dtype) for cell in SLOPES)
    yield from (staged(dtype), staged(dtype, 0.5))


def test_float64_computes_in_nothing_less():
    for kernel in kernels("fp64"):
        assert "f32" not in kernel.asm["ttir"]


def test_rows_are_multiplied_in_64_bits():
    for kernel in kernels("fp32"):
        products = re.findall(r"arith\.muli (.*?) : (\S+)", kernel.asm["ttir"])
        assert any(kind.endswith(("i64", "i64>")) for _, kind in products)
        for operands, kind in products:
            if kind.endswith(("i32", "i32>")) and not re.search(r"%c\d+_i32", operands):
                assert kind == "i32", "a vector of rows, in 32 bits"
                assert not re.search(r"%(sample|row|slot|to|first|place|at|out)\b", operands)
