"""`python -m recsparse` is the command `recsparse`."""

from __future__ import annotations

import sys

from recsparse.cli import main

sys.exit(main())
