"""Makes calls of ops once on a device, in a process of its own; prints a line of JSON for each call that failed.

`gpu_warm_up.py` starts some of these, so that Triton compiles in parallel into its cache on disk. `gpu_races.py` runs
one under a tool that watches the memory.

python benchmarks/gpu_first_calls.py cuda:0 --share 0 16
"""

import argparse
import json
import sys
from collections.abc import Sequence

import checkout  # noqa: F401 - before the imports that need it
import torch
from gpu_cases import CASES
from gpu_steps import STEPS
from gpu_timing import synchronise

Call = tuple[str, torch.dtype, bool]


def first_calls(matching: str = "") -> list[Call]:
    """Name, dtype and size (whether large) of all calls that the benchmark makes."""
    cases = [case for case in CASES.values() if matching.lower() in case.name.lower()]
    calls = [(case.name, dtype, False) for case in cases for dtype in (*case.dtypes, *case.on_gpu)]
    steps = [(name, torch.float32, True) for name in STEPS if matching.lower() in name.lower()]
    return calls + [(case.name, torch.float32, True) for case in cases] + steps


def make(calls: Sequence[Call], device: torch.device) -> list[dict]:
    """Makes the calls; what failed, with its error."""
    failed = []
    for name, dtype, large in calls:
        try:
            case = STEPS[name] if name in STEPS else CASES[name]
            case.returned(case.call(dtype, device, large))
            synchronise(device)
        except Exception as error:  # whatever it is, the other calls are made, and the benchmark shows it again
            failed.append({"call": f"{name}, {dtype}", "error": f"{type(error).__name__}: {error}"[:300]})
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if a call failed."""
    parser = argparse.ArgumentParser(description="Makes calls of ops once.")
    parser.add_argument("device", type=torch.device)
    parser.add_argument("-k", default="", help="only calls whose names hold this text")
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("NUMBER", "OF"))
    parser.add_argument("--names", nargs="+", help="small calls in float32 of these names, instead")
    options = parser.parse_args(arguments)
    number, of = options.share
    calls = [(name, torch.float32, False) for name in options.names or ()] or first_calls(options.k)[number::of]
    failed = make(calls, options.device)
    for each in failed:
        print(json.dumps(each), flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
