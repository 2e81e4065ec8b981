"""FreqShapes: the series, the areas by hand, and a small part of the study."""

import freqshapes
import numpy as np
import pytest
import torch


def test_spikes_are_where_the_truth_says_and_come_at_the_class_s_period():
    data = freqshapes.drawn(200, np.random.default_rng(0))
    assert data.values.shape == (200, 50, 1)
    assert set(data.classes.tolist()) == {0, 1, 2, 3}
    values = data.values[..., 0].numpy()
    for row, (direction, period) in enumerate(freqshapes.CLASSES[each] for each in data.classes):
        starts = np.flatnonzero(np.diff(data.spikes[row].astype(int), prepend=0) == 1)
        assert data.spikes[row].sum() == 3 * len(starts) > 0
        assert set(np.diff(starts)) <= {period}
        assert (direction * values[row, data.spikes[row]] < -0.5).all()
        assert (np.abs(values[row, ~data.spikes[row]]) < 1.5).all()


@pytest.mark.parametrize(
    ("contributions", "auprc", "aup", "aur"),
    [
        ([0.0, 0.0, 0.0, 2.0], 1, (1 / 4 + 1) / 2, 1),
        ([-1.0, 0.0, 1.0, 3.0], 1, (1 / 4 + 1 / 3) / 8 + (1 / 3 + 1 / 2) / 8 + (1 / 2 + 1) / 4, 1),
        ([0.0, 3.0, 1.0, 2.0], 1 / 2, (1 / 4 + 1 / 3) / 6 + (1 / 3 + 1 / 2) / 6 + (1 / 2 + 0) / 6, 2 / 3 + 1 / 6),
        ([1.0, 1.0, 1.0, 1.0], 1 / 4, 0, 0),
    ],
)
def test_areas(contributions, auprc, aup, aur):
    found = freqshapes.areas(np.array([contributions]), np.array([[False, False, False, True]]))
    assert found == pytest.approx({"auprc": auprc, "aup": aup, "aur": aur})


def test_areas_do_not_see_scale_and_place_and_are_means_over_samples():
    truth = np.array([[False, True, True], [True, False, False]])
    scores = np.array([[0.0, 1.0, 4.0], [2.0, 0.0, 3.0]])
    one, other = (freqshapes.areas(scores[[row]], truth[[row]]) for row in (0, 1))
    both = freqshapes.areas(5 * scores - 3, truth)
    assert both == pytest.approx({name: (one[name] + other[name]) / 2 for name in one})


def test_contributions_of_both_methods_add_up_for_the_true_class():
    torch.manual_seed(0)
    model = freqshapes.Classifier().eval()
    data = freqshapes.drawn(4, np.random.default_rng(0))
    with torch.no_grad():
        difference = model(data.values) - model(torch.zeros_like(data.values))
    expected = difference.gather(1, data.classes[:, None])[:, 0]
    for method in freqshapes.METHODS.values():
        found = method.contribute(model, data.values, data.classes)
        torch.testing.assert_close(found.flatten(1).sum(1), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", freqshapes.METHODS)
def test_forward_passes_are_as_many_as_said(name):
    torch.manual_seed(0)
    model = freqshapes.Classifier().eval()
    data = freqshapes.drawn(4, np.random.default_rng(0))
    rows = []

    def counted(values):
        rows.append(len(values))
        return model(values)

    method = freqshapes.METHODS[name]
    method.contribute(counted, data.values, data.classes)
    assert sum(rows) == 4 * method.forwards


def test_a_small_split():
    found = freqshapes.run(1, train=256, test=16, epochs=1)
    assert found == freqshapes.run(1, train=256, test=16, epochs=1)
    assert 0 <= found["f1"] <= 1
    for name, row in found["methods"].items():
        assert all(0 < row[each] < 1 for each in freqshapes.MEASURES), name
    integrated, *ours = [row["forwards"] + row["backwards"] for row in found["methods"].values()]
    assert all(integrated >= 20 * passes for passes in ours)
