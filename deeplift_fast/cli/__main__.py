"""`python -m deeplift_fast.cli`."""

import sys

from deeplift_fast.cli.app import main

sys.exit(main())
