"""What a run shows."""

import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tqdm
from cohort_cases import run, spoiled

from deeplift_fast.cohort import progress as progress_module
from deeplift_fast.cohort.progress import Progress, RunningMedian


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(kind, file=None, total=30):
    file = file or io.StringIO()
    with Progress(kind, "1f", total, done=10, failures=1, file=file) as progress:
        progress.add(10, 2, np.array([0.5, -0.5, 0.5]))
        progress.add(10, 0, np.array([np.nan, -0.5]))
    return file.getvalue()


def test_a_part_that_a_limit_cut_short_counts_once(tmp_path, capsys):
    samples, model, _ = spoiled()
    run(model, samples, tmp_path, limit=8)  # the second part of five has three, one of them a failure
    capsys.readouterr()
    done = run(model, samples, tmp_path, progress="json")
    end = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (end["event"], end["done"], end["total"]) == ("end", 23, 23)
    assert end["failures"] == done.failures


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e4])
def test_the_running_median_is_near_the_median(scale):
    values = np.random.default_rng(0).lognormal(size=5000) * scale
    median = RunningMedian()
    for few in np.split(values, 50):
        median.add(few * np.sign(few - scale))
    assert median.median() == pytest.approx(np.median(values), rel=0.01)


def test_the_running_median_of_nothing_and_of_zeros():
    median = RunningMedian()
    assert median.median() is None
    median.add(np.array([np.nan, np.inf]))
    assert median.median() is None
    median.add(np.zeros(3))
    assert median.median() == 0
    median.add(np.full(9, 1e9))
    assert median.median() > 1e5


def test_json_lines_tell_of_every_part():
    lines = [json.loads(line) for line in shown("json").splitlines()]
    assert [line["event"] for line in lines] == ["start", "part", "part", "end"]
    assert [line["done"] for line in lines] == [10, 20, 30, 30]
    assert lines[-1]["failures"] == 3
    assert lines[-1]["median_abs_delta"] == pytest.approx(0.5, rel=0.01)
    assert {"total", "samples_per_second", "eta_seconds", "seconds"} <= set(lines[1])
    assert [(line["level"], line["run"]) for line in lines] == [("info", "1f")] * 4
    assert {line["time"] for line in lines} == {"2026-01-31T12:00:00.000Z"}


def test_the_documentation_describes_each_field_of_a_line():
    text = (Path(__file__).parents[2] / "docs" / "cohorts.md").read_text()
    log = text.partition("### The log")[2].partition("### Progress")[0]
    for line in map(json.loads, shown("json").splitlines()):
        assert f"`{line['event']}`" in log
        assert all(f"`{name}`" in log for name in line)


class Clock:
    """Stands in for the module time in the lines, and for time.time in the bar."""

    now = 0.0

    def __call__(self):
        return self.now

    monotonic = __call__


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    monkeypatch.setattr(tqdm.std, "time", clock)
    return clock


def on_a_cluster(kind, clock, file):
    """Four workers start in 20 s, and then need 8 s for a part of 10 samples out of 400."""
    with Progress(kind, "1f", 400, file=file) as progress:
        for part in range(12):
            clock.now = 28 + part // 4 * 8 + part % 4 * 0.5
            progress.worked(8.0, 4)
            progress.add(10, 0, np.zeros(10))
            yield part


def test_the_time_left_on_a_cluster_is_right_from_the_first_part(clock):
    file = io.StringIO()
    list(on_a_cluster("json", clock, file))
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert lines[0]["eta_seconds"] is None
    for line in lines[1:-1]:
        assert line["eta_seconds"] == pytest.approx((400 - line["done"]) / (4 * 10 / 8), abs=0.1)
        assert line["samples_per_second"] == pytest.approx(line["done"] / line["seconds"], abs=0.01)  # with the start


def test_the_bar_of_a_cluster_does_not_count_the_start_of_its_workers(clock):
    file = Terminal()
    next(on_a_cluster("auto", clock, file))
    assert "10/400 [00:28<05:12,  1.25 samples/s" in file.getvalue()


def test_a_bar_that_tqdm_was_told_not_to_show_stays_away(clock, monkeypatch):
    made = functools.partial(tqdm.std.tqdm, disable=True)  # as TQDM_DISABLE=1 does
    monkeypatch.setattr(progress_module, "bar", made)
    file = Terminal()
    assert len(list(on_a_cluster("bar", clock, file))) == 12
    assert not file.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    text = shown("auto")
    assert text.startswith("Attributing: 10 of 30 samples\n")
    assert "30 of 30 samples" in text.splitlines()[-1]
    assert "3 failures, median |delta| 0.5" in text
    assert "\r" not in text
    assert "30 samples" in shown("lines", total=None)


def test_a_bar_on_a_terminal():
    text = shown("auto", Terminal())
    assert "failures 3, median |delta| 0.5" in text
    assert "samples/s" in text
    assert "30/30" in text


def test_nothing_when_quiet():
    assert shown("none") == ""


def test_a_run_that_is_stopped_says_so():
    file = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress("lines", "1f", 30, file=file):
        raise KeyboardInterrupt
    assert file.getvalue().splitlines()[-1].endswith("stopped")
