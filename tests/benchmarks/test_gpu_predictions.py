"""What is predicted on paper: against the tensors of the ops, the arithmetic of the models, and the page."""

import random

import pytest
import torch
from arithmetic import stagenet_flops
from gpu_cases import CASES
from gpu_kernels import KERNELS
from gpu_model import H100, Work, eager, in_a_graph, on_device, on_host, product_rate
from gpu_predictions import PAGE, Sizes, predictions, stagenet, with_tables
from model_cases import STAGENET, first_batch, make_dataset, make_model

from deeplift_fast import ops

COMPARED = [kernel for kernel in KERNELS if kernel.case]


def test_every_op_is_in_the_table():
    assert set(ops.SCHEMAS) <= {kernel.op for kernel in KERNELS}


@pytest.mark.parametrize("kernel", COMPARED, ids=lambda kernel: kernel.op)
def test_bytes_are_those_of_the_tensors(kernel):
    name, elements = kernel.case
    case = CASES[name]
    call = case.call(torch.float32, "meta", large=True)
    assert (kernel.read + kernel.written) * elements(call) == pytest.approx(case.bytes_moved(call), rel=0.03)


def test_the_slower_of_memory_and_arithmetic_decides():
    secant = next(kernel for kernel in KERNELS if kernel.op == "secant")
    assert secant.seconds(H100) == (20 / 3.35e12, "memory")
    assert secant.seconds(H100)[0] > secant.flops / H100.flops


@pytest.mark.parametrize("shape", [(1, 1, 1), (128, 384, 1542), (256, 3840, 384), (8192, 384, 1542)])
def test_no_product_is_faster_than_the_gpu(shape):
    rows, inner, columns = shape
    assert 0 < product_rate(H100, *shape) < H100.flops
    moved = 4 * (rows * inner + inner * columns + rows * columns)
    assert product_rate(H100, *shape) <= 2 * rows * inner * columns / moved * H100.bandwidth


def test_large_products_come_near_the_gpus_arithmetic_and_small_ones_do_not():
    assert product_rate(H100, 8192, 4096, 8192) > 0.8 * H100.flops
    assert product_rate(H100, 64, 384, 384) < 0.3 * H100.flops


def test_launches_decide_small_work_and_the_gpu_large_work():
    small, large = [Work("small", 100, 1e-7, triton=True)], [Work("large", 100, 1e-3)]
    assert on_host(H100, small) == pytest.approx(100 * H100.triton_launch)
    assert on_device(H100, small) == pytest.approx(100 * H100.gap)
    assert eager(H100, small) == pytest.approx(H100.call + on_host(H100, small))
    assert in_a_graph(H100, small) == pytest.approx(H100.call + on_device(H100, small))
    assert eager(H100, large) == in_a_graph(H100, large) == pytest.approx(H100.call + 0.1)


def test_stagenets_arithmetic_is_that_of_the_model():
    draw, visits, slots, labs = random.Random(0), 12, 5, 40
    samples = [
        {
            "patient_id": f"p{i}",
            "codes": ([24.0 * k for k in range(visits)], [[f"c{draw.randint(0, 99)}" for _ in range(slots)]] * visits),
            "labs": ([float(k) for k in range(labs)], [[draw.gauss(0, 1) for _ in range(10)] for _ in range(labs)]),
            "label": i % 2,
        }
        for i in range(4)
    ]
    dataset = make_dataset(samples, STAGENET.data)
    work = stagenet(H100, Sizes(4, (visits, labs), (slots, 0)))
    needed = stagenet_flops(make_model(STAGENET, dataset), first_batch(dataset, 4), distinct=False)
    # The first step has no state, and StageNet's first kernel no product of it.
    assert sum(each.times * each.products for each in work) == pytest.approx(needed, rel=0.05)


def test_graphs_and_larger_batches_never_slow_a_model_down():
    for name, batch, times in predictions(H100):
        assert times["device"] < times["graph"] <= times["eager"], name
        larger = [(b, t) for n, b, t in predictions(H100) if n == name and b > batch]
        assert all(b / t["graph"] > batch / times["graph"] for b, t in larger)


def test_the_page_holds_the_tables_as_they_are_computed():
    assert PAGE.read_text() == with_tables(PAGE.read_text(), H100)


def test_a_page_without_places_for_tables_is_refused():
    with pytest.raises(ValueError, match="kernels:start"):
        with_tables("nothing", H100)
