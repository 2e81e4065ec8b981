"""A Poisson bootstrap over patients, whose weights are computed again at each use.

Each replicate weighs each patient by a draw from Poisson(1). For many patients this equals resampling them with
replacement (Chamandy et al. 2012, "Estimating Uncertainty for Massive Data Streams"). The draw depends on the patient's
identifier, the replicate and the seed alone, so a patient has the same weights in every part and in every run.
"""

import math

import numpy as np
import pandas as pd

REPLICATES = 200

_HASH_KEY = "deeplift_fast-01"  # SipHash takes 16 bytes
# P(weight ≤ k) for k = 0 … 15; larger weights have a probability below 1e-13.
_POISSON_STEPS = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(16)])
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def hash_texts(texts: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each text, the same in every process.

    Args:
        texts: strings, object `[texts]`.

    Returns:
        uint64 `[texts]`.
    """
    return pd.util.hash_array(texts, hash_key=_HASH_KEY, categorize=False)


def weights(hashes: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """The number of draws of each patient in each replicate.

    Args:
        hashes: one per patient, uint64 `[patients]`.
        replicates: number of replicates.
        seed: seed of the draws.

    Returns:
        float32 `[patients, replicates]`, whole numbers from Poisson(1).
    """
    with np.errstate(over="ignore"):
        counters = np.arange(1, replicates + 1, dtype=np.uint64) * _GOLDEN + _mixed(np.array([seed], dtype=np.uint64))
        bits = _mixed(hashes[:, None] ^ _mixed(counters)[None, :])
    uniform = (bits >> np.uint64(11)) * 2.0**-53
    return np.searchsorted(_POISSON_STEPS, uniform, side="right").astype(np.float32)


def interval(sums: np.ndarray, counts: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The interval that holds the middle `level` of the replicates' means.

    Args:
        sums: weighted sum of each replicate, floating point `[rows, replicates]`.
        counts: weighted number of summands, of the same shape and dtype.
        level: share of the replicates inside.

    Returns:
        Lower and upper ends, float64 `[rows]`; NaN where a replicate drew no patient, because an interval needs more.
    """
    ends = np.full((2, len(sums)), np.nan)
    enough = (counts > 0).all(axis=1)
    if enough.any():
        means = sums[enough].astype(np.float64) / counts[enough]
        ends[:, enough] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return ends[0], ends[1]


def _mixed(bits: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: each bit of the input affects all bits of the output."""
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX[0]
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX[1]
    return bits ^ (bits >> np.uint64(31))
