"""The documentation names what exists: modules, files, links. Its lines are short."""

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

from deeplift_fast.cohort.about import NAMES, PREFIX

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
METADATA = {PREFIX + name for name in NAMES}  # keys of Parquet files, spelled like modules

pytestmark = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))


def code(page: Path) -> list[str]:
    """The back-quoted pieces of a page, each on one line."""
    return [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", prose(page))]


def resolved(name: str) -> object:
    """The module, or the attribute of one, that a dotted name means."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[end:], module)
    raise ModuleNotFoundError(name)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_names_resolve(page):
    text = page.read_text(encoding="utf-8")  # blocks of code too
    for name in set(re.findall(r"\bdeeplift_fast(?:\.[A-Za-z_]\w*)+", text)) - METADATA:
        resolved(name)
    for module, names in re.findall(r"(?m)^from (deeplift_fast[\w.]*) import ([\w, ]+)", text):
        for name in names.split(","):
            resolved(f"{module}.{name.strip()}")


def test_paths_exist(page):
    top = r"(?:deeplift_fast|tests|benchmarks|docs|examples|csrc)/[\w./-]*"
    part = r"(?:ops|rules|core|pyhealth|cohort|report|demo|cli|support)/[\w./-]*"  # within the package
    for piece in code(page):
        if "<" in piece:  # a place for a name
            continue
        for path in re.findall(rf"(?<![\w/.]){top}", piece):
            assert (ROOT / path).exists(), path
        for path in re.findall(rf"(?<![\w/.]){part}", piece):
            assert (ROOT / "deeplift_fast" / path).exists(), path


def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_lines_are_at_most_100_characters_long(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > 100] == []
