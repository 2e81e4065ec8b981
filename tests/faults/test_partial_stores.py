"""Places that show files while they are written, and runs that are killed in the middle of that."""

import itertools
from typing import ClassVar

import fsspec
import pytest
from cohort_cases import contents, run, spoiled
from fsspec.implementations.memory import MemoryFileSystem

from deeplift_fast.cohort import lock, lock_owner
from deeplift_fast.cohort.manifest import load
from deeplift_fast.cohort.store import open_store
from deeplift_fast.report import summarise
from deeplift_fast.report.folder import CohortFolder


class Killed(BaseException):
    """Ends a run as SIGKILL does: whatever it tries to do on its way out fails."""


class Partial(MemoryFileSystem):
    """A place where a file is empty or half there first, then whole; a run can be killed at each."""

    protocol = "partial"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    steps: ClassVar[list] = []
    """The step at which a run is killed, and those until then."""
    seen: ClassVar[list] = []
    """Called at each step."""

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).replace("partial://", "memory://"))

    def step(self):
        for each in self.seen:
            each()
        if self.steps:
            self.steps[1] += 1
            if self.steps[1] >= self.steps[0]:
                raise Killed

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        half = value[: len(value) // 2] if next(_NUMBERS) % 2 else b""
        for written in (half, value):
            super().pipe_file(path, written, mode, **kwargs)
            self.step()

    def rm_file(self, path):
        self.step()
        super().rm_file(path)


fsspec.register_implementation("partial", Partial)
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def sick():
    """Samples of which some cannot be attributed, in each of three parts."""
    samples, model, _ = spoiled(16)
    return samples, model


@pytest.fixture
def place(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    monkeypatch.setattr(lock_owner, "_is_alive", lambda _: False)  # killed runs are this process
    yield f"partial://place-{next(_NUMBERS)}/run"
    Partial.steps.clear()
    Partial.seen.clear()


def killed_at(step, model, data, out, **options):
    """Whether a run was killed at a step, or ended before."""
    Partial.steps[:] = [step, 0]
    try:
        run(model, data, out, **options)
    except Killed:
        return True
    finally:
        Partial.steps.clear()
    return False


def files(out):
    """Bytes of the parts and of the failures by name."""
    prefix = out.removeprefix("partial:/") + "/"
    found = {name.removeprefix(prefix): file for name, file in Partial.store.items() if name.startswith(prefix)}
    return {name: file.getvalue() for name, file in found.items() if name.endswith(".parquet")}


def test_wherever_a_run_is_killed_finished_parts_stay_and_the_next_goes_on(sick, place, tmp_path, examples, figures):
    """Killed at step after step of a run, each run going on where the one before was killed."""
    kills = 0
    samples, model = sick
    run(model, samples, tmp_path, part_samples=6)
    whole = {name: each for name, each in contents(tmp_path).items() if name.endswith(".parquet")}
    for step in itertools.count(1, examples(5, 1)):
        out = f"{place}-{step}"
        if not killed_at(step, model, samples, out, part_samples=6):
            break
        before = load(open_store(out))
        done = set(before.parts) if before else set()
        kept = {name: each for name, each in files(out).items() if any(f"{k:06d}" in name for k in done)}
        # killed once more, soon after it went on: what it found is kept again
        kills += 1 + killed_at(1 + step % 7, model, samples, out, part_samples=6)
        after = load(open_store(out))
        assert done <= set(after.parts if after else ())
        assert {name: each for name, each in files(out).items() if name in kept} == kept
        run(model, samples, out, part_samples=6)
        assert files(out) == whole
    assert step > 60
    figures("kills while an object store writes", kills=kills, resumed_to_the_same_bytes=kills, parts_lost=0)


def test_failures_stay_too(sick, place, examples):
    """Parts with failures are not attributed again because the file of all failures was cut short."""
    samples, model = sick
    kept = []
    for step in itertools.count(1, examples(5, 1)):
        out = f"{place}-{step}"
        if not killed_at(step, model, samples, out, part_samples=6):
            break
        before = load(open_store(out))
        Partial.steps[:] = [1 << 30, 0]
        run(model, samples, out, part_samples=6)
        kept.append((len(before.parts) if before else 0, Partial.steps[1]))
    most = {done: max(steps for each, steps in kept if each == done) for done, _ in kept}
    # The more parts were done, the less is written: none of them is attributed again.
    assert sorted(most) == [0, 1, 2, 3]
    assert most[0] > most[1] > most[2] > most[3]


def test_a_summary_reads_the_version_that_is_whole(sick, place):
    samples, model = sick
    counts = []

    def look():
        Partial.seen.clear()
        if load(open_store(place)) is not None:
            folder = CohortFolder(place)
            counts.append((len(folder.parts), sum(folder.failures().values())))
        Partial.seen.append(look)

    Partial.seen.append(look)
    run(model, samples, place, part_samples=6)
    Partial.seen.clear()
    assert [parts for parts, _ in counts] == sorted(parts for parts, _ in counts)
    assert {parts for parts, _ in counts} == {0, 1, 2, 3}
    assert summarise(place).completeness.failures


def test_a_local_folder_needs_no_copies(sick, tmp_path):
    run(sick[1], sick[0], tmp_path, part_samples=6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock", "attributions", "failures.parquet", "manifest.json", "samples"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["manifest.json", "failures.parquet"])
def test_a_place_keeps_a_copy_of_what_nothing_else_could_stand_in_for(sick, place, name):
    samples, model = sick
    run(model, samples, place, part_samples=6)
    store = open_store(place)
    assert store.read(name) == store.read(f"{name}.copy")
    before = files(place)
    for harm in (b"", store.read(name)[:-9]):
        store.write(name, harm)
        run(model, samples, place, part_samples=6)
        assert store.read(name) == store.read(f"{name}.copy")
        assert files(place) == before
