import contextlib
import io
import json
import re
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from deeplift_fast.cli import main
from deeplift_fast.cohort import ATTRIBUTIONS, SAMPLES
from deeplift_fast.demo import job, samples
from deeplift_fast.demo.hospital import write_hospital
from deeplift_fast.demo.job import DemoError, DemoOptions, run
from deeplift_fast.demo.model import Settings
from deeplift_fast.report.layout import width_of

TINY = Settings(embedding_dim=16, chunk_size=12, levels=2, epochs=1, batch_size=16, timed_samples=16)
TABLES = {"samples", "attributions", "failures.parquet", "manifest.json", ".lock"}
KEPT = {"best.ckpt", "processors", "recipe.py", "summary.parquet", "patient.html", "cohort.html"}
MIMIC_DEMO = Path(__file__).resolve().parents[2] / "../shared/data/mimic-demo"


def run_and_read(options: DemoOptions) -> str:
    """Runs the job; returns what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run(options, TINY) == 0
    return printed.getvalue()


def check_tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables, after checking what holds for every result."""
    for name, schema in (("samples", SAMPLES), ("attributions", ATTRIBUTIONS)):
        for part in (out / name).iterdir():
            assert pq.read_schema(part).equals(schema)
    found, rows = (pd.read_parquet(out / name) for name in ("samples", "attributions"))
    assert (found["sample"] == np.arange(len(found))).all()
    assert (found["target"] == 0).all()
    assert set(found["label"]) <= {0.0, 1.0}
    np.testing.assert_allclose(found["probability"], 1 / (1 + np.exp(-found["output"])), rtol=1e-5)
    sums = rows.groupby("sample")["attribution"].sum()
    np.testing.assert_allclose(sums, found["output"] - found["baseline_output"], atol=1e-3)
    assert set(rows["feature"]) == {"icd_codes", "labs"}
    assert (rows["value"].isna() | (rows["feature"] == "labs")).all()
    assert not {"<pad>", "<unk>"} & set(rows["code"])
    return found, rows


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The job on a hospital of 60 patients: its folder and what it printed."""
    out = tmp_path_factory.mktemp("job") / "out"
    return out, run_and_read(DemoOptions(out=out, patients=60))


def test_the_folder_holds_the_result_and_nothing_else(result):
    out, printed = result
    assert {path.name for path in out.iterdir()} == TABLES | KEPT | {"hospital", "report.txt"}
    assert list(out.parent.iterdir()) == [out]
    assert (out / "report.txt").read_text(encoding="utf-8") == printed
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    for path in out.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_it_ends_with_the_paths_of_two_pages(result):
    out, printed = result
    assert printed.rstrip("\n").split("\n")[-2:] == [f"  {out / name}" for name in ("patient.html", "cohort.html")]
    found = pd.read_parquet(out / "samples")
    held_out = found[found["split"] == "test"]
    highest = held_out.loc[held_out["probability"].idxmax()]
    patient, cohort = ((out / name).read_text(encoding="utf-8") for name in ("patient.html", "cohort.html"))
    assert f"Patient {highest['patient_id']}" in patient
    assert "was not run" not in patient
    assert not any(f"Patient {name}" in cohort for name in found["patient_id"])


def test_the_tables_hold_every_sample_and_name_codes_and_labs(result):
    out, _ = result
    found, rows = check_tables(out)
    stays = pd.read_csv(out / "hospital/hosp/admissions.csv.gz")
    count = stays.groupby("subject_id").size()
    again = set(count[count > 1].index.astype(str))  # codes are taken from stays before the last
    assert set(found["patient_id"]) == again
    died = stays.groupby("subject_id")["hospital_expire_flag"].max()
    labels = found.set_index("patient_id")["label"]
    assert all(labels[str(patient)] == died[patient] for patient in died.index if str(patient) in labels)
    coded = pd.concat([pd.read_csv(out / f"hospital/hosp/{k}_icd.csv.gz") for k in ("diagnoses", "procedures")])
    last = stays.groupby("subject_id")["hadm_id"].last()
    expected = coded[~coded["hadm_id"].isin(last)].groupby("subject_id")["icd_code"].apply(sorted)
    given = rows[rows["feature"] == "icd_codes"].groupby("patient_id", observed=True)["code"].apply(sorted)
    assert {p: given[p] for p in given.index} == {str(p): expected[p] for p in expected.index}


def test_lab_values_are_those_of_the_laboratory(result):
    out, _ = result
    rows = pd.read_parquet(out / "attributions")
    labs = pd.read_csv(out / "hospital/hosp/labevents.csv.gz")
    sodium = rows[(rows["code"] == "Sodium") & (rows["feature"] == "labs")]
    measured = set(labs[labs["itemid"].isin([50983, 50824])]["valuenum"])
    assert set(sodium["value"].round(3)) <= measured
    gaps = rows[(rows["feature"] == "labs") & rows["value"].isna()]
    assert "Osmolality" in set(gaps["code"])  # seldom measured, and null until it is


def test_the_report_fits_80_columns(result):
    out, printed = result
    wide = [line for line in printed.splitlines() if width_of(line) > 80 and str(out) not in line]
    assert wide == []


def test_steps_stand_under_the_days_and_stays_of_the_hospital(result):
    out, _ = result
    found, rows = check_tables(out)
    stays = pd.read_csv(out / "hospital/hosp/admissions.csv.gz", parse_dates=["admittime"])
    first = stays.groupby("subject_id")["admittime"].transform("min")
    stays["day"] = (stays["admittime"] - first).dt.total_seconds() / 86400
    begins = {patient: rows["day"].tolist() for patient, rows in stays.groupby(stays["subject_id"].astype(str))}
    for row in found.itertuples():
        assert [each["begin"] for each in row.stays] == pytest.approx(begins[row.patient_id], rel=1e-6)
        assert row.visit_id == row.stays[-1]["label"]
    day = dict(zip(stays["hadm_id"].astype(str), stays["day"], strict=True))
    codes = rows[rows["feature"] == "icd_codes"]
    np.testing.assert_allclose(codes["day"], codes["stay"].astype(str).map(day), rtol=1e-6)
    labs = rows[rows["feature"] == "labs"]
    after = labs["day"] - labs["stay"].astype(str).map(day)
    np.testing.assert_allclose(after, labs["time"], atol=1e-3)  # the model's times count from the stay's beginning
    assert (labs["measured"].astype(bool) == labs["value"].notna()).all()


def test_the_split_is_in_the_tables(result):
    out, printed = result
    found, _ = check_tables(out)
    count = found["split"].value_counts()
    assert count.to_dict() == {"train": int(0.7 * len(found)), "validation": count["validation"], "test": count["test"]}
    assert f"AUROC on {count['test']} held-out samples" in printed


@pytest.fixture
def no_recipe_stays(monkeypatch):
    """Recipes that a test loads are forgotten after it."""
    monkeypatch.setitem(sys.modules, "recipe", None)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.usefixtures("no_recipe_stays")
def test_later_commands_go_on_from_the_recipe(result, tmp_path):
    out, _ = result
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(out, moved)
    assert main(["run", f"{moved}/recipe.py:build", "--out", str(other)]) == 0
    for name in ("samples", "attributions"):
        before, now = (pd.read_parquet(folder / name) for folder in (out, other))
        pd.testing.assert_frame_equal(before, now, rtol=1e-4, atol=1e-6)  # batches may be others, and so last bits
    identities = [json.loads((folder / "manifest.json").read_text())["identity"] for folder in (out, other)]
    assert identities[0] == identities[1]  # a run in the demo's own folder would go on, too
    for path in (moved / "cache").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


@pytest.mark.usefixtures("no_recipe_stays")
def test_a_recipe_whose_tables_are_gone_says_where_it_looked(result, tmp_path, capsys):
    out, _ = result
    shutil.copytree(out, tmp_path / "moved", ignore=shutil.ignore_patterns("hospital"))
    assert main(["run", f"{tmp_path}/moved/recipe.py:build", "--out", str(tmp_path / "other")]) == 2
    assert f"{tmp_path}/moved/hospital is not a MIMIC-IV folder" in capsys.readouterr().err


def test_the_report_says_what_was_asked_for(result):
    out, printed = result
    for text in (
        'rules="complete"',
        "Baseline: typical ",
        "all codes are removed, as if none had been recorded",
        "lab values stand at their medians over the patients of the training part",
        "against their removal",
        "scales nothing",
        "a synthetic hospital of 60 patients",
        "held-out samples:",
        "of samples are complete to 1%",
        "risk codes above codes without effect",
        "planted labs above the others",
        "Essential (primary) hypertension",
        "Anion Gap",
        "PyHealth's DeepLift",
        f"{out}/samples  (",
        f"{out}/attributions  (",
        f"{out}/recipe.py  (for deeplift-fast run {out}/recipe.py:build)",
    ):
        assert text in printed
    assert "no sample left out" not in printed  # nothing is left out where nothing is rescaled
    assert max(map(len, printed.replace(str(out), "out").splitlines())) <= 100


def test_the_baseline_is_fitted_on_the_training_part_and_stands_everywhere(result):
    out, printed = result
    name = json.loads((out / "manifest.json").read_text())["identity"]["baseline"]
    assert re.fullmatch("typical [0-9a-f]{12}", name)
    assert f"Baseline: {name}\n" in printed
    for table in ("samples", "attributions"):
        metadata = pq.read_schema(out / table / "part-000000.parquet").metadata
        assert metadata[b"deeplift_fast.baseline"].decode() == name
    rows = pd.read_parquet(out / "attributions").query("feature == 'labs'")
    rows["measured"] = rows["measured"].astype(bool)
    begun = rows.groupby(["sample", "slot"])["measured"].cummax()
    assert (rows[~begun]["attribution"] == 0).all()  # never measured
    assert (rows[begun & ~rows["measured"]]["attribution"] != 0).any()  # carried forward


@pytest.mark.parametrize(
    ("rules", "baseline", "said"),
    [
        ("pyhealth", None, ("Baseline: unk", "against the unknown code", "drawn again", "no sample left out")),
        ("rescale", "removed", ("Baseline: removed", "against their removal", "as if never measured", "scales each")),
    ],
)
def test_the_report_says_what_is_true_of_other_baselines(tmp_path, rules, baseline, said):
    printed = run_and_read(DemoOptions(out=tmp_path / "out", patients=40, rules=rules, baseline=baseline))
    for text in (f'rules="{rules}"', *said):
        assert text in printed
    assert "medians" not in printed


def test_embeddings_are_trained_as_they_are_drawn(result, monkeypatch):
    out, _ = result
    import pyhealth.trainer

    from deeplift_fast.demo.model import train_stagenet

    drawn = {}

    class Trainer:
        def __init__(self, model, **_):
            drawn["std"] = model.embedding_model.embedding_layers["icd_codes"].weight[1:].std().item()

        def train(self, **_):
            pass

    monkeypatch.setattr(pyhealth.trainer, "Trainer", Trainer)
    root = out / "hospital"
    found = samples.load_samples(root, out.parent / "cache", 0)
    train_stagenet(found, TINY, 0, "cpu")
    shutil.rmtree(out.parent / "cache")
    assert drawn["std"] == pytest.approx(1, abs=0.1)  # as PyTorch draws an embedding


@pytest.fixture
def no_work(monkeypatch):
    """The job, with a stand-in for all that takes time."""

    def work(folder, options, settings):
        (folder / "attributions").mkdir()
        (folder / "attributions" / "part").write_text(f"seed {options.seed}")
        return "report", 0

    monkeypatch.setattr(job, "_run_in", work)


def test_a_result_is_replaced_only_by_force(no_work, tmp_path, capsys):
    out = tmp_path / "some" / "out"
    run(DemoOptions(out=out))
    with pytest.raises(DemoError, match=r"exists already.*--force"):
        run(DemoOptions(out=out, seed=1))
    assert (out / "attributions" / "part").read_text() == "seed 0"
    run(DemoOptions(out=out, seed=1, force=True))
    assert (out / "attributions" / "part").read_text() == "seed 1"
    assert list(out.parent.iterdir()) == [out]
    assert capsys.readouterr().out.startswith("report")


def test_force_never_replaces_anything_but_a_result(no_work, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name in ("home", "file"):
        with pytest.raises(DemoError, match="not a result of this job"):
            run(DemoOptions(out=tmp_path / name, force=True))
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_samples_that_failed_are_told_by_the_exit_code(monkeypatch, tmp_path):
    monkeypatch.setattr(job, "_run_in", lambda folder, *_: ("report", 2))
    assert run(DemoOptions(out=tmp_path / "out")) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_is_cut_short_leaves_nothing(monkeypatch, tmp_path, error):
    def stop(root, cache, seed):
        assert (root / "hosp/labevents.csv.gz").is_file()
        cache.mkdir()
        raise error

    monkeypatch.setattr(samples, "load_samples", stop)
    with pytest.raises(error):
        run(DemoOptions(out=tmp_path / "out", patients=20), TINY)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_result_that_force_would_have_replaced(no_work, monkeypatch, tmp_path):
    run(DemoOptions(out=tmp_path / "out"))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_run_in", stop)
    with pytest.raises(KeyboardInterrupt):
        run(DemoOptions(out=tmp_path / "out", force=True))
    assert (tmp_path / "out" / "attributions" / "part").read_text() == "seed 0"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": "rescaled"}, "rules is 'rescaled'; accepted"),
        ({"baseline": "usual"}, "--baseline is 'usual'; accepted names: 'unk', 'removed', 'typical'"),
        ({"rules": "pyhealth", "baseline": "typical"}, "--baseline is 'typical'; accepted under rules"),
        ({"patients": 3}, "--patients is 3; accepted: 20 or more"),
        ({"seed": -1}, "--seed is -1; accepted: 0 or more"),
        ({"device": "cuda:99"}, "--device cuda:99 is not available here"),
        ({"device": "gpu"}, "--device gpu is not available here"),
        ({"mimic_root": Path("nowhere")}, "nowhere is not a MIMIC-IV folder"),
    ],
)
def test_a_wrong_option_is_named_before_any_work(tmp_path, options, message):
    with pytest.raises(DemoError, match=message):
        run(DemoOptions(out=tmp_path / "out", **options))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_table_is_named_with_the_paths_tried(tmp_path):
    write_hospital(tmp_path / "mimic", patients=20)
    (tmp_path / "mimic/hosp/labevents.csv.gz").unlink()
    shutil.move(tmp_path / "mimic/hosp/patients.csv.gz", tmp_path / "mimic/hosp/patients.csv")  # either name will do
    with pytest.raises(DemoError) as error:
        run(DemoOptions(out=tmp_path / "out", mimic_root=tmp_path / "mimic"))
    lines = str(error.value).splitlines()
    tried = f"{tmp_path}/mimic/hosp/labevents.csv.gz and {tmp_path}/mimic/hosp/labevents.csv"
    assert lines[1:-1] == [f"  labevents: looked for {tried}"]


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoError, match="cannot write to"):
        run(DemoOptions(out=tmp_path / "file" / "out"))


@pytest.mark.slow
@pytest.mark.skipif(not MIMIC_DEMO.is_dir(), reason="the MIMIC demo lies beside the checkout, not in it")
def test_the_mimic_demo_runs_and_its_report_holds_no_patient(tmp_path):
    out = tmp_path / "out"
    printed = run_and_read(DemoOptions(out=out, mimic_root=MIMIC_DEMO))
    assert {path.name for path in out.iterdir()} == TABLES | KEPT | {"report.txt"}
    found, _ = check_tables(out)
    assert len(found) > 5
    assert "Planted causes of death" not in printed
    assert not any(patient in printed for patient in found["patient_id"])
