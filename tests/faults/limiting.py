"""Runs under a limit of the system to the size of files, then without; compares with an undisturbed run.

Run as `limiting.py FOLDER LIMITS`; it prints how many limits there were, and how many of them ended a run.
"""

import json
import os
import resource
import sys
from pathlib import Path

from cohort_cases import contents, run, spoiled
from forks import ended, forked

from deeplift_fast.cohort import CohortError
from deeplift_fast.support import clock


def under(limit, model, samples, out):
    """What a run in another process says that may write files of so many bytes; nothing where it ends well."""
    reading, writing = os.pipe()

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            run(model, samples, out, part_samples=6)
        except CohortError as error:
            os.write(writing, str(error).encode())

    status = ended(forked(limited))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    assert status == 0, status
    return said


def main(folder, count):
    began = clock.now()
    clock.now = lambda: began  # runs are compared byte by byte
    samples, model, _ = spoiled(16)
    whole, refused = folder / "whole", 0
    assert ended(forked(lambda: run(model, samples, whole, part_samples=6) and None)) == 0
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    for number in range(count):
        out, limit = folder / str(number), largest * number // count
        said = under(limit, model, samples, out)
        if said:
            assert said.startswith(f"out is {out}, where "), said
            assert "kept" in said, said
            refused += 1
        assert ended(forked(lambda out=out: run(model, samples, out, part_samples=6) and None)) == 0
        assert contents(out) == contents(whole)
    print(json.dumps({"limits": count, "refused": refused}))


main(Path(sys.argv[1]), int(sys.argv[2]))
