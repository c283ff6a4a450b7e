"""`python -m tensorsched`."""

from __future__ import annotations

import sys

from tensorsched.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
