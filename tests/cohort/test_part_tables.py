"""A part's tables against rows put down one by one."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplift_fast.cohort.columns import FeatureColumns
from deeplift_fast.cohort.part_tables import BatchColumns, Texts, part_tables
from deeplift_fast.cohort.store import LocalStore
from deeplift_fast.cohort.tables import ATTRIBUTIONS, SAMPLES

COLUMNS = ("target", "output", "baseline_output", "probability", "label", "convergence_delta")


def texts():
    class Tokens:
        code_vocab = {"<pad>": 0, "<unk>": 1, "I10": 2, "E11": 3}  # noqa: RUF012

        def is_token(self):
            return True

    values = SimpleNamespace(is_token=lambda: False)
    dataset = SimpleNamespace(input_processors={"codes": Tokens(), "labs": values})
    return Texts(SimpleNamespace(feature_keys=["codes", "labs"], dataset=dataset))


def drawn(numbers, draw, timed):
    """A batch of some samples, of which a few have no rows."""
    features = {}
    for key in ("codes", "labs"):
        sample = np.sort(draw.integers(0, len(numbers), draw.integers(0, 12))).astype(np.int32)
        integers = [draw.integers(0, high, len(sample)).astype(np.int32) for high in (9, 3, 6)]
        step, slot, token = integers
        time, value, attribution = (draw.normal(size=len(sample)).astype(np.float32) for _ in range(3))
        value[::3] = np.nan
        is_token = key == "codes"
        features[key] = FeatureColumns(
            sample, step, slot, token if is_token else None, time if timed else None, None if is_token else value,
            attribution,
        )  # fmt: skip
    columns = {name: draw.normal(size=len(numbers)).astype(np.float32) for name in COLUMNS}
    columns |= {"target": draw.integers(0, 2, len(numbers)), "label": None}
    return numbers, columns, features


def null(number):
    return None if np.isnan(number) else number


def naively(batches, begin, identifiers):
    vocabulary = ["<pad>", "<unk>", "I10", "E11", "4", "5"]
    samples, attributions = [], []
    for numbers, columns, features in batches:
        for place, number in enumerate(numbers.tolist()):
            who = {name: given[number - begin] for name, given in identifiers.items()}
            about = {name: None if columns[name] is None else columns[name][place].item() for name in COLUMNS}
            samples.append({"sample": number, **who, "split": None, **about, "stays": None})
            for key, rows in features.items():
                for row in np.flatnonzero(rows.sample == place):
                    attributions.append(
                        {
                            "sample": number,
                            **who,
                            "feature": key,
                            "step": rows.step[row].item(),
                            "slot": rows.slot[row].item(),
                            "code": None if rows.token is None else vocabulary[rows.token[row]],
                            "time": None if rows.time is None else rows.time[row].item(),
                            "day": None,
                            "stay": None,
                            "measured": None,
                            "value": None if rows.value is None else null(rows.value[row].item()),
                            "attribution": rows.attribution[row].item(),
                        }
                    )
    key = lambda row: (row["sample"], row.get("feature", ""))  # noqa: E731
    return sorted(samples, key=key), sorted(attributions, key=key)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 9), timed=st.booleans(), named=st.sampled_from([0, 0.5, 1]))
def test_every_row_is_where_it_belongs(seed, count, timed, named):
    draw, begin, known = np.random.default_rng(seed), 100, texts()
    order = draw.permutation(count)
    failed, which = order[:1] if count > 3 else order[:0], order[1:] if count > 3 else order
    batches = [drawn(begin + few.astype(np.int64), draw, timed) for few in np.array_split(which, 2) if len(few)]
    patients = [f"p{number % 3}" for number in range(count)]
    visits = [f"v{number}" if draw.random() < named else None for number in range(count)]
    identifiers = {"patient_id": patients, "visit_id": visits}
    rows = [
        BatchColumns(
            numbers,
            columns,
            features,
            {key: known.numbers(key, features[key]) for key in features},
        )
        for numbers, columns, features in batches
    ]
    samples, attributions = part_tables(rows, begin, identifiers, ["codes", "labs"], known)
    assert (samples.schema, attributions.schema) == (SAMPLES, ATTRIBUTIONS)
    expected = naively(batches, begin, identifiers)
    assert (samples.to_pylist(), attributions.to_pylist()) == expected
    assert not set(failed + begin) & set(samples["sample"].to_pylist())
    code = attributions["code"].combine_chunks()
    used = set(code.to_pylist()) - {None}
    assert set(code.dictionary.to_pylist()) == used  # nothing of other parts' patients


def test_files_settle_when_a_run_ends(tmp_path, monkeypatch):
    """Parts are flushed as they are written, and their folders at the end."""
    from cohort_cases import cohort, run

    settled = []
    settle = LocalStore.settle
    monkeypatch.setattr(LocalStore, "settle", lambda self, *given: (settled.append(given), settle(self, *given)))
    data, model = cohort()
    run(model, data, tmp_path)
    assert settled.count(("attributions", "samples")) == 1
    assert settled.index(("attributions", "samples")) >= len(settled) - 2  # the manifest that says so comes after
    assert settled.count(("",)) >= 5
