"""Plain torch implementations: the fallback on every device, and the reference of the kernels' tests.

`naive.<op>` is the function of that name in `naive/<stem>.py`, for each op of `specs.py`.
"""

from importlib import import_module

from deeplift_fast.ops.specs import SPECS, stem_of

FUNCTIONS = {op: getattr(import_module(f"{__name__}.{stem_of(op)}"), op) for op in SPECS}
globals().update(FUNCTIONS)  # replaces submodules of the same names
