"""The faithfulness study: a small part of it, what it keeps, and its tables and picture."""

import json

import faithfulness
import faithfulness_cell
import faithfulness_plot
import faithfulness_results
import faithfulness_tables
import freqshapes
import pytest
import torch
from faithfulness_hospital import HELD_OUT, KEY, PROTECTIVE, RISK, TRAIN, hospital, patients
from faithfulness_methods import DEFAULT, METHODS

SMALL = ["--only", "hospital", "--patients", "6", "--permutations", "8"]
TIMES = ("seconds", "forwards", "forward_seconds")


@pytest.fixture(autouse=True)
def _one_round(monkeypatch):
    """Methods are timed once; the study's single thread stays its own."""
    monkeypatch.setattr(faithfulness_cell, "LEAST_SECONDS", 0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _untimed(value):
    """Without what differs from run to run."""
    return {k: _untimed(v) for k, v in value.items() if k not in TIMES} if isinstance(value, dict) else value


def test_patients_are_as_described_and_the_same_for_every_count():
    found = patients(1, 300)
    assert patients(1, 10) == found[:10]
    assert patients(2, 10) != found[:10]
    for patient in found:
        assert 2 <= len(patient[KEY]) <= 8
        for visit in patient[KEY]:
            planted = [code for code in visit if code in RISK | PROTECTIVE]
            assert 3 <= len(visit) - len(planted) <= 8
            assert len(planted) <= 2
            assert not {code[0] for code in visit} - set("crs")
    visits = [visit for patient in found for visit in patient[KEY]]
    assert sum(bool(RISK & set(visit)) for visit in visits) / len(visits) == pytest.approx(0.25, abs=0.04)
    assert sum(bool(PROTECTIVE & set(visit)) for visit in visits) / len(visits) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("flat", [False, True])
def test_the_hospital_knows_every_code_of_the_held_out_patients(flat):
    data = hospital(1, flat)
    assert (len(data.train), len(data.held_out)) == (TRAIN, HELD_OUT)
    assert all((sample[KEY] != 1).all() for sample in data.held_out)
    assert [len(batch[KEY]) for batch in data.held_out_batches()] == [50] * 4


def test_a_small_part_is_measured_kept_and_gone_on_with(tmp_path, monkeypatch, capsys):
    out = tmp_path / "results" / "found.json"
    faithfulness.main([*SMALL, "--models", "MLP", "--seeds", "1", "--out", str(out)])
    first = json.loads(out.read_text())
    cell = first["hospital"]["MLP"]["1"]
    assert list(cell["methods"]) == list(METHODS)
    assert cell["methods"]["PyHealth's Chefer relevance"] is None
    default, unknown = cell["methods"][DEFAULT], cell["methods"]["complete, unk"]
    assert set(default) == set(faithfulness_tables.COLUMNS)
    assert (default["flips"], default["draws"]) == (0, 1)
    assert unknown["flips"] > 0.1
    assert default["spearman"] > unknown["spearman"]
    assert "**MLP**, seeds 1" in capsys.readouterr().out

    measured = []
    run = faithfulness_cell.run
    monkeypatch.setattr(faithfulness_cell, "run", lambda *given: measured.append(given[:2]) or run(*given))
    both = [*SMALL, "--models", "MLP", "--seeds", "2", "1", "--resume", "--out", str(out)]
    faithfulness.main(both)
    assert measured == [("MLP", 2)]
    second = json.loads(out.read_text())
    assert second["hospital"]["MLP"]["1"] == cell
    with pytest.raises(SystemExit, match=r"--resume: .* was measured with {'patients': 6"):
        faithfulness.main([*both, "--patients", "5"])

    alone = tmp_path / "alone.json"
    faithfulness.main([*SMALL, "--models", "MLP", "--seeds", "2", "--out", str(alone)])
    assert _untimed(json.loads(alone.read_text())["hospital"]["MLP"]["2"]) == _untimed(second["hospital"]["MLP"]["2"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--permutations", "7"], "--permutations is 7; accepted: an even number of 4 or more"),
        (["--permutations", "2"], "--permutations is 2; accepted: an even number of 4 or more"),
        (["--patients", "0"], "--patients is 0; accepted: 1 to 50"),
        (["--models", "LSTM"], "invalid choice: 'LSTM'"),
    ],
)
def test_bad_options_are_named(given, said, capsys):
    with pytest.raises(SystemExit):
        faithfulness.main(given)
    assert said in capsys.readouterr().err


def test_without_results_it_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match=r"none\.json, which is missing; run the study first"):
        faithfulness.main(["--table", "--out", str(tmp_path / "none.json")])


@pytest.mark.parametrize("what", ["--table", "--plot"])
def test_without_models_there_is_no_small_table_and_no_picture(what, tmp_path, results):
    out = tmp_path / "found.json"
    faithfulness_results.write(out, {**results, "hospital": {}})
    with pytest.raises(SystemExit, match="which has only FreqShapes; run the study with --resume first"):
        faithfulness.main([what, "--out", str(out)])


@pytest.fixture
def results():
    """Two seeds of two models, made up: occlusion is ahead of the default in one measure of one model."""

    def row(spearman):
        return {**dict.fromkeys(faithfulness_tables.COLUMNS, 0.5), "spearman": spearman, "seconds": 0.002}

    def cell(added, **other):
        methods = {method: row(0.25 + added) for method in METHODS} | {DEFAULT: row(0.75 + added)} | other
        return {"auroc": 0.7, "split_half": 0.9, "forward_seconds": 1e-4, "methods": methods}

    none = {"PyHealth's Chefer relevance": None}
    areas = {"auprc": 0.7, "aup": 0.6, "aur": 0.5, "forwards": 2, "backwards": 1}
    return {
        **faithfulness_results.fresh({"patients": 6, "permutations": 8}),
        "hospital": {
            "MLP": {"1": cell(0.0, **none), "2": cell(0.125, **none)},
            "Transformer": {"1": cell(0.0, occlusion=row(0.91)), "2": cell(0.0, occlusion=row(0.93))},
        },
        "freqshapes": {"1": {"f1": 0.9, "methods": dict.fromkeys(freqshapes.METHODS, areas)}},
    }


def test_tables_show_means_over_seeds(results):
    small = faithfulness_tables.small(results).splitlines()
    assert small[0] == "| method | MLP | Transformer | AUROC | flips | time |"
    assert f"| **{DEFAULT}** (default) | 0.81 | 0.75 | 0.500 | 0.50 | 0.5 |" in small
    full = faithfulness_tables.full(results)
    assert "**MLP**, seeds 1, 2: AUROC 0.700" in full
    for columns in (faithfulness_tables.QUALITY, faithfulness_tables.COST):
        assert "\n| PyHealth's Chefer relevance |" + " – |" * len(columns) + "\n" in full
    assert "| TimeX (published) | 0.832 | 0.722 | 0.638 |  |" in full
    assert "| complete, zeros, 1 step | 0.700 | 0.600 | 0.500 | 2 + 1 |" in full
    assert faithfulness_tables.ahead(results) == [
        "Ahead of the default in Spearman with removal: Transformer: occlusion (0.92)."
    ]


def test_the_picture_tells_in_words_what_it_shows(results, tmp_path, capsys):
    out = tmp_path / "found.json"
    faithfulness_results.write(out, results)
    faithfulness.main(["--plot", "--out", str(out)])
    said = capsys.readouterr().out
    assert "MLP 0.81" in said
    assert "Transformer 0.75 (best of the methods that are not ours: occlusion, 0.92)" in said
    picture = out.with_suffix(".svg").read_text()
    assert "Transformer 0.75" in picture
    assert "not taken" in picture
    assert faithfulness_plot.in_words(results) in said


def test_results_are_kept_a_row_to_a_line_and_read_back(results, tmp_path):
    out = tmp_path / "found.json"
    faithfulness_results.write(out, results)
    assert faithfulness_results.read(out) == results
    rows = [line for line in out.read_text().splitlines() if f'"{DEFAULT}"' in line]
    assert len(rows) == 4
    assert all('"spearman"' in row and row.endswith("},") for row in rows)
    assert [each.name for each in tmp_path.iterdir()] == ["found.json"]
