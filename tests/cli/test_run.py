"""`deeplift-fast run`, with a stand-in for the engine: what reaches it, and how the command ends."""

import json
import re
import sys
from types import SimpleNamespace

import pyhealth.datasets  # noqa: F401  (its logger keeps the standard error it finds: not that of a test)
import pytest

from deeplift_fast import cli, cohort

RECIPE = """
from pyhealth.datasets import create_sample_dataset
print("said by the recipe")
from pyhealth.models import MLP
def build():
    samples = [{"patient_id": f"secret-{n}", "codes": ["A", "B"][: n + 1], "label": n} for n in range(2)]
    dataset = create_sample_dataset(samples, {"codes": "sequence"}, {"label": "binary"})
    return MLP(dataset, embedding_dim=4, hidden_dim=4), dataset
"""


class Engine:
    """Records how it is called; gives or raises what it is told."""

    def __init__(self):
        self.calls = []
        self.failures = 0
        self.raises = None
        self.cache = self.made_cache = None

    def __call__(self, interpreter, dataset, out, **options):
        self.calls.append(SimpleNamespace(interpreter=interpreter, dataset=dataset, out=out, **options))
        if self.raises is not None:
            raise self.raises
        numbers = {"seconds": 2.0, "reading": 0.5, "attribution": 1.0, "writing": 0.25, "budget": 64}
        numbers |= {"cache": self.cache, "made_cache": self.made_cache}
        return SimpleNamespace(out=out, samples=2 - self.failures, failures=self.failures, parts=1, **numbers)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "recipe.py").write_text(RECIPE)
    engine = Engine()
    monkeypatch.setattr(cohort, "attribute_cohort", engine, raising=False)
    yield engine
    sys.modules.pop("recipe", None)


def run(*arguments):
    return cli.main(["run", "recipe.py:build", "--out", "out", *arguments])


def test_the_engine_is_called_with_what_was_asked_for(engine, capsys):
    given = "--rules rescale --steps 3 --baseline typical --target 0 --budget 4096 --memory 2GiB --part-samples 100"
    given += " --interactions 8"
    assert (
        run(*given.split(), "--read-ahead", "0", "--force", "--limit", "7", "--device", "cpu", "--shared", "--quiet")
        == 0
    )
    (call,) = engine.calls
    assert (call.interpreter.rules, call.interpreter.steps, len(call.dataset)) == ("rescale", 3, 2)
    assert call.baseline == "typical"
    assert (call.out, call.target_class_idx, call.budget, call.memory) == ("out", 0, 4096, 2 << 30)
    assert (call.part_samples, call.read_ahead, call.force, call.limit, call.shared) == (100, 0, True, 7, True)
    assert (call.progress, call.client, call.interactions) == ("none", None, 8)
    assert capsys.readouterr().out == ""


def test_a_folder_of_another_user_is_refused_before_the_recipe_runs(engine, tmp_path, monkeypatch, capsys):
    (tmp_path / "recipe.py").write_text("raise SystemError('the recipe ran')")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write everywhere
    assert run() == 2
    assert f"--out is out, but {tmp_path} is no folder that you may write" in capsys.readouterr().err


def test_defaults_resume_and_find_out_for_themselves(engine, capsys):
    assert run() == 0
    (call,) = engine.calls
    assert (call.interpreter.rules, call.interpreter.steps, call.force, call.shared) == ("complete", 1, False, False)
    assert not hasattr(call, "baseline")  # the recipe's, or else the interpreter's
    assert (call.target_class_idx, call.budget, call.memory, call.read_ahead, call.limit) == (None,) * 5
    assert (call.part_samples, call.progress, call.interactions) == (4096, "auto", None)
    assert "out: 2 sample(s) attributed, in 1 part(s); this run took 2.0 s" in capsys.readouterr().out


def test_the_recipes_baseline_gives_way_to_the_commands(engine, tmp_path):
    (tmp_path / "recipe.py").write_text(RECIPE.replace("), dataset", '), dataset, {"baseline": {"codes": "unk"}}'))
    assert run() == 0
    assert run("--baseline", "removed") == 0
    assert [call.baseline for call in engine.calls] == [{"codes": "unk"}, "removed"]


def test_json_lines(engine, capsys):
    assert run("--log-json") == 0
    assert engine.calls[0].progress == "json"
    printed = capsys.readouterr()
    done = json.loads(printed.out)  # and nothing else
    assert (done["event"], done["level"], done["samples"]) == ("done", "info", 2)
    first = json.loads(printed.err)  # what the engine's progress says is stood in for
    assert (first["event"], first["recipe"], first["run"]) == ("recipe", "recipe.py:build", done["run"])


def test_json_lines_count_the_failures(engine, capsys):
    engine.failures = 1
    assert run("--log-json") == 3
    printed = capsys.readouterr()
    done = json.loads(printed.out)
    assert (done["failures"], done["level"]) == (1, "warning")
    assert [json.loads(line)["event"] for line in printed.err.splitlines()] == ["recipe"]


def test_quiet_is_quiet(engine, capsys):
    assert run("--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run() == 0
    said = capsys.readouterr().err
    assert said.index("deeplift-fast: loading recipe.py:build") < said.index("said by the recipe")


def test_samples_that_failed_end_in_code_3_and_a_count(engine, capsys):
    engine.failures = 1
    assert run("--quiet") == 3
    assert "1 sample(s) could not be attributed; out/failures.parquet says why" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "best"], "rules is 'best'; accepted"),
        (["--baseline", "usual"], "--baseline is 'usual'; accepted names: 'unk', 'removed', 'typical'"),
        (["--rules", "pyhealth", "--baseline", "removed"], "--baseline is 'removed'; accepted under rules"),
        (["--rules", "pyhealth", "--interactions", "8"], 'rules is "pyhealth", whose contributions lie on padding'),
        (["--memory", "much"], "--memory is 'much'; accepted: a size above 0, such as 8GB"),
        (["--device", "cuda:99"], "--device cuda:99 is not available here"),
        (["--workers", "2", "--device", "cuda:99"], "--device cuda:99 is not available here"),
        (["--out", "recipe.py/deep/out"], "recipe.py is no folder that you may write; choose another folder"),
    ],
)
def test_a_wrong_option_is_named_before_the_recipe_runs(engine, tmp_path, capsys, arguments, message):
    (tmp_path / "recipe.py").write_text("raise SystemError('the recipe ran')")
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not engine.calls


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "0"],
        ["--interactions", "1"],
        ["--interactions", "65"],
        ["--workers", "0"],
        ["--limit", "x"],
        ["--quiet", "--log-json"],
        ["--nothing"],
    ],
)
def test_bad_usage(engine, arguments):
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == 2
    assert not engine.calls


def test_a_recipe_and_an_output_folder_are_needed(engine, capsys):
    for arguments in (["run"], ["run", "recipe.py:build"]):
        with pytest.raises(SystemExit) as error:
            cli.main(arguments)
        assert error.value.code == 2
    assert "--out" in capsys.readouterr().err


def test_a_model_of_another_kind_is_refused(engine, tmp_path, capsys):
    (tmp_path / "recipe.py").write_text("from torch import nn\ndef build(): return nn.Linear(1, 1), []")
    assert run() == 2
    assert "model is a Linear; accepted: a PyHealth model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RuntimeError("patient secret-0"), 1, r"RuntimeError at .*test_run.py"),
        (ValueError("patient secret-0"), 1, r"ValueError at .*test_run.py"),
        (PermissionError(13, "Permission denied", "out/x"), 2, r"out/x: Permission denied"),
        (KeyboardInterrupt(), 130, r"interrupted; finished parts are kept"),
    ],
)
def test_errors_of_others_are_told_without_their_words(engine, capsys, error, code, message):
    engine.raises = error
    assert run() == code
    told = capsys.readouterr().err
    assert re.search(message, told)
    assert "secret" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("secret-0"), 1), (PermissionError(13, "secret-0"), 2)])
def test_debug_shows_all_and_ends_with_the_same_code(engine, capsys, error, code):
    engine.raises = error
    assert run("--debug") == code
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "secret-0" in told


def test_a_target_that_the_model_lacks_is_named_as_it_was_given(engine, capsys):
    assert run("--target", "3") == 2
    assert "--target is 3; accepted: -2 to 1" in capsys.readouterr().err
    assert not engine.calls


def test_our_own_errors_keep_their_words(engine, monkeypatch, capsys):
    from deeplift_fast.core.devices import check_device

    monkeypatch.setattr(cohort, "attribute_cohort", lambda *_, **__: check_device("cuda:99"))
    assert run() == 2
    assert "--device cuda:99 is not available" in capsys.readouterr().err
    assert run("--quiet") == 2
