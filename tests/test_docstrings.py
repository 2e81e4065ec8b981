"""Public functions have examples, and the examples run.

They may use the `model`, `dataset` and `batch` of a small cohort, whose tables are in the folder `mortality`.
"""

import doctest
import inspect
import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import torch
from pyhealth.datasets import get_dataloader
from test_docs import resolved
from test_docs_run import cohort

from deeplift_fast import DeepLift
from deeplift_fast.cohort import attribute_cohort

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
OBJECTS = [name for page in PAGES for name in re.findall(r"(?m)^::: (\S+)$", page.read_text())]
INTERNAL = {"Grouping.assign", "Report.of", "Report.settled", "Report.without"}  # for other modules
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def described(thing):
    """The functions behind a name of the reference: methods of results, and classes that users make."""
    if isinstance(thing, type) and is_dataclass(thing):
        own = [each for name, each in vars(thing).items() if not name.startswith("_") and inspect.isfunction(each)]
        yield from (each for each in own if each.__qualname__ not in INTERNAL)
    elif inspect.isfunction(thing) or (isinstance(thing, type) and not issubclass(thing, BaseException)):
        yield thing


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the examples may use, in a folder of their own."""
    data, model = cohort(in_memory=False)
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        attribute_cohort(DeepLift(model, rules="complete"), data, "mortality", progress="none")
        batch = next(iter(get_dataloader(data, batch_size=12)))
        yield {"model": model, "dataset": data, "batch": batch, "torch": torch}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OBJECTS)
def test_examples_run(name, names):
    for each in described(resolved(name)):
        text = inspect.getdoc(each) or ""
        assert ">>>" in text, f"{each.__qualname__} has no example"
        assert "doctest: +SKIP" not in text, each.__qualname__
        module = vars(inspect.getmodule(each))
        test = doctest.DocTestParser().get_doctest(text, {**module, **names}, each.__qualname__, None, None)
        failures, _ = doctest.DocTestRunner(optionflags=FLAGS).run(test)
        assert not failures, each.__qualname__
