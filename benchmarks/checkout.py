"""Makes the package of this checkout the one that is imported, installed or not; imported before the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
