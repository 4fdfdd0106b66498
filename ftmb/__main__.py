"""`python -m ftmb` is the same as `ftmb`."""

import sys

from ftmb.cli import main

sys.exit(main())
