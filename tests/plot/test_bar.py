import matplotlib.pyplot as plt
import plot_cases as cases
import pytest
from cohort_folders import draw, write

from deeplift_fast import plot
from deeplift_fast.report import summarise


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def bars(ax):
    return [bar.get_width() for bar in ax.patches]


def intervals(ax):
    """The ends of the whiskers."""
    return [(segment[0][0], segment[1][0]) for segment in ax.collections[1].get_segments()]


def test_nothing_overlaps_or_is_cut_off():
    cases.check_everywhere(lambda **how: plot.bar(cases.cohort(8), min_samples=3, **how))


def test_means_and_intervals_are_those_of_the_summary(tmp_path):
    found, rows = draw()
    folder = write(tmp_path / "out", found, rows)
    table = summarise(folder).table
    table = table[(table["grouping"] == "overall") & (table["code"] != "<unk>")]
    table = table.sort_values("mean_abs", ascending=False)
    for data in (folder, summarise(folder), rows):
        ax = plot.bar(data)
        assert bars(ax) == pytest.approx(table["mean"].tolist(), abs=1e-6)
        for (low, high), row in zip(intervals(ax), table.itertuples(), strict=True):
            assert (low, high) == pytest.approx((row.low, row.high), abs=1e-4)
        assert ax.get_xlim()[0] == -ax.get_xlim()[1]


def test_groups_of_a_folder(tmp_path):
    folder = write(tmp_path / "out", *draw())
    table = summarise(folder).table
    one = table[(table["grouping"] == "label") & (table["group"] == "1")]
    expected = one[one["code"] != "<unk>"].sort_values("mean_abs", ascending=False)["mean"]
    assert bars(plot.bar(folder, grouping="label", group="1", min_samples=1)) == pytest.approx(expected.tolist())
    with pytest.raises(ValueError, match=r"accepted: overall = all, label = 0"):
        plot.bar(folder, grouping="label", group="2")
    with pytest.raises(ValueError, match="groups are known of a cohort's folder"):
        plot.bar(cases.cohort(3), grouping="label", group="1")


def test_too_few_patients_for_an_interval_are_told():
    ax = plot.bar(cases.cohort(2), min_samples=1)
    assert "* too few patients for an interval" in cases.shown(ax)
    cases.check(ax)


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="100 samples or more"):
        plot.bar(cases.cohort(2), min_samples=100)


def test_hostile_names_are_text():
    ax = plot.bar(cases.cohort(8, codes=list(cases.HOSTILE)), min_samples=1)
    cases.check(ax)
    cases.check_vector(ax)
