"""`python -m faithfulness`: measures everything and writes docs/faithfulness.md."""

from __future__ import annotations

import argparse

from . import document
from .problems import PROBLEMS
from .report import found, measure


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(prog="faithfulness")
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, help="measure these again, the others stay as they were")
    parser.add_argument("--jobs", type=int, default=1, help="models measured at once")
    given = parser.parse_args()
    measure(given.only or [*PROBLEMS], given.jobs)
    document.write(found())


if __name__ == "__main__":
    main()
