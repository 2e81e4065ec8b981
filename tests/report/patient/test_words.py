import re
from dataclasses import replace

import patient_cases as cases
import pytest
from cohort_folders import draw, write

from deeplift_fast.report.described import described, reference
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.patient.columns import columns_of
from deeplift_fast.report.patient.items import items_of
from deeplift_fast.report.patient.rows import likelihood, read_sample
from deeplift_fast.report.patient.words import about_of, facts_of, lead_of, limits_of, reasons_of


@pytest.fixture
def folder(five):
    return CohortFolder(five)


@pytest.fixture
def sample(folder):
    return read_sample(folder, 0)


def facts(sample, folder, pseudonymous=False):
    return dict(facts_of(sample, described(folder), items_of(sample, None), "", pseudonymous))


def test_the_first_sentences_say_risk_model_and_reference(sample, folder):
    lead = lead_of(sample, described(folder))
    assert (lead.risk, lead.sentence) == ("40 %", "is the probability of mortality that StageNet predicts.")
    assert "no code in it and every value at its median" in lead.compared
    assert f"predicts {100 * likelihood(sample.baseline_output):.0f} %." in lead.compared


@pytest.mark.parametrize(
    ("mode", "probability", "risk", "what"),
    [
        ("multiclass", 0.7, "70 %", "mortality = 0 "),
        ("multilabel", 0.7, "70 %", "label 0 of mortality"),
        ("regression", None, "−0.4", "what StageNet predicts for mortality"),
        ("", 0.7, "70 %", "probability of mortality"),
    ],
)
def test_every_kind_of_outcome_has_words(sample, folder, mode, probability, risk, what):
    lead = lead_of(replace(sample, probability=probability), replace(described(folder), mode=mode))
    assert lead.risk == risk
    assert what in lead.sentence
    assert "as its logit" in lead.compared or probability is None


def test_reasons_have_value_unit_and_day(sample):
    items = items_of(sample, cases.Named())
    columns = columns_of(sample)
    reasons = reasons_of(items, columns, "logit")
    assert [reason.title for reason in reasons] == [item.title for item in items[:3]]
    assert all(reason.did.split(" by ")[0] in ("raised the logit", "lowered the logit") for reason in reasons)
    values = [item for item in items if item.is_value]
    (first,) = reasons_of(values[:1], columns, "logit")
    strongest = max(values[0].rows, key=lambda row: row.attribution * values[0].attribution)
    assert f"on day {strongest.day // 1:.0f}" in first.detail
    assert values[0].unit in first.detail
    (code,) = reasons_of([item for item in items if not item.is_value][:1], columns, "logit")
    assert code.detail.startswith("recorded on day ")


def test_a_carried_forward_reason_says_when_it_was_measured(sample):
    item = next(item for item in items_of(sample, cases.Named()) if item.code == "Osmolality")
    measured = [row for row in item.rows if row.measured]
    later = next(row for row in item.rows if not row.measured and row.step > measured[0].step)
    rows = tuple(replace(row, attribution=1.0 if row is later else 0.0) for row in item.rows)
    (reason,) = reasons_of([replace(item, rows=rows, attribution=1.0)], columns_of(sample), "logit")
    before = [row for row in measured if row.step < later.step][-1]
    assert reason.detail.startswith(f"not measured on day {later.day // 1:.0f}: last {before.value:.4g} mOsm/kg on day")


def test_without_days_the_place_in_the_data_is_said(one):
    sample = read_sample(CohortFolder(one), 0)
    reasons = reasons_of(items_of(sample, None), columns_of(sample), "logit")
    assert all(" at time " in reason.detail for reason in reasons)


def test_facts_say_how_complete_it_is(sample, folder):
    found = facts(sample, folder)
    assert found["Completeness"].endswith("of the change: complete.")
    assert found["Model"] == "StageNet, weights ab12ab12ab12…; explained: logit 0 of mortality"
    assert "typical 0123456789ab" in found["Reference"]
    assert found["Rule set"].startswith("complete: ")
    assert found["Record"] == f"sample 0 of the cohort, visit {cases.VISIT}"
    assert found["Split"] == "test"
    assert re.search(r"deeplift_fast 0.1.0, .*, attributed from \d{4}-\d\d-\d\d on$", found["Made by"])
    assert "Cancellation" not in found
    assert "Record" not in facts(sample, folder, pseudonymous=True)
    far = replace(sample, convergence_delta=0.5, split="train")
    assert "not complete" in facts(far, folder)["Completeness"]
    assert "trained on this sample" in facts(far, folder)["Split"]
    cancelling = replace(sample, output=sample.baseline_output + 0.001)
    assert "a single one says little" in facts(cancelling, folder)["Cancellation"]
    still = replace(sample, output=sample.baseline_output)
    assert "more than" in facts(still, folder)["Cancellation"]


def test_the_record_in_one_line(sample, fifty):
    assert about_of(columns_of(sample), sample) == "5 stays, 340 entries, day 0 to day 168"
    many = read_sample(CohortFolder(fifty), 0)
    assert about_of(columns_of(many), many).startswith("50 stays, 6,500 entries")


def test_limits_name_hollow_cells_where_there_are_any():
    assert len(limits_of(True)) == len(limits_of(False)) + 1
    assert any("not what causes the outcome" in each for each in limits_of(False))


def test_references_are_words():
    assert reference("removed") == "the same record with no code and no value in it"
    assert "median" in reference("typical 0123")
    assert reference("a: removed; b: unk") == "the baseline “a: removed; b: unk”"


def test_a_manifest_that_says_little_still_has_words(tmp_path):

    folder = CohortFolder(write(tmp_path / "out", *draw()))
    run = described(folder)
    assert (run.model, run.outcome, run.mode) == ("MLP", "the outcome", "")
    assert lead_of(read_sample(folder, 3), run).sentence == "is the probability of the outcome that MLP predicts."
