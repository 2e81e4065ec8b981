"""Kills runs until they have been killed often enough, each going on where the one before was killed.

Run as `killing.py FOLDER KILLS`; it prints how many kills there were, by kind. Of a dataset on disk each run is
another: with reading processes, without, on a cluster, or the command. After each kill, what the manifest names must be
there and whole, and nothing of what was there before may be lost; at the end, the bytes are those of an undisturbed
run.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from cohort_cases import cohort, contents, manifest, run, spoiled
from forks import ended, forked, killed, quietly

from deeplift_fast import cli
from deeplift_fast.cli import app  # noqa: F401  (imported before the forks)
from deeplift_fast.cohort.manifest import is_intact, load
from deeplift_fast.cohort.store import LocalStore
from deeplift_fast.support import clock

CHANGES = ("rename", "fsync", "unlink", "pwrite", "ftruncate")
"""The functions of `os` through which a run changes its folder."""

BUILT = []
"""Model and dataset of the command's recipe."""


def build():
    return BUILT[0]


def check(out):
    """Parts that the manifest names, by number, with their checksums: all there, whole, and no sample in two."""
    found = load(LocalStore(out))
    if found is None:
        return {}
    assert all(is_intact(part, LocalStore(out)) for part in found.parts.values())
    ends = [(part.begin, part.end) for _, part in sorted(found.parts.items())]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))
    return {number: part.files for number, part in found.parts.items()}


def on_two_workers(model, data, out):
    """Workers are threads of the process, so that they die with it."""
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        run(model, data, out, client=client)


def command(out):
    quietly()
    options = ["--rules", "rescale", "--part-samples", "5", "--read-ahead", "0", "--quiet"]
    return cli.main(["run", "killing:build", "--out", str(out), *options])


def at_random(call, longest):
    child = forked(call)
    time.sleep(longest)
    killed(child, signal.SIGKILL)
    return ended(child)


def terminated(call, longest):
    child = forked(call)
    time.sleep(longest)
    killed(child, signal.SIGTERM)
    return ended(child)


def at_a_change(call, number):
    """Kills a run just before it changes its folder for the n-th time."""

    def counting():
        count = itertools.count(1)
        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name), count))
        return call()

    def counted(change, count):
        def changing(*given, **options):
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*given, **options)

        return changing

    return ended(forked(counting))


def without_a_reader(call, longest):
    """Kills one of a run's reading processes; the run must end by itself."""

    def told():
        quietly()  # the error of the death
        return call()

    child = forked(told)
    time.sleep(longest)
    try:
        for reader in psutil.Process(child).children()[:1]:
            reader.kill()
    except psutil.NoSuchProcess:
        pass
    return ended(child)


class Killing:
    """Kills runs, and counts."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.kills, self.tries = Counter(), Counter()
        self._changes = itertools.count(1)

    def one(self, kind, kill, call, longest):
        """Kills a run, or lets it end; whether it ended by itself."""
        when = 1 + next(self._changes) * 7 % 61 if kill is at_a_change else self.draw.uniform(0, longest)
        self.tries[kind] += 1
        status = kill(call, when)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return True
        assert os.WIFSIGNALED(status) or kill in (terminated, without_a_reader), status
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == (143 if kill is terminated else 1), status
        self.kills[kind] += 1
        return False

    def _rarest(self, ways):
        """The ways whose kind of kill was tried least often."""
        least = min(self.tries[kind] for kind, *_ in ways)
        return [way for way in ways if self.tries[way[0]] == least]

    def until_done(self, ways, out):
        """Kills runs on a folder until one ends; `ways` say how each is run and killed, and how long it may take."""
        more, before = 1.0, {}
        while True:
            kind, kill, call, longest = self.draw.choice(self._rarest(ways))
            done = self.one(kind, kill, lambda call=call: call(out), longest * more)
            now = check(out)
            assert before.items() <= now.items(), "a part that was there is lost"
            before = now
            if done:
                return
            more *= 1.02  # in the end it gets there


def ways_of(data, model, samples, row_model):
    """By dataset: kind of kill, how to kill, how to run, and seconds that a run may take until it is killed."""

    def alone(out):
        run(model, data, out, read_ahead=0)

    def with_readers(out):
        run(model, data, out, read_ahead=2)

    def of_samples(out):
        run(row_model, samples, out, part_samples=3)

    return {
        "disk": [
            ("SIGKILL at random", at_random, alone, 0.3),
            ("SIGKILL at random", at_random, with_readers, 0.3),
            ("SIGKILL at random", at_random, lambda out: on_two_workers(model, data, out), 0.5),
            ("SIGKILL before a change of the folder", at_a_change, alone, 0.0),
            ("SIGTERM", terminated, command, 0.3),
            ("a reading process killed", without_a_reader, with_readers, 0.2),
        ],
        "memory": [
            ("SIGKILL at random", at_random, of_samples, 0.3),
            ("SIGKILL before a change of the folder", at_a_change, of_samples, 0.0),
        ],
    }


def main(folder, wanted):
    began = clock.now()
    clock.now = lambda: began  # runs are compared byte by byte
    sys.modules["killing"] = sys.modules["__main__"]  # of the command's recipe
    data, model = cohort(count=90, in_memory=False)
    BUILT.append((model, data))
    samples, row_model, _ = spoiled(60)
    killing, runs = Killing(0), 0
    cases = ways_of(data, model, samples, row_model)
    for name, ways in cases.items():
        assert ended(forked(lambda call=ways[0][2], name=name: call(folder / f"{name}-whole"))) == 0
    while killing.kills.total() < wanted:
        for name, ways in cases.items():
            out, whole = folder / f"{name}-{runs}", folder / f"{name}-whole"
            killing.until_done(ways, out)
            ours, theirs = contents(out), contents(whole)
            assert not [file for file in ours | theirs if ours.get(file) != theirs.get(file)], name
            assert manifest(out)["finished"]
            runs += 1
    print(json.dumps({"kills": dict(killing.kills), "runs": runs}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
