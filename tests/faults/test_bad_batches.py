"""Bad batches and samples: an error or a failure that names what is wrong, or the right numbers, and no others."""

import random
import warnings
from collections import Counter

import pytest
import torch
from bad_batches import IDENTIFIERS, OTHER_SAMPLES, spoil
from cohort_cases import cohort, run, table
from pyhealth.datasets import get_dataloader

from deeplift_fast import DeepLift
from deeplift_fast.cohort import CohortError

KINDS = {"MLP": ("a", "b"), "Transformer, one row": ("a", "row")}
SIZE = 5


@pytest.fixture(scope="module", params=KINDS)
def sound(request, tmp_path_factory):
    """A model, its features, sound batches, samples, and the tables of both."""
    data, model = cohort(request.param, 3 * SIZE)
    batches = [dict(batch) for batch in get_dataloader(data, SIZE)]
    samples = [dict(data[i]) for i in range(3 * SIZE)]
    out = tmp_path_factory.mktemp("sound")
    run(model, batches, out / "batches", part_samples=SIZE)
    run(model, samples, out / "samples", part_samples=SIZE)
    return model, KINDS[request.param], batches, samples, rows(out / "batches"), rows(out / "samples")


def rows(out):
    """By sample, what both tables say of it."""
    found = {}
    for name in ("samples", "attributions"):
        for row in table(out, name).to_pylist():
            found.setdefault(row["sample"], []).append(row)
    return found


def same(found, expected, but):
    """Whether a sample's rows are what they should be, numbers to float32's rounding, without some columns."""
    if len(found) != len(expected):
        return False
    pairs = [(row[key], other[key]) for row, other in zip(found, expected, strict=True) for key in other.keys() - but]
    return all(
        one == other
        or (isinstance(one, float) and isinstance(other, float) and abs(one - other) <= 1e-5 * max(1, abs(other)))
        for one, other in pairs
    )


def columns_of(name):
    """Columns that say another thing where an entry does."""
    return {*IDENTIFIERS} if name in IDENTIFIERS else {"label"} if name == "label" else set()


def check_tables(out, expected, bad, name):
    """Every row that is there is right; how many samples of the bad ones are there."""
    found = rows(out)
    for sample, each in found.items():
        if not same(each, expected[sample], columns_of(name) if sample in bad else set()):
            raise AssertionError(f"sample {sample} has other numbers")
        for row, other in zip(each, expected[sample], strict=True):  # identifiers are right, or not there
            if any(row[key] not in (None, other[key]) for key in IDENTIFIERS):
                raise AssertionError(f"sample {sample} has other identifiers")
    return len(found.keys() & bad), found.keys() - bad


def outcome(model, dataset, out, expected, bad, name, what):
    """How a cohort with something bad in it ends."""
    good = expected.keys() - bad
    try:
        done = run(model, dataset, out, part_samples=SIZE)
    except CohortError as error:
        if f"'{name}'" not in str(error) and "batch" not in str(error):
            raise AssertionError(f"{what}: the error names nothing: {error}") from error
        if (out / "samples").exists() and list((out / "samples").iterdir()):
            check_tables(out, expected, bad, name)
        return "refused"
    there, good_there = check_tables(out, expected, bad, name)
    assert good_there == good, what
    failed = table(out, "failures").to_pylist()
    assert done.failures == len(failed) == len(bad) - there, what
    assert all(each["sample"] in bad and each["reason"] for each in failed), what
    return "right_numbers" if there == len(bad) else "failures"


@pytest.mark.filterwarnings("ignore")
def test_a_bad_batch_in_a_cohort(sound, tmp_path, examples, figures):
    model, keys, batches, _, expected, _ = sound
    draw, ends = random.Random(0), Counter()
    for number in range(examples(20, 120)):
        place = draw.randrange(3)
        bad, what, name = spoil(draw, batches[place], [*keys, *keys, *IDENTIFIERS, "label"])
        given = [*batches[:place], bad, *batches[place + 1 :]]
        which = set(range(place * SIZE, (place + 1) * SIZE))
        ends[outcome(model, given, tmp_path / str(number), expected, which, name, what)] += 1
    figures("bad batches of cohorts", **ends, other_numbers=0)


@pytest.mark.filterwarnings("ignore")
def test_bad_samples_in_a_cohort(sound, tmp_path, examples, figures):
    model, keys, _, samples, _, expected = sound
    draw, ends = random.Random(0), Counter()
    for number in range(examples(20, 100)):
        which = set(draw.sample(range(3 * SIZE), draw.randint(1, 2)))
        given, told = list(samples), []
        for place in which:
            given[place], what, name = spoil(draw, samples[place], list(keys), OTHER_SAMPLES)
            told.append(f"{place}: {what}")
        ends[outcome(model, given, tmp_path / str(number), expected, which, name, told)] += 1
    figures("cohorts with bad samples", **ends, other_numbers=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_a_bad_batch_of_attribute(sound, examples, figures, rules):
    model, keys, batches, *_ = sound
    interpreter, draw, ends = DeepLift(model, rules=rules), random.Random(rules), Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right = interpreter.attribute(**batches[0])
        for _ in range(examples(40, 140)):
            bad, what, _ = spoil(draw, batches[0], list(keys))
            try:
                found = interpreter.attribute(**bad)
            except (ValueError, TypeError) as error:
                if not any(key in str(error) for key in keys):
                    raise AssertionError(f"{what}: the error names nothing: {error}") from error
                ends["refused"] += 1
                continue
            for key, value in right.items():
                given = found[key].reshape(*found[key].shape[: value.dim()])  # steps of one code each
                cut = tuple(slice(size) for size in value.shape)
                assert torch.allclose(given[cut].to(value.dtype), value, atol=1e-5), what
                assert given.count_nonzero() == value.count_nonzero(), what
            ends["right_numbers"] += 1
        again = interpreter.attribute(**batches[0])
    assert all(torch.equal(again[key], value) for key, value in right.items())
    figures("bad batches of attribute", **ends, other_numbers=0)
