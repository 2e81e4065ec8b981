"""The lines of docs/fast-cohorts.md run as they stand."""

import re
from pathlib import Path

import numpy as np
from cache_cases import assert_same
from cohort_cases import cohort
from pyhealth.datasets.utils import collate_fn_dict_with_padding

PAGE = Path(__file__).parents[3] / "docs" / "fast-cohorts.md"


def test_the_page():
    (code,) = re.findall(r"(?m)^```python\n((?:.*\n)*?)```$", PAGE.read_text(encoding="utf-8"))
    data, model = cohort("StageNet", in_memory=False)
    for is_made in (True, False):
        names = {"dataset": data, "model": model}
        exec(code, names)
        assert_same(names["batch"], collate_fn_dict_with_padding([data[i] for i in range(8)]))
        assert ("writer" in names) == is_made
    assert np.array_equal(names["stretch"].groups[0].numbers, np.arange(8))
    data.close()
