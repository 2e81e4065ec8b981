"""Named players of `DeepLift.interactions`, its errors, its table, and what it leaves unchanged."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from interaction_cases import MANY_CODES, close, model_of, positions_of, samples_of, whole

from deeplift_fast import DeepLift, Interactions, Player
from deeplift_fast.pyhealth.interactions import COLUMNS

pytestmark = pytest.mark.filterwarnings("ignore:Feature .* does not have time intervals", "ignore:.*before rescaling")


@pytest.fixture(scope="module")
def nested():
    data = samples_of("nested_sequence", MANY_CODES)
    return model_of("Transformer", data), whole(data), data.input_processors["codes"].code_vocab


def test_codes_by_text_or_index_for_all_patients(nested):
    made, given, vocabulary = nested
    deeplift = DeepLift(made, rules="complete")
    two = {"codes": given["codes"][[0, 2]]}
    by_text = deeplift.interactions(players=[("codes", "b"), ("codes", "a")], **two)
    assert [[player.code for player in players] for players in by_text.players] == [["b", "a"]] * 2
    assert by_text.players[1][0] == Player("codes", vocabulary["b"], "b", ((0, 0), (1, 1), (1, 2)))
    by_index = deeplift.interactions(players=[("codes", vocabulary["b"]), ("codes", vocabulary["a"])], **two)
    assert by_index.players == by_text.players
    torch.testing.assert_close(by_index.values, by_text.values, rtol=0, atol=0, equal_nan=True)
    assert not by_text.contributions.isnan().any()


def test_integers_of_numpy(nested):
    made, given, vocabulary = nested
    deeplift = DeepLift(made, rules="complete")
    plain = deeplift.interactions(top=3, rows_at_once=2, steps=2, target_class_idx=1, **given)
    top, rows, steps, target = np.array([3, 2, 2, 1])
    found = deeplift.interactions(top=top, rows_at_once=rows, steps=steps, target_class_idx=target, **given)
    torch.testing.assert_close(found.values, plain.values, rtol=0, atol=0, equal_nan=True)
    code, place = np.int64(vocabulary["b"]), np.array([1, 1])
    (one,) = deeplift.interactions(
        players=[("codes", code, [tuple(place)]), ("codes", "g")], codes=given["codes"][[2]]
    ).players
    assert one[0] == Player("codes", vocabulary["b"], "b", ((1, 1),))
    assert {type(number) for number in (one[0].token, *one[0].positions[0])} == {int}


def test_each_patient_has_players_of_its_own(nested):
    made, given, _ = nested
    deeplift = DeepLift(made, rules="complete")
    strongest = deeplift.interactions(top=3, **given)
    named = deeplift.interactions(players=strongest.players, **given)
    assert named.players == strongest.players
    for name in ("values", "contributions", "without", "output", "baseline_output"):
        torch.testing.assert_close(getattr(named, name), getattr(strongest, name), equal_nan=True)
    turned = deeplift.interactions(players=[players[::-1] for players in strongest.players], **given)
    assert turned.players[2] == strongest.players[2][::-1]
    torch.testing.assert_close(turned.values[2], strongest.values[2].flip(0, 1), equal_nan=True)
    nobody = deeplift.interactions(players=[[], strongest.players[1], [], []], **given)
    assert [len(each) for each in nobody.players] == [0, 2, 0, 0]
    assert nobody.values[[0, 2, 3]].isnan().all()
    assert nobody.values.shape == (4, 2, 2)


@pytest.mark.usefixtures("float64")
def test_positions_are_players_of_their_own(nested):
    data = samples_of("nested_sequence", MANY_CODES)
    made, given = model_of("Transformer", data), whole(data)
    deeplift = DeepLift(made, rules="complete")
    one = {"codes": given["codes"][[2]]}
    places = [("codes", "b", [(0, 0)]), ("codes", "b", [(1, 2), (1, 1)]), ("codes", "g")]
    found = deeplift.interactions(players=places, **one)
    assert [player.positions for player in found.players[0]] == [((0, 0),), ((1, 2), (1, 1)), ((1, 0),)]
    full = deeplift.explain(**one).contributions["codes"]
    close(found.contributions[0], torch.stack([full[0, 0, 0], full[0, 1, 1] + full[0, 1, 2], full[0, 1, 0]]))
    for i, player in enumerate(found.players[0]):
        mask = positions_of(player, one["codes"], 0)
        close(found.without[0, i], deeplift.explain(at_baseline={"codes": mask}, **one).baseline_output[0])
    exact = deeplift.interactions(players=places, exact=True, **one)
    close(found.without, exact.without)
    assert exact.contributions.isnan().all()
    assert exact.baseline_output.isnan().all()
    assert exact.exact


def test_positions_of_a_flat_sequence_are_numbers():
    data = samples_of("sequence", MANY_CODES)
    made, given = model_of("MLP", data), whole(data)
    one = {"codes": given["codes"][[0]]}
    found = DeepLift(made, rules="complete").interactions(players=[("codes", "a", [0]), ("codes", "a", [(3,)])], **one)
    assert [player.positions for player in found.players[0]] == [((0,),), ((3,),)]


WRONG = [
    ({"top": 1}, ValueError, "top is 1; accepted: 2 to 64"),
    ({"top": 65}, ValueError, "top is 65; accepted: 2 to 64"),
    ({"top": 0}, ValueError, "top is 0; accepted: 2 to 64"),
    ({"top": -3}, ValueError, "top is -3"),
    ({"top": 2.0}, TypeError, "top is 2.0; accepted: an int from 2 to 64"),
    ({"top": True}, TypeError, "top is True"),
    ({"top": None}, TypeError, "top is None"),
    ({"exact": 1}, TypeError, "exact is 1; accepted: True or False"),
    ({"rows_at_once": 0}, ValueError, "rows_at_once is 0"),
    ({"rows_at_once": 2.5}, TypeError, "rows_at_once is 2.5"),
    ({"steps": 0}, ValueError, "steps is 0"),
    ({"baseline": "zero"}, ValueError, "baseline is 'zero'"),
    ({"target_class_idx": 2}, ValueError, "target_class_idx is 2"),
    ({"players": []}, TypeError, "players is []"),
    ({"players": "a"}, TypeError, "players is 'a'"),
    ({"players": {"codes": "a"}}, TypeError, "players is {'codes': 'a'}"),
    ({"players": [("codes", "a")]}, ValueError, "players names 1 player"),
    ({"players": [("codes", "a"), "b"]}, TypeError, "players holds ('codes', 'a')"),
    ({"players": [[("codes", "a")], [("codes",)], []]}, TypeError, "players holds [('codes',)]"),
    ({"players": [[("codes", "a")]]}, ValueError, "players has 1 list(s), and the batch 2 patient(s)"),
    ({"players": [("labs", "a"), ("codes", "a")]}, ValueError, "players names feature 'labs'; accepted: ['codes']"),
    ({"players": [("codes", "z"), ("codes", "a")]}, ValueError, "'z', which is not in the vocabulary of feature"),
    ({"players": [("codes", "a"), ("codes", "d")]}, ValueError, "'d' of feature 'codes', which patient 1 of the batch"),
    ({"players": [("codes", "a"), ("codes", 0)]}, ValueError, "code 0 of feature 'codes', which patient 0"),
    ({"players": [("codes", "a"), ("codes", 99)]}, ValueError, "code 99 of feature 'codes', which patient 0"),
    ({"players": [("codes", "a"), ("codes", 2.0)]}, TypeError, "code 2.0 of feature 'codes'; accepted: a text or"),
    ({"players": [("codes", "a"), ("codes", True)]}, TypeError, "code True of feature 'codes'"),
    ({"players": [("codes", "a"), ("codes", "a")]}, ValueError, "position (0, 0) of feature 'codes' twice"),
    ({"players": [("codes", "b"), ("codes", "a", [(9, 0)])]}, ValueError, "(9, 0) lies outside"),
    ({"players": [("codes", "b"), ("codes", "a", [(-1, 0)])]}, ValueError, "(-1, 0) lies outside"),
    ({"players": [("codes", "b"), ("codes", "a", [(0, 1)])]}, ValueError, "(0, 1) is padding"),
    ({"players": [("codes", "b"), ("codes", "a", [(1, 0)])]}, ValueError, "(1, 0) holds another code than"),
    ({"players": [("codes", "b"), ("codes", "a", [0])]}, TypeError, "accepted: a list of indices into the sample's"),
    ({"players": [("codes", "b"), ("codes", "a", [])]}, TypeError, "accepted: a list of indices"),
    ({"players": [("codes", "b"), ("codes", "a", 0)]}, TypeError, "accepted: a list of indices"),
    ({"at_baseline": {}}, TypeError, "at_baseline is given, which only explain takes"),
    ({"players": [[Player("codes", 2, "z", ((0, 0),))], []]}, ValueError, "code 'z' with token 2 of feature 'codes', "),
    ({"players": [[("codes", "a", [(0, 0), (0, 0)])], []]}, ValueError, "(0, 0) stands there twice"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "kind", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_bad_arguments(nested, arguments, kind, message):
    made, given, _ = nested
    with pytest.raises(kind, match=re.escape(message)):
        DeepLift(made, rules="complete").interactions(**arguments, codes=given["codes"][[0, 2]])


def test_a_model_without_codes(cases):
    data = cases.dataset("timeseries", patients=5)
    made, given = cases.model("Transformer", data), cases.batch(data)
    with pytest.raises(ValueError, match=r"interactions are between codes; .* hold values: \['timeseries'\]"):
        DeepLift(made, rules="complete").interactions(**given)


def test_a_feature_of_values(cases):
    data = cases.dataset("sequence", "timeseries", patients=5)
    made, given = cases.model("Transformer", data), cases.batch(data)
    with pytest.raises(ValueError, match=r"'timeseries', which holds values; accepted: \['sequence'\]"):
        DeepLift(made, rules="complete").interactions(players=[("timeseries", 0), ("sequence", 2)], **given)


def test_rules_of_pyhealth(nested):
    made, given, _ = nested
    with pytest.raises(ValueError, match=r'rules is "pyhealth".* accepted for interactions: "rescale"'):
        DeepLift(made, rules="pyhealth").interactions(**given)


def test_missing_features(nested):
    with pytest.raises(ValueError, match="lacks the feature"):
        DeepLift(nested[0], rules="complete").interactions()


@pytest.mark.parametrize("exact", [False, True])
def test_a_batch_of_nobody(nested, exact):
    made, given, _ = nested
    found = DeepLift(made, rules="complete").interactions(exact=exact, codes=given["codes"][:0])
    assert found.players == []
    assert found.values.shape == (0, 0, 0)
    assert found.contributions.shape == found.without.shape == (0, 0)
    assert found.output.shape == found.baseline_output.shape == found.target.shape == (0,)
    assert found.to_dataframe().empty
    assert list(found.to_dataframe().columns) == list(COLUMNS)


@pytest.mark.parametrize("players", ["x", [[]], [("codes", "a")]], ids=str)
def test_players_of_nobody(nested, players):
    deeplift, nobody = DeepLift(nested[0], rules="complete"), {"codes": nested[1]["codes"][:0]}
    assert deeplift.interactions(players=[], **nobody).players == []
    with pytest.raises((TypeError, ValueError), match="players "):
        deeplift.interactions(players=players, **nobody)


@pytest.mark.parametrize("exact", [False, True])
def test_patients_without_codes(nested, exact):
    made, given, _ = nested
    codes = given["codes"].clone()
    codes[1] = 0
    found = DeepLift(made, rules="complete").interactions(exact=exact, codes=codes)
    assert [len(each) for each in found.players] == [4, 0, 6, 1]
    assert found.values[1].isnan().all()
    nothing = DeepLift(made, rules="complete").interactions(exact=exact, codes=codes[[1]])
    assert nothing.values.shape == (1, 0, 0)
    assert nothing.contributions.shape == nothing.without.shape == (1, 0)
    assert nothing.output.isfinite().all()
    assert nothing.to_dataframe().empty


def test_one_row_per_pair(nested):
    made, given, vocabulary = nested
    found = DeepLift(made, rules="complete").interactions(top=3, **given)
    table = found.to_dataframe()
    assert list(table.columns) == list(COLUMNS)
    assert table["sample"].tolist() == [0, 0, 0, 1, 2, 2, 2]
    rows = iter(table.itertuples(index=False))
    for sample, i, j in [(0, 0, 1), (0, 0, 2), (0, 1, 2), (1, 0, 1), (2, 0, 1), (2, 0, 2), (2, 1, 2)]:
        row, first, second = next(rows), found.players[sample][i], found.players[sample][j]
        assert (row.first_feature, row.first_code, row.first_token) == ("codes", first.code, vocabulary[first.code])
        assert (row.second_feature, row.second_code, row.second_token) == ("codes", second.code, second.token)
        assert row.interaction == found.values[sample, i, j].item()
        assert row.first_contribution == found.contributions[sample, i].item()
        assert row.second_contribution == found.contributions[sample, j].item()
        assert row.output == found.output[sample].item()
        assert row.output_without_first == found.without[sample, i].item()
        assert row.output_without_second == found.without[sample, j].item()


def test_nothing_else_changes(nested, cases):
    made, given = copy.deepcopy(nested[0]).train(), copy.deepcopy(nested[1])
    deeplift = DeepLift(made, rules="complete")
    deeplift.attribute(**given)
    report, before, kept = deeplift.report(), copy.deepcopy(made.state_dict()), copy.deepcopy(given)
    state = torch.get_rng_state()
    for exact in (False, True):
        found = deeplift.interactions(exact=exact, **given)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())
    assert torch.equal(given["codes"], kept["codes"])
    assert deeplift.report() is report
    assert not found.values.requires_grad
    assert pickle.loads(pickle.dumps(found)).players == found.players
    assert isinstance(found, Interactions)
    with pytest.raises(AttributeError):
        found.exact = False
