import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plot_cases as cases
import pytest
from cohort_folders import draw, write
from matplotlib.colors import to_rgb

from deeplift_fast import plot


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def marks(ax):
    """By row: every mark's place and colour."""
    found = {}
    for path in ax.collections[1:]:  # the first holds the guides
        (colour,) = {to_rgb(each) for each in path.get_facecolor()}
        for x, y in path.get_offsets():
            found.setdefault(round(float(y)), []).append((float(x), colour))
    return found


def test_nothing_overlaps_or_is_cut_off():
    cases.check_everywhere(lambda **how: plot.beeswarm(cases.cohort(8), **how))


def test_each_contribution_is_a_mark():
    table = cases.cohort(10)
    ax = plot.beeswarm(table)
    largest = table[table["value"].notna() | (table["feature"] != "labs")]
    sizes = largest.groupby("code")["attribution"].apply(lambda values: values.abs().mean())
    first = largest.loc[largest["code"] == sizes.idxmax(), "attribution"]
    assert sorted(x for x, _ in marks(ax)[0]) == pytest.approx(sorted(first), abs=1e-6)
    low, high = ax.get_xlim()
    assert low == -high


def test_many_contributions_are_thinned_to_quantiles_with_both_ends():
    table = cases.cohort(60, codes=["I10"], labs=[])
    ax = plot.beeswarm(table, points=50)
    xs = [x for x, _ in marks(ax)[0]]
    assert len(xs) == 50
    assert min(xs) == pytest.approx(table["attribution"].min())
    assert max(xs) == pytest.approx(table["attribution"].max())


def test_marks_stay_in_their_rows_and_tell_signs():
    ax = plot.beeswarm(cases.cohort(60, codes=["I10", "E119", "J189"]))
    for path in ax.collections[1:]:
        assert np.abs(path.get_offsets()[:, 1] - np.round(path.get_offsets()[:, 1])).max() < 0.5
    for row in marks(ax).values():
        assert all((colour[0] > colour[2]) == (x > 0) for x, colour in row)


def test_a_folder_gives_what_its_rows_give(tmp_path):
    found, rows = draw()
    folder = write(tmp_path / "out", found, rows)
    from_folder, from_rows = plot.beeswarm(folder, top=5), plot.beeswarm(rows, top=5)
    one, other = marks(from_folder), marks(from_rows)
    assert {row: sorted(x for x, _ in each) for row, each in one.items()} == {
        row: sorted(x for x, _ in each) for row, each in other.items()
    }


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="points 1"):
        plot.beeswarm(cases.cohort(2), points=1)
    with pytest.raises(TypeError, match="data is a int"):
        plot.beeswarm(3)


def test_hostile_names_are_text():
    ax = plot.beeswarm(cases.cohort(8, codes=list(cases.HOSTILE)))
    cases.check(ax)
    cases.check_vector(ax)


def test_codes_of_few_samples_are_left_out(tmp_path):
    table = cases.cohort(30)
    rare = table[table["sample"] == 0].head(1).assign(code="rare", attribution=9.0, value=np.nan)
    rows = pd.concat([table, rare])
    assert "rare" not in cases.shown(plot.beeswarm(rows))
    assert "rare" in cases.shown(plot.beeswarm(rows, min_samples=1))
    with pytest.raises(ValueError, match="carried by 31 samples or more; give more samples, or a lower min_samples"):
        plot.beeswarm(rows, min_samples=31)
    with pytest.raises(ValueError, match="carried by 61 samples or more"):
        plot.beeswarm(write(tmp_path / "out", *draw()), min_samples=61)
