import matplotlib.pyplot as plt
import plot_cases as cases
import pytest
from cohort_folders import draw, write

from deeplift_fast import plot


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def both():
    one = cases.patient()
    return one, one.assign(attribution=0.5 * one["attribution"] - 0.05)


def test_nothing_overlaps_or_is_cut_off():
    cases.check_everywhere(lambda **how: plot.compare(*both(), **how))
    cases.check_everywhere(lambda **how: plot.compare(*both(), labels=["x" * 999, "$y$" * 99], **how))


def test_both_sums_are_printed_and_drawn():
    one, other = both()
    ax = plot.compare(one, other, labels=["rescale", "complete"])
    sums = [table.groupby("code")["attribution"].sum() for table in (one, other)]
    code = max(sums[0].index, key=lambda each: max(abs(sums[0][each]), abs(sums[1][each])))
    texts = cases.shown(ax)
    assert {"rescale", "complete", "▲", "△"} <= set(texts)
    printed = next(text for text in texts if " | " in text)
    values = [float(part.strip("▲▼ ").replace("−", "-")) for part in printed.split(" | ")]
    assert values == pytest.approx([sums[0][code], sums[1][code]], abs=0.006)
    line = ax.lines[1].get_xdata()
    assert list(line) == pytest.approx([sums[0][code], sums[1][code]], abs=1e-5)
    assert ax.get_xlim()[0] == -ax.get_xlim()[1]


def test_two_cohorts_are_called_by_what_differs(tmp_path):
    tables = draw()
    one = write(tmp_path / "one", *tables, rules="rescale")
    other = write(tmp_path / "other", *tables, rules="complete", baseline="removed")
    third = write(tmp_path / "third", *tables, rules="complete", baseline="typical")
    assert {"rescale", "complete"} <= set(cases.shown(plot.compare(one, other, sample=3)))
    assert {"removed", "typical"} <= set(cases.shown(plot.compare(other, third, sample=3)))
    fourth = write(tmp_path / "fourth", *tables, rules="complete", baseline="typical 0123456789ab")
    fifth = write(tmp_path / "fifth", *tables, rules="complete", baseline="typical 9621cf6c9388")
    assert {"removed", "typical"} <= set(cases.shown(plot.compare(other, fifth, sample=3)))
    assert {"typical 0123456789ab", "typical 9621cf6c9388"} <= set(cases.shown(plot.compare(fourth, fifth, sample=3)))
    assert {"first", "second"} <= set(cases.shown(plot.compare(one, one, sample=3)))


def test_two_patients_are_refused():
    with pytest.raises(ValueError, match="two attributions of one patient"):
        plot.compare(cases.patient(0), cases.patient(1))


@pytest.mark.parametrize("labels", ["ab", ["one"]])
def test_labels_are_two(labels):
    with pytest.raises(ValueError, match="accepted: two names"):
        plot.compare(*both(), labels=labels)
