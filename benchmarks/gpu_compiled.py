"""The rules in plain torch under `torch.compile`, in place of the kernels: what they are compared with."""

import contextlib
import functools
from collections.abc import Iterator
from importlib import import_module
from unittest.mock import patch

import torch
import torch._dynamo

from deeplift_fast import ops
from deeplift_fast.ops import naive
from deeplift_fast.ops.specs import SPECS

# Loops over steps would be compiled step by step for minutes; their bodies are compiled instead.
LOOPS = ("recurrent", "recurrent_backward", "lockstep", "lockstep_backward")
BODIES = ("_pairs", "_back", "_masters_back")
FORMS = 64  # of one function: beyond a limit it would run without being compiled


@contextlib.contextmanager
def compiled_rules(backend: str = "inductor") -> Iterator[None]:
    """Within it, every op is its plain torch implementation, compiled: loops over steps by the body, others whole."""
    compiled = functools.partial(torch.compile, backend=backend)
    recurrent = import_module("deeplift_fast.ops.naive.recurrent")
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch._dynamo.config.patch(recompile_limit=FORMS))
        for name in SPECS:
            plain = naive.FUNCTIONS[name]
            function = plain if name in LOOPS else compiled(plain)
            for home in (ops, ops.unchecked):
                stack.enter_context(patch.object(home, name, function))
        for name in BODIES:
            stack.enter_context(patch.object(recurrent, name, compiled(getattr(recurrent, name))))
        cells = {cell: compiled(body) for cell, body in recurrent._CELLS.items()}
        stack.enter_context(patch.dict(recurrent._CELLS, cells))
        yield
