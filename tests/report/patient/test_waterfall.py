import math
import re
from dataclasses import replace

import patient_cases as cases
import pytest

from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.patient.items import items_of
from deeplift_fast.report.patient.rows import read_sample
from deeplift_fast.report.patient.waterfall import TOP, waterfall_of


@pytest.fixture
def sample(five):
    return read_sample(CohortFolder(five), 0)


def number(text):
    return float(re.sub("[▲▼ ]", "", text).replace("−", "-"))


def test_bars_lead_from_the_reference_to_the_prediction_in_logits(sample):
    items = items_of(sample, cases.Named())
    found = waterfall_of(sample, items)
    assert [bar.title for bar in found.bars] == [*(item.title for item in items[:TOP]), f"{len(items) - TOP} others"]
    assert sum(number(bar.moved) for bar in found.bars) == pytest.approx(sample.change, abs=0.01)
    assert number(found.begin) + sample.change == pytest.approx(number(found.end), abs=0.002)
    scale = (found.end_at - found.begin_at) / sample.change  # percent of the width for a logit
    begin = found.begin_at
    for bar in found.bars:
        value = number(bar.moved)
        assert bar.end - begin == pytest.approx(value * scale, abs=0.05)
        assert (bar.left, bar.left + bar.width) == pytest.approx(sorted((begin, bar.end)), abs=0.02)
        assert bar.style == ("p" if value > 0 else "n")
        assert 0 <= bar.left <= bar.left + bar.width <= 100
        begin = bar.end
    assert begin == pytest.approx(found.end_at, abs=0.02)


def test_probabilities_are_ticks_at_their_logits(sample):
    found = waterfall_of(sample, items_of(sample, None))
    scale = (found.end_at - found.begin_at) / sample.change
    assert len(found.probabilities) >= 2
    for tick in found.probabilities:
        part = float(tick.text.removesuffix(" %")) / 100
        logit = math.log(part / (1 - part))
        assert tick.place == pytest.approx(found.begin_at + (logit - sample.baseline_output) * scale, abs=0.02)
    for tick in found.ticks:
        place = found.begin_at + (number(tick.text) - sample.baseline_output) * scale
        assert tick.place == pytest.approx(place, abs=0.02)


def test_without_a_sigmoid_there_are_no_probabilities(sample):
    items = items_of(sample, None)
    assert waterfall_of(replace(sample, probability=None), items).probabilities == ()
    assert waterfall_of(replace(sample, probability=0.9), items).probabilities == ()  # of several classes


def test_what_the_contributions_miss_has_a_bar(sample):
    moved = replace(sample, output=sample.output + 1, probability=None)
    found = waterfall_of(moved, items_of(sample, None))
    assert (found.bars[-1].title, found.bars[-1].style) == ("not accounted for", "gap")
    assert number(found.bars[-1].moved) == pytest.approx(1, abs=0.01)
    assert found.bars[-1].end == pytest.approx(found.end_at, abs=0.02)


def test_one_more_item_than_bars_needs_no_others(sample):
    items = items_of(sample, None)[: TOP + 1]
    end = sample.baseline_output + sum(item.attribution for item in items)
    found = waterfall_of(replace(sample, output=end, probability=None), items)
    assert [bar.title for bar in found.bars] == [item.title for item in items]


def test_a_sample_that_nothing_moved_has_a_waterfall(sample):
    still = replace(sample, output=sample.baseline_output, probability=None)
    found = waterfall_of(still, [])
    assert found.bars == ()
    assert found.begin_at == found.end_at
