"""The bar fits where it is shown. Each case is a process of its own, because tqdm decides when it is imported."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

KERNEL = """
import types
ipython, kernel, display = (types.ModuleType(name) for name in ("IPython", "ipykernel.zmqshell", "IPython.display"))
class Shell:
    config = {"IPKernelApp": {}}
ipython.get_ipython = Shell
display.display = lambda thing: shown.append(thing)
sys.modules |= {"IPython": ipython, "ipykernel.zmqshell": kernel, "IPython.display": display}
"""
WIDGETS = """
widgets = types.ModuleType("ipywidgets")
class Box:
    bar_style = ""
    def __init__(self, children=(), **given):
        self.children, self.layout, self.style = children, types.SimpleNamespace(), types.SimpleNamespace()
        self.__dict__.update(given)
    close = lambda self: None
widgets.HTML = widgets.FloatProgress = widgets.HBox = Box
sys.modules["ipywidgets"] = widgets
"""
PROGRESS = """
import numpy as np
from deeplift_fast.cohort.progress import Progress
with Progress("auto", "1f", 3) as progress:
    progress.add(3, 0, np.zeros(3))
print(type(progress._bar).__mro__[1].__module__, len(shown))
"""


def ran(*code):
    """What a process writes to its two outputs, with every warning shown."""
    text = "import sys\nshown = []\n" + "".join(map(textwrap.dedent, code))
    done = subprocess.run(
        [sys.executable, "-W", "always:::tqdm", "-c", text], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


def test_a_notebook_shows_tqdms_widget():
    out, err = ran(KERNEL, WIDGETS, PROGRESS)
    assert out == "tqdm.notebook 1\n"
    assert err == ""


def test_a_notebook_without_widgets_shows_text_and_no_warning():
    out, err = ran(KERNEL, 'sys.modules["ipywidgets"] = None', PROGRESS)
    assert out == "tqdm.std 0\n"
    assert "3/3" in err
    assert "IProgress" not in err
    assert "Warning" not in err


SHELL = KERNEL.replace('{"IPKernelApp": {}}', "{}").replace("ipykernel.zmqshell", "elsewhere")


@pytest.mark.parametrize("before", ["", SHELL], ids=["python", "ipython"])
def test_outside_notebooks_lines_are_written(before):
    out, err = ran(before, PROGRESS.replace("print(", "print(progress._bar) #"))
    assert out == "None\n"
    assert err.splitlines()[-1].startswith("Attributing: 3 of 3 samples")


def test_a_bar_elsewhere_is_text_without_a_warning():
    out, err = ran("from deeplift_fast.support.bars import bar\nwith bar(total=2) as shown: shown.update(2)")
    assert out == ""
    assert "2/2" in err
    assert "Warning" not in err
