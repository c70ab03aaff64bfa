"""`python -m faithfulness`: measures everything and writes docs/faithfulness.md; `--only MODEL ...` prints, no more."""

from __future__ import annotations

import argparse

from . import document
from .problems import PROBLEMS
from .report import measure


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(prog="faithfulness")
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, help="measure some of the models, and print the tables")
    parser.add_argument("--jobs", type=int, default=1, help="models measured at once")
    given = parser.parse_args()
    records = list(measure(given.only or [*PROBLEMS], given.jobs))
    if given.only:
        print(document.measured(records))
    else:
        document.write(records)


if __name__ == "__main__":
    main()
