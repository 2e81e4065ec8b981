"""Runs the old checks and the new ones on every call of an op, as a pytest plugin (`-p both_checkers`).

A call that one accepts and the other refuses is written to the file that `BOTH_CHECKERS` names, as is one whose results
are not of the shapes, dtypes and strides that the op's line says.
"""

import inspect
import json
import os
from collections import Counter

import torch

from deeplift_fast import ops
from deeplift_fast.ops.checks import OPS, check, fake
from deeplift_fast.ops.values import VALUES

COUNTS: Counter = Counter()
DIFFERENCES: list[str] = []


def flat(arguments):
    for each in arguments:
        if isinstance(each, tuple | list) and len(each) and not isinstance(each[0], int):
            yield from each
        else:
            yield each


def watched(name, function):
    op, signature = OPS[name], inspect.signature(function)

    def call(*args, **kwargs):
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = tuple(flat(bound.arguments.values()))
        refused = error = None
        try:
            sizes = check(op, given)
            VALUES.get(name, lambda *_: None)(sizes, *given)
        except Exception as raised:
            refused = raised
        try:
            found = function(*args, **kwargs)
        except Exception as raised:
            error = raised
        COUNTS[name, "refused" if error else "accepted"] += 1
        told = f"{name}: old {error!r}; new {refused!r}"
        if (refused is None) != (error is None):
            DIFFERENCES.append(told)
        elif refused is not None:
            COUNTS[name, "refused by both"] += 1
            if type(refused) is not type(error):
                DIFFERENCES.append(f"another class: {told}")
        if error is not None:
            raise error
        if refused is None:
            said = fake(op)(*given)
            pair = [each if isinstance(each, tuple) else (each,) for each in (said, found)]
            for a, b in zip(*pair, strict=True):
                said_of, found_of = ((x.shape, x.dtype, x.device, x.numel() and x.stride()) for x in (a, b))
                if said_of != found_of:
                    DIFFERENCES.append(f"{name}: said {said_of}, found {found_of}")
        return found

    return call


for name in OPS:
    setattr(ops, name, watched(name, getattr(ops, name)))


def pytest_sessionfinish():
    with open(os.environ["BOTH_CHECKERS"], "a") as file:
        totals = {" ".join(key): value for key, value in sorted(COUNTS.items())}
        file.write(json.dumps({"calls": totals, "differences": sorted(Counter(DIFFERENCES).items())}, indent=1))
