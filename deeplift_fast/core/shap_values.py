"""Contributions as a `shap.Explanation`: the sums of each code or dimension, which SHAP's own plots take."""

from typing import TYPE_CHECKING, Any

import numpy as np

from deeplift_fast.core.frames import base_of

if TYPE_CHECKING:
    from deeplift_fast.core.result import Attribution


def explanation(found: "Attribution") -> Any:
    """See :meth:`deeplift_fast.Attribution.to_shap`."""
    try:
        import shap
    except ImportError as error:
        raise ImportError("to_shap() needs shap, which is not installed: pip install shap") from error
    table = found.to_dataframe()
    code = table["code"].astype(object)
    name = code.where(code.notna(), "dimension " + table["slot"].astype(str)).astype(str)
    pairs = list(zip(table["feature"].astype(str), name, strict=True))
    place = {pair: column for column, pair in enumerate(dict.fromkeys(pairs))}
    at = table["sample"].to_numpy(), np.array([place[pair] for pair in pairs], np.int64)
    shape = (len(found.output), len(place))
    values = np.zeros(shape)
    np.add.at(values, at, table["attribution"].to_numpy(float))
    return shap.Explanation(
        values=values,
        base_values=base_of(found).detach().double().cpu().numpy(),
        data=_data(found, table, at, shape),
        feature_names=_names(list(place)),
    )


def _data(found: "Attribution", table: Any, at: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The newest value of each column, the count of a code; NaN where neither is known."""
    if found.source is None:  # the inputs are not kept
        return np.full(shape, np.nan)
    value = table["value"].to_numpy(float)
    valued = table.groupby("feature")["value"].transform(lambda values: values.notna().any()).to_numpy(bool)
    counts = np.zeros(shape)
    np.add.at(counts, at, 1)
    data = np.where(_columns(at[1], valued, shape[1]), np.nan, counts)
    known = ~np.isnan(value)
    data[at[0][known], at[1][known]] = value[known]  # of several the last one stays
    return data


def _columns(column: np.ndarray, chosen: np.ndarray, count: int) -> np.ndarray:
    """Which columns hold a chosen row, bool `[columns]`."""
    return np.bincount(column[chosen], minlength=count) > 0


def _names(pairs: list[tuple[str, str]]) -> list[str]:
    """Names of columns; those that two features share say their feature too."""
    names = [name for _, name in pairs]
    return [name if names.count(name) == 1 else f"{name} ({feature})" for feature, name in pairs]
