"""Kills runs with SIGKILL at random points until one has been killed often enough, and compares what comes of it.

Run as `killing.py FOLDER KILLS`: one process imports everything once and forks the runs, as imports take seconds. Of a
dataset on disk each run is another: with reading processes, without, or on a cluster.
"""

import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

from cohort_cases import cohort, contents, manifest, run, spoiled

from deeplift_fast.cohort.manifest import is_intact, load
from deeplift_fast.cohort.store import LocalStore


def forked(call):
    """The process of a call; the call's output is dropped."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()  # reading processes die with it
            call()
            code = 0
        finally:
            os._exit(code)
    return child


def check(out):
    """Whatever the manifest names is there, whole, and nothing twice."""
    found = load(LocalStore(out))
    if found is None:
        return 0
    assert all(is_intact(part, LocalStore(out)) for part in found.parts.values())
    ends = [(part.begin, part.end) for _, part in sorted(found.parts.items())]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))
    return len(ends)


def on_two_workers(model, data, out):
    """Workers are threads of the process, so that they die with it."""
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        run(model, data, out, client=client)


def kill_until_done(ways, out, draw):
    """Number of kills that a run took until it ended by itself; `ways` are calls, and how long each may take."""
    kills, more = 0, 1.0
    while True:
        call, longest = draw.choice(ways)
        child = forked(lambda call=call: call(out))
        time.sleep(draw.uniform(0, longest * more))
        os.killpg(child, signal.SIGKILL) if _in_session(child) else os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        check(out)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills
        kills += 1
        more *= 1.02  # in the end it gets there


def _in_session(child):
    try:
        return os.getpgid(child) == child
    except ProcessLookupError:
        return False


def main(folder, wanted):
    draw = random.Random(0)
    data, model = cohort(count=90, in_memory=False)
    samples, row_model, _ = spoiled(60)
    cases = {
        "disk": [
            (lambda out: run(model, data, out, read_ahead=0), 0.3),
            (lambda out: run(model, data, out, read_ahead=2), 0.3),
            (lambda out: on_two_workers(model, data, out), 0.5),
        ],
        "memory": [(lambda out: run(row_model, samples, out, part_samples=3), 0.3)],
    }
    kills = rounds = 0
    for name, ways in cases.items():
        os.waitpid(forked(lambda call=ways[0][0], name=name: call(folder / f"{name}-whole")), 0)
    while kills < wanted:
        for name, ways in cases.items():
            out = folder / f"{name}-{rounds}"
            kills += kill_until_done(ways, out, draw)
            whole = folder / f"{name}-whole"
            ours, theirs = contents(out), contents(whole)
            assert not [file for file in ours | theirs if ours.get(file) != theirs.get(file)], name
            assert manifest(out)["finished"]
        rounds += 1
    print(f"KILLED {kills} in {2 * rounds} runs")
    print("SAME")


main(Path(sys.argv[1]), int(sys.argv[2]))
