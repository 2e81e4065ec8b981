"""tqdm's progress bar for where this process runs: its own bar for notebooks in a notebook, text elsewhere."""

import sys
import warnings
from typing import Any


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose output has no terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def bar(**options: Any) -> Any:
    """A `tqdm` with these options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on import, in a notebook without ipywidgets, where text serves
        from tqdm.auto import tqdm
    return tqdm(**options)
