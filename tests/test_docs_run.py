"""Commands and lines of README and of the pages in docs run as they stand."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from cohort_cases import manifest
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.models import MLP

from deeplift_fast import unregister_rule
from deeplift_fast.cli import main

ROOT = Path(__file__).parents[1]
RECIPE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_docs_run import cohort

def build():
    data, model = cohort(in_memory=False)
    return model, data
"""


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    return re.findall(rf"(?m)^```{language}\n((?:.*\n)*?)```$", page(name))


def cohort(in_memory=True):
    """Patients with codes and labs, one of them called ID as in README, and a model of them."""
    torch.manual_seed(0)
    names = ["ID", *(f"p{n}" for n in range(1, 12))]
    samples = [
        {"patient_id": name, "codes": ["I10", "E119", f"c{n % 3}"], "labs": [140.0 + n, 4.0 - n / 9], "label": n % 2}
        for n, name in enumerate(names)
    ]
    data = create_sample_dataset(
        samples, {"codes": "sequence", "labs": "tensor"}, {"label": "binary"}, dataset_name="docs", in_memory=in_memory
    )
    return data, MLP(data, embedding_dim=8, hidden_dim=8).eval()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a recipe and a release of MIMIC-IV, in which commands run."""
    (tmp_path / "recipe.py").write_text(RECIPE)
    (tmp_path / "mimic-iv-3.1/hosp").mkdir(parents=True)
    (tmp_path / "mimic-iv-3.1/hosp/d_icd_diagnoses.csv").write_text(
        "icd_code,icd_version,long_title\nI10,10,Essential hypertension\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("recipe", None)


def commands(text):
    """The commands of the package in a block, but `demo` and `doctor`, which other tests run."""
    lines = re.findall(r"(?m)^deeplift-fast (.+)$", text)
    return [words for line in lines if (words := shlex.split(line, comments=True))[0] not in ("demo", "doctor")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "out"), [("README.md", "DIR"), ("docs/cohorts.md", "mortality")])
def test_run_and_summary(folder, capsys, name, out):
    found = [words for block in blocks(name, "bash") for words in commands(block)]
    further = ["report"] if name == "README.md" else ["cache", "run"]
    assert [words[0] for words in found] == ["run", "summary", *further]
    said = {}
    for words in found:
        code = main(words)
        captured = capsys.readouterr()
        assert code == 0, captured.err
        said.setdefault(words[0], captured.out)
    text = said["summary"]
    assert "12 attributed, 0 failed" in said["run"] + text
    assert max(map(len, text[text.index("Cohort ") :].splitlines())) <= 80
    assert len(manifest(folder / out)["parts"]) == 1
    if name == "docs/cohorts.md":
        assert "Essential hypertension" in text
        assert (folder / "mortality.csv").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_cohort_is_written_and_read(folder):
    """All lines of Python but the task, which tests/cohort/test_docs.py runs."""
    data, model = cohort()
    names = {"model": model, "dataset": data}
    done = 0
    for code in blocks("docs/cohorts.md", "python"):
        if "BaseTask" in code:
            continue
        if "import polars" in code:
            pytest.importorskip("polars")
        exec(code, names)
        done += 1
    assert done == 4
    assert set(names["samples"]["sample"]) == set(range(12))
    assert "codes" in names["top"]["feature"].to_list()
    assert names["rules"] == "complete"


@pytest.mark.filterwarnings("ignore")
def test_rules_and_baselines(capsys):
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            return torch.nn.functional.silu(x) * weight

    @torch.library.custom_op("mylibrary::cube", mutates_args=())
    def cube(x: torch.Tensor) -> torch.Tensor:
        return x**3

    data, model = cohort()
    names = {"model": model, "dataset": data, "MyFunction": Doubled}
    names["batch"] = next(iter(get_dataloader(data, batch_size=12)))
    names["batch"].pop("label")
    try:
        for code in blocks("docs/rules.md", "python"):
            exec(code, names)
    finally:
        unregister_rule(Doubled)
        unregister_rule(torch.ops.mylibrary.cube)
    assert "baseline: removed" in capsys.readouterr().out
    found = names["found"]
    moved = names["deeplift"].explain(at_baseline={"codes": ~names["first"]}, **names["batch"])
    assert not torch.equal(found.output - found.baseline_output, moved.output - moved.baseline_output)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "docs/index.md",
        "docs/derivations.md",
        *(f"docs/how-to/{name}.md" for name in ("baselines", "own-rules", "own-tasks", "dask", "paper-figures")),
    ],
)
def test_a_page_runs_from_top_to_bottom(folder, name):
    data, model = cohort()
    names = {"model": model, "dataset": data, "batch": next(iter(get_dataloader(data, batch_size=12)))}
    found = blocks(name, "python")
    assert found
    for code in found:
        exec(code, names)


def test_layers_and_neurons(capsys):
    torch.manual_seed(0)
    names = {}
    for code in blocks("docs/layers.md", "python"):
        exec(code, names)
    assert names["contributions"].shape == (3, 4)
    assert "add" in capsys.readouterr().out
    assert len(names["found"].by("step")) == 2 * 3


@pytest.mark.filterwarnings("error::deeplift_fast.ConvergenceWarning")
def test_a_model_of_the_library_transformers(capsys):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    names = {}
    for code in blocks("docs/how-to/transformers.md", "python"):
        exec(code, names)
    per_token, words = names["per_token"], names["found"].contributions["inputs_embeds"].sum(-1)
    assert per_token[names["special"]].eq(0).all()
    assert per_token[~names["special"]].ne(0).all()
    torch.testing.assert_close(words, per_token)
    assert names["delta"].abs().max() < 1e-6


def test_interactions():
    data, model = cohort()
    names = {"model": model, "batch": next(iter(get_dataloader(data, batch_size=12)))}
    for code in blocks("docs/interactions.md", "python"):
        exec(code, names)
    assert len(names["table"]) == 12 * 3
    assert len(names["strongest"]) == 5
    assert [player.code for player in names["named"].players[3]] == ["I10", "E119"]
    assert names["again"].values.shape == (12, 2, 2)
    assert [player.positions for player in names["placed"].players[0]] == [((0,),), ((1,),)]
    assert names["change"].shape == (12, 3, 3)
