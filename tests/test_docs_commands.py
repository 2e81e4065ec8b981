"""Commands that the documentation names can be typed: programs, subcommands, options, make targets and extras exist."""

import re
import shlex
import tomllib
from pathlib import Path

import gpu
import pytest
import typer

from deeplift_fast.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [*PAGES, *sorted((ROOT / "examples").glob("*.py")), *sorted((ROOT / "deeplift_fast").rglob("*.py"))]
SUBCOMMANDS = typer.main.get_command(app).commands
OPTIONS = {
    name: {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for name, command in SUBCOMMANDS.items()
}
STUDIES = ("faithfulness.py", "gpu.py")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = set(PROJECT["project"]["optional-dependencies"])
RECIPES = dict(re.findall(r"(?m)^([\w-]+):[^=\n]*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text()))

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def lines(page: Path) -> list[list[str]]:
    """The words of each command in a page's blocks of commands; scripts are blocks of `sh`."""
    text = page.read_text(encoding="utf-8").replace("\\\n", "")
    blocks = re.findall(r"(?ms)^```bash\n(.*?)^```$", text)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if line.strip()]


def pieces(page: Path) -> list[list[str]]:
    """The words of each back-quoted piece of a page's prose; names stand there for values."""
    prose = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    return [piece.split() for piece in re.findall(r"`([^`]+)`", prose)]


def of(program: str, found: list[list[str]]) -> list[list[str]]:
    """The arguments of each command that begins with this program."""
    return [words[1:] for words in found if words[:1] == [program] and len(words) > 1]


@pages
def test_lines_are_parsed_as_they_stand(page):
    for program, *words in lines(page):
        assert program in ("deeplift-fast", "make", "pip")
        if program == "deeplift-fast":
            SUBCOMMANDS[words[0]].make_context(words[0], words[1:])  # raises for an unknown option or a wrong value


@pages
def test_options_exist(page):
    for subcommand, *words in of("deeplift-fast", pieces(page)):
        assert {word for word in words if word.startswith("--")} <= OPTIONS[subcommand]
    study = re.findall(r'"(--[a-z-]+)"', "".join((ROOT / "benchmarks" / of).read_text() for of in STUDIES))
    alone = {words[0] for words in pieces(page) if re.fullmatch("--[a-z-]+", words[0])}
    assert alone <= set(study).union(*OPTIONS.values())


@pages
def test_targets_exist(page):
    for target, *variables in of("make", lines(page) + pieces(page)):
        assert target in RECIPES
        for name, _, value in (each.partition("=") for each in variables):
            assert f"$({name})" in RECIPES[target]
            if target == "bench-gpu":
                gpu._options(shlex.split(value))  # raises for an unknown option or section


def test_extras_exist():
    lists = [each for path in TEXTS for each in re.findall(r'"(?:deeplift_fast|\.)\[([\w,]+)\]', path.read_text())]
    named = {extra for each in lists for extra in each.split(",")}
    assert {"cohort", "dask", "demo", "plot", "pyhealth", "report"} <= named
    assert named <= EXTRAS


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_a_build_without_isolation_has_what_it_needs(page):
    installs = of("pip", lines(ROOT / page))
    (place,) = (number for number, words in enumerate(installs) if "--no-build-isolation" in words)
    assert installs[place - 1][0] == "install"
    assert {*installs[place - 1][1:]} == {*PROJECT["build-system"]["requires"]}
