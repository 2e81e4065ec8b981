"""Makes the package of this checkout importable where it is not installed; imported before the package."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("deeplift_fast") is None:
    sys.path.append(str(Path(__file__).parents[1]))
