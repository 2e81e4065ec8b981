"""The kernels of recurrent layers and of the stage window compiled ahead of time: what they load, store and spill."""

import collections
import importlib.util
import re

import pytest
import torch
from compiled_kernels import (
    ARCHITECTURES,
    COMPILES,
    MOST_REGISTERS,
    NVIDIA,
    VECTOR,
    accesses,
    assert_fits,
    assert_spills_nothing,
    compiled,
    loads,
)

from deeplift_fast.ops.cells import SLOPES

if importlib.util.find_spec("triton") is not None:
    from deeplift_fast.ops.triton import stage_window
    from deeplift_fast.ops.triton.recurrent import backward_constants, forward_constants, products
    from deeplift_fast.ops.triton.recurrent_back import backward_kernel
    from deeplift_fast.ops.triton.recurrent_cells import forward_kernel

pytestmark = COMPILES

DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "fp16": torch.float16, "bf16": torch.bfloat16}
CHUNK, LEVELS, WINDOW = 128, 4, 16  # a power of two above PyHealth's 3 levels and 10 steps
OTHER_SLOPES = [(cell, slope) for cell, slopes in SLOPES.items() for slope in slopes if slope != "secant"]
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion", "maxnreg")
# Sizes that PyHealth's defaults make multiples of 16; those that change from step to step are not specialised.
SIZES = (
    "units", "chunk", "padded", "hidden", "width", "known", "skipped", "bias_layer", "weight_layer",
    "weight_k", "weight_n",
)  # fmt: skip
COUNTS = (
    "count", "count0", "rows", "first", "first0", "before", "before0", "later", "further", "slots", "slots0", "stride",
    "samples", "levels", "window", "step", "across",
)  # fmt: skip
WIDE = ("c_old", "c_new", "carried", "sums_old", "sums_new")
INSTRUCTION = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma"}


def build(function, dtype, constants, **options):
    number, inner = f"*{dtype}", "*fp64" if dtype == "fp64" else "*fp32"
    types = {}
    for name in function.arg_names:
        if name in constants:
            continue
        if name == "columns":
            types[name] = "i64"
        elif name in SIZES or (name in COUNTS and not (name == "rows" and function is not forward_kernel)):
            types[name] = "i32"
        elif name in ("stream", "stream0"):
            types[name] = (number, number, "*i64", "*i64")
        elif name == "results":
            types[name] = (number,) * 4
        elif name in ("where", "order", "lengths", "places", "places0", "rows"):
            types[name] = "*i64"
        elif name == "real":
            types[name] = "*i1"
        else:
            types[name] = inner if name in WIDE else number
    return compiled(function, types, constants, aligned=SIZES, **options)


def step(function, dtype, constants, architecture):
    """A step's kernel as its launcher would compile it on that architecture."""
    constants = constants | products(DTYPES[dtype], architecture in NVIDIA)
    options = {name: constants[name] for name in OPTIONS if name in constants}
    constants = {name: value for name, value in constants.items() if name not in options}
    return build(function, dtype, constants, architecture=architecture, **options)


IN_ORDER = {"order": None, "lengths": None}


def forward(
    cell, dtype="fp32", architecture="sm_90", *, slope="secant", half=0.5, shared=False, many=False, ordered=False
):
    levels = LEVELS if cell == "stagenet" else 0
    constants = forward_constants(DTYPES[dtype], cell, slope, levels, shared, many)
    constants |= {"HALF": half, "weight_n": 1} | ({} if ordered else IN_ORDER)
    return step(forward_kernel, dtype, constants, architecture)


def backward(cell, dtype="fp32", architecture="sm_90", *, lockstep=False, many=False):
    """`lockstep` has the weights of the forward op, where the neighbour of a number is another row, and lengths."""
    constants = backward_constants(DTYPES[dtype], cell, LEVELS if cell == "stagenet" else 0, many)
    constants |= {"weight_k": 1} if lockstep else {"weight_n": 1} | IN_ORDER
    return step(backward_kernel, dtype, constants, architecture)


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


def assert_multiplies(kernel, architecture, folder, dtype="fp32"):
    """No spill, memory that the device has, and the instruction of its tensor cores."""
    assert_spills_nothing(kernel, folder, MOST_REGISTERS)
    assert_fits(kernel, architecture)
    if architecture not in NVIDIA:
        assert "v_mfma" in kernel.asm["amdgcn"]
    elif dtype != "fp64":
        assert INSTRUCTION[architecture] in kernel.asm["ptx"]
    elif architecture != "sm_100":  # for which triton 3.6 has no product of float64 on tensor cores
        assert INSTRUCTION["sm_80"] in kernel.asm["ptx"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("cell", SLOPES)
def test_every_cell(cell, architecture, tmp_path):
    assert_multiplies(forward(cell, architecture=architecture), architecture, tmp_path)
    assert_multiplies(backward(cell, architecture=architecture), architecture, tmp_path)


@pytest.mark.parametrize("architecture", NVIDIA)
def test_one_baseline_for_all_samples(architecture, tmp_path):
    for cell in ("stagenet", "gru"):
        assert_multiplies(forward(cell, architecture=architecture, shared=True), architecture, tmp_path)


@pytest.mark.parametrize("architecture", NVIDIA)
def test_several_layers(architecture, tmp_path):
    assert_multiplies(forward("stagenet", architecture=architecture, ordered=True), architecture, tmp_path)
    assert_multiplies(backward("stagenet", architecture=architecture, lockstep=True), architecture, tmp_path)


@pytest.mark.parametrize("case", [*(("stagenet", "fp32", each) for each in NVIDIA), ("stagenet", "bf16", "sm_90")])
def test_many_samples(case, tmp_path):
    _, dtype, architecture = case
    assert_multiplies(forward(*case, many=True, ordered=True), architecture, tmp_path, dtype)
    assert_multiplies(backward(*case, lockstep=True, many=True), architecture, tmp_path, dtype)


@pytest.mark.parametrize(("cell", "slope"), OTHER_SLOPES)
def test_other_slopes(cell, slope, tmp_path):
    assert_multiplies(forward(cell, slope=slope, half=0.0), "sm_90", tmp_path)


@pytest.mark.parametrize("dtype", ["fp64", "fp16", "bf16"])
@pytest.mark.parametrize("cell", ["stagenet", "lstm", "gru", "rnn_tanh"])
def test_other_dtypes(cell, dtype, tmp_path):
    assert_multiplies(forward(cell, dtype), "sm_90", tmp_path, dtype)
    assert_multiplies(backward(cell, dtype), "sm_90", tmp_path, dtype)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
def test_float64_elsewhere(architecture, tmp_path):
    assert_multiplies(forward("stagenet", "fp64", architecture), architecture, tmp_path, "fp64")
    assert_multiplies(backward("stagenet", "fp64", architecture), architecture, tmp_path, "fp64")


@pytest.mark.parametrize("half", [None, 0.0, 0.5])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stage_window(architecture, half, tmp_path):
    for dtype in DTYPES if architecture in NVIDIA else ("fp32",):
        assert_spills_nothing(staged(dtype, half, architecture=architecture), tmp_path)


def test_three_levels_of_a_window_cost_three():
    loads = accesses_of_levels(staged("fp32"), "load", {"stream": 1, "stream0": 1})  # `log_p` of both streams
    stores = accesses_of_levels(staged("fp32", 0.5), "store", {"m_master": 0})
    assert (loads, stores) == ([f"{WINDOW}"] * 6, [f"{WINDOW}"] * 3)  # both streams' three, the input's three


def accesses_of_levels(kernel, kind, arguments):
    """The lanes of each access to numbers per step and level, through a chain of pointers from the arguments on.

    `arguments` has the place in its tuple by name. Triton 3.8 calls the second of a tuple `%stream.1`, 3.6 `%stream_0`.
    """
    text, lanes = kernel.asm["ttir"], []
    given = re.findall(r"(%[\w.]+): !tt", re.search(r"tt\.func public .*", text).group())
    names = {
        [each for each in given if re.fullmatch(rf"%{name}([._]\d+)?", each)][place]
        for name, place in arguments.items()
    }
    for name, rest in re.findall(r"(%[\w#]+) = (tt\.(?:addptr|splat) .*)", text):
        if {*re.findall(r"%[\w.]+", rest.split(" : ")[0])} & names:
            names.add(name)
    for pointer, size in re.findall(rf"tt\.{kind} (%\w+).* tensor<([\dx]+)x!tt\.ptr<f32>>", text):
        lanes += [size] if pointer in names else []
    return lanes


@pytest.mark.parametrize("cell", ["stagenet", "gru"])
def test_products_of_float32_are_split_in_three(cell):
    for kernel in (forward(cell), backward(cell)):
        products = re.findall(r"tt\.dot .*", kernel.asm["ttir"])
        assert products
        assert all("inputPrecision = tf32x3" in each for each in products)


# Of both streams: the input's gates, and c or a GRU's h. Back: m_h, the carried multiplier and the coefficients.
READ = {"stagenet": (10, 10), "lstm": (10, 8), "gru": (8, 7), "rnn_tanh": (2, 2)}
# The coefficients, h and c. Back: the gates and the carried multiplier.
WRITTEN = {"stagenet": (12, 5), "lstm": (10, 5), "gru": (7, 5), "rnn_tanh": (3, 1)}


@pytest.mark.parametrize("cell", READ)
def test_each_number_of_a_unit_is_read_and_written_once(cell):
    kernel = forward(cell)
    assert loads(kernel)["32x16"] == READ[cell][0]
    assert loads(kernel)["64x16"] == 1  # h of both streams, for the product
    assert widest(kernel, "fp32")[1] == WRITTEN[cell][0]
    kernel = backward(cell)
    assert loads(kernel)["64x16"] == READ[cell][1] + (cell == "stagenet")  # and the shares of the master gates
    assert loads(kernel)["64x32"] == 1  # d of the step after, for the product
    assert widest(kernel, "fp32")[1] == WRITTEN[cell][1]


@pytest.mark.parametrize("cell", READ)
def test_a_shared_baseline_is_read_once_for_all_rows(cell):
    found, alone = loads(forward(cell, shared=True)), READ[cell][0] // 2
    assert found["64x16"] == alone + 1  # of the samples, and h for the product
    assert found["1x16"] == alone + loads(forward(cell))["1x16"]  # of the baseline, and the bias


@pytest.mark.parametrize("cell", READ)
def test_units_are_read_16_bytes_at_a_time(cell):
    assert widest(forward(cell), "fp32")[0] >= READ[cell][0]
    assert widest(backward(cell), "fp32")[0] >= READ[cell][1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_windows_are_read_and_written_16_bytes_at_a_time(dtype):
    for kernel in (staged(dtype), staged(dtype, 0.5)):
        loads, stores = widest(kernel, dtype)
        assert loads >= 1
        assert stores >= 1


def kernels(dtype):
    yield from (forward(cell, dtype) for cell in READ)
    yield from (backward(cell, dtype) for cell in READ)
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
