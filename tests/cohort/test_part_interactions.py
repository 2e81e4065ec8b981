"""A part's table `interactions` against rows put down one by one."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deeplift_fast.cohort.part_interactions import interactions_table, pair_columns
from deeplift_fast.cohort.part_tables import Texts
from deeplift_fast.cohort.tables import INTERACTIONS
from deeplift_fast.pyhealth.interactions import Interactions
from deeplift_fast.pyhealth.players import Player

KEYS = ["codes", "drugs"]
IDENTIFIERS = {"patient_id": ["p", "q", "r"], "visit_id": [None, "v", None]}


class Tokens:
    code_vocab = {"<pad>": 0, "<unk>": 1, "I10": 2, "E11": 3}  # noqa: RUF012

    def is_token(self):
        return True


def both():
    """Texts of two features with one vocabulary."""
    dataset = SimpleNamespace(input_processors={key: Tokens() for key in KEYS})
    return Texts(SimpleNamespace(feature_keys=KEYS, dataset=dataset))


def asked(*players, dtype=torch.float32):
    """Interactions of samples with these players, each a feature and a token; the numbers are drawn."""
    draw, most = torch.Generator().manual_seed(0), max(map(len, players))
    values = torch.randn(len(players), most, most, generator=draw, dtype=torch.float64).to(dtype)
    values, rest = values + values.transpose(1, 2), torch.randn(2, len(players), most, generator=draw).to(dtype)
    for row, own in enumerate(players):
        values[row, len(own) :], values[row, :, len(own) :], rest[:, row, len(own) :] = (torch.nan,) * 3
    named = [[Player(feature, token, None, ((0,),)) for feature, token in own] for own in players]
    numbers = torch.zeros(len(players))
    return Interactions(named, values, *rest, numbers, numbers, numbers.long(), False, "removed")


def naively(batches):
    vocabulary = ["<pad>", "<unk>", "I10", "E11", "4", "5"]
    rows = []
    for found, which in batches:
        for place, number in enumerate(which):
            players = [
                (KEYS.index(each.feature), vocabulary[each.token], n) for n, each in enumerate(found.players[place])
            ]
            for (one, first, i), (other, second, j) in itertools.combinations(sorted(players), 2):
                numbers = (found.values[place, i, j], found.contributions[place, i], found.contributions[place, j])
                numbers += (found.without[place, i], found.without[place, j])
                who = (IDENTIFIERS["patient_id"][number - 10], IDENTIFIERS["visit_id"][number - 10])
                named = (KEYS[one], first, KEYS[other], second)
                rows.append((number, *who, *named, *(float(np.float32(each.item())) for each in numbers)))
    return sorted(rows, key=lambda row: row[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_are_ordered_by_sample_feature_and_text(dtype):
    last = asked([("drugs", 2), ("codes", 2), ("codes", 5), ("codes", 3)], dtype=dtype)
    first = asked([("codes", 3), ("codes", 2)], [("codes", 1)], dtype=dtype)
    batches = [(last, np.array([12])), (first, np.array([10, 11]))]
    known = both()
    columns = [pair_columns(known, KEYS, found, which) for found, which in batches]
    table = interactions_table(columns, 10, IDENTIFIERS, KEYS, known)
    assert table.schema.equals(INTERACTIONS)
    assert [tuple(row.values()) for row in table.to_pylist()] == naively(batches)
    assert len(table) == 7
    assert table["second_code"].to_pylist()[:3] == ["I10", "E11", "I10"]


def test_a_part_without_batches_has_no_rows():
    assert interactions_table([], 10, IDENTIFIERS, KEYS, both()).num_rows == 0


def test_samples_that_are_not_finite_are_found_and_left_out():
    found = asked([("codes", 3), ("codes", 2)], [("codes", 1), ("codes", 2)])
    found.without[1, 1] = torch.inf
    columns = pair_columns(both(), KEYS, found, np.array([10, 12]))
    assert columns.not_finite().tolist() == [12]
    assert columns.of(np.array([10])).sample.tolist() == [10]
