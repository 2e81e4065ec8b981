import warnings

import pytest
import typer

from deeplift_fast.cli.outcome import told
from deeplift_fast.errors import FusionWarning


def test_our_warnings_are_one_line_and_those_of_others_tell_their_place():
    usual = warnings.formatwarning
    with told(False, "cohort", "nothing"):
        assert warnings.formatwarning("slow", FusionWarning, "a.py", 3) == "deeplift-fast: FusionWarning: slow\n"
        assert warnings.formatwarning("old", UserWarning, "a.py", 3) == "a.py:3: UserWarning: old\n"
    assert warnings.formatwarning is usual


@pytest.mark.parametrize(("missing", "extra"), [("pyarrow", "cohort"), ("pyhealth", "cohort"), ("distributed", "dask")])
def test_a_missing_package_is_named_with_its_extra(capsys, missing, extra):
    with pytest.raises(typer.Exit) as error, told(False, "cohort", "nothing"):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
    assert error.value.exit_code == 1
    assert capsys.readouterr().err == f'deeplift-fast: this needs {missing}: pip install "deeplift_fast[{extra}]"\n'
