"""`python -m dlb_core.cli` is `dlb`."""

import sys

from dlb_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
