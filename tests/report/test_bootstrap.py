import numpy as np

from deeplift_fast.report.bootstrap import hash_texts, interval, weights

# Drawn once and written down: another process, or another release, must draw the same.
GOLDEN = [[0, 2, 1, 0, 0, 1, 0, 0, 0, 2, 0, 3], [0, 2, 2, 2, 0, 0, 1, 1, 0, 0, 2, 0]]
PATIENTS = np.array([f"patient-{n}" for n in range(2000)], dtype=object)


def test_weights_are_poisson_and_independent():
    drawn = weights(hash_texts(PATIENTS))
    assert drawn.shape == (2000, 200)
    shares = [0.3679, 0.3679, 0.1839, 0.0613, 0.0153]
    for count, share in enumerate(shares):
        assert abs((drawn == count).mean() - share) < 0.003
    for other in (drawn[:, 1:], drawn[1:].T):  # of replicates of a patient, and of patients in a replicate
        correlation = np.corrcoef(
            drawn[:, :-1].ravel() if other.shape[0] == 2000 else drawn[:-1].T.ravel(), other.ravel()
        )
        assert abs(correlation[0, 1]) < 0.01


def test_a_patient_has_the_same_weights_in_every_process():
    drawn = weights(hash_texts(np.array(["ä", "patient-3"], dtype=object)), 12, seed=5).astype(int)
    assert drawn.tolist() == GOLDEN


def test_seeds_differ_and_more_replicates_go_on_where_fewer_end():
    hashes = hash_texts(PATIENTS[:50])
    assert (weights(hashes, 20, seed=1) != weights(hashes, 20, seed=2)).any()
    np.testing.assert_array_equal(weights(hashes, 40)[:, :20], weights(hashes, 20))


def test_interval_is_missing_where_a_replicate_drew_nobody():
    sums, counts = np.arange(20.0).reshape(2, 10), np.ones((2, 10))
    counts[1, 4] = 0
    low, high = interval(sums, counts)
    assert np.isnan([low[1], high[1]]).all()
    np.testing.assert_allclose([low[0], high[0]], np.quantile(sums[0], [0.025, 0.975]))
