"""The study of interactions runs, in a small part; its patients are drawn as said."""

import interactions
import interactions_hospital
import pytest


def test_pairs():
    assert interactions_hospital.is_pair("a1", "b1")
    assert interactions_hospital.is_pair("b2", "a2")
    for first, second in (("a1", "b2"), ("a1", "a1"), ("c1", "b1"), ("r1", "s1"), ("a1", None)):
        assert not interactions_hospital.is_pair(first, second)


def test_patients_have_pairs_by_chance():
    patients = interactions_hospital.patients(1, 300)
    assert patients == interactions_hospital.patients(1, 300)
    codes = [{code for visit in patient["codes"] for code in visit} for patient in patients]
    both = [{f"a{pair}", f"b{pair}"} <= each for each in codes for pair in range(interactions_hospital.PAIRS)]
    assert sum(both) / len(both) == pytest.approx(interactions_hospital.OFTEN**2, abs=0.06)
    assert 0.35 < sum(patient["label"] for patient in patients) / 300 < 0.65
    stronger = interactions_hospital.patients(1, 300, weight=10.0)
    assert [patient["codes"] for patient in stronger] == [patient["codes"] for patient in patients]
    assert 0.35 < sum(patient["label"] for patient in stronger) / 300 < 0.65


def test_one_model_is_measured(monkeypatch):
    monkeypatch.setattr(interactions, "WAYS", {"complete, 1 step": ("complete", 1)})
    monkeypatch.setattr(interactions, "ROUNDS", 1)
    monkeypatch.setattr(interactions_hospital, "HELD_OUT", 50)
    row = interactions.measured("Transformer", 1, most=1, train=64)
    assert row["epochs"] == 1
    assert 0 < row["planted"] < row["pairs"] <= 50 * 28
    assert -1 <= row["ways"]["complete, 1 step"]["spearman"] <= 1
    spent = interactions.cost("Transformer")
    assert 8 < spent["records_per_patient"] <= 9
    table = interactions.table({"models": {"Transformer": {"6": {"1": row}}}, "cost": {"Transformer": spent}})
    assert "| Transformer | 6 | 1 | 1 |" in table
