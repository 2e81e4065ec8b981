"""Threads while a cohort is attributed: by the model, and as before afterwards; parts side by side."""

import sys
import threading
import time
from collections import deque

import pytest
import torch
from cohort_cases import cohort, contents, run

from deeplift_fast.cohort.threads import HEAVY, MOST_LANES, TURN, Lanes, lanes_for, threads_for


def test_small_models_with_fused_layers_go_side_by_side(two_threads):
    _, model = cohort("Transformer, one row")
    assert lanes_for(model, fuse=True) == 2
    assert lanes_for(model, fuse=False) == 1  # operation by operation some models draw at random
    assert lanes_for(model.train(), fuse=True) == 1
    torch.set_num_threads(2 * MOST_LANES)
    assert lanes_for(model.eval(), fuse=True) == MOST_LANES


def test_heavy_models_and_others_do_not(two_threads):
    _, model = cohort("Transformer, one row")
    model.fc = torch.nn.Linear(HEAVY, 1, bias=False)
    assert lanes_for(model, fuse=True) == 1
    assert lanes_for(torch.nn.Linear(1, 1).eval(), fuse=True) == 1


def test_threads_are_divided_and_as_before_afterwards(two_threads):
    seen = []
    with threads_for(2):
        started = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        started.start()
        started.join()
        seen.append(torch.get_num_threads())
    assert seen == [1, 1]
    assert torch.get_num_threads() == 2


def test_parts_side_by_side_take_turns_often(two_threads):
    before = sys.getswitchinterval()
    with threads_for(1):
        assert sys.getswitchinterval() == before
    with threads_for(2):
        assert sys.getswitchinterval() == pytest.approx(TURN)
    assert sys.getswitchinterval() == before


def test_as_before_after_an_error(two_threads):
    with pytest.raises(ZeroDivisionError), threads_for(2):
        _ = 1 / 0
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_order_and_few_are_held(count):
    taken, most = [], []

    def given():
        for item in range(20):
            taken.append(item)
            yield item

    def call(item):
        time.sleep(0.002 * (item % 3))
        return item

    with Lanes(count) as lanes:
        found = []
        for item in lanes.each(call, given()):
            found.append(item)
            most.append(len(taken) - len(found))
    assert found == list(range(20))
    assert lanes.idle() == 1
    assert max(most) <= count


@pytest.mark.parametrize("count", [1, 2])
def test_what_came_before_an_error_of_what_is_given_is_kept(count):
    def given():
        yield from range(5)
        raise KeyError("unreadable")

    found = []
    with pytest.raises(KeyError, match="unreadable"), Lanes(count) as lanes:
        deque(map(found.append, lanes.each(lambda item: item, given())))
    assert found == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_ends_it(count):
    def call(item):
        if item == 3:
            raise OSError("full")
        return item

    with pytest.raises(OSError, match="full"), Lanes(count) as lanes:
        list(lanes.each(call, range(100)))


def test_side_by_side_gives_the_bytes_of_one_after_the_other(tmp_path, monkeypatch, two_threads):
    data, model = cohort("Transformer, one row")
    run(model, data, tmp_path / "lanes", part_samples=3)
    monkeypatch.setattr("deeplift_fast.cohort.threads.MOST_LANES", 1)
    torch.set_num_threads(1)
    run(model, data, tmp_path / "one", part_samples=3)
    assert contents(tmp_path / "lanes") == contents(tmp_path / "one")
