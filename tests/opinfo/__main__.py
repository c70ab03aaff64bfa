"""Walks the database: `python -m opinfo [--op NAME ...] [--limit N] [--samples N]`; 1 when a row failed."""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db

from .check import Refused, Skipped, check, row_of
from .recorder import Recorded, record
from .tally import Tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="opinfo", description="Replay PyTorch's operator database through the rows.")
    parser.add_argument("--op", action="append", metavar="NAME", help="only this operator; may be given again")
    parser.add_argument("--limit", type=int, metavar="N", help="N operators, spread over the database")
    parser.add_argument("--samples", type=int, metavar="N", help="at most N samples of each, spread over all it has")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="default: %(default)s")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    warnings.simplefilter("ignore")  # torch's own, about what it is about to drop
    entries = [entry for entry in op_db if dtype in entry.dtypes]
    if args.op:
        if unknown := sorted(set(args.op) - {entry.name for entry in entries}):
            parser.error(f"no operator with {args.dtype} samples is called {', '.join(unknown)}")
        entries = [entry for entry in entries if entry.name in args.op]
    tally = Tally()
    for entry in _spread(entries, args.limit):
        replay(entry, dtype, args.samples, tally)
    print(tally)
    return 1 if tally.failures else 0


def replay(entry: Any, dtype: torch.dtype, samples: int | None, tally: Tally) -> None:
    """The samples of one operator."""
    name = f"{entry.name} ({entry.variant_test_name})" if entry.variant_test_name else entry.name
    before = len(tally.without_row), tally.counts["without row"]
    _seed(0)
    numbered = list(enumerate(entry.sample_inputs("cpu", dtype, requires_grad=False)))
    for number, sample in _spread(numbered, samples):
        tally.counts["samples"] += 1
        try:
            calls = record(lambda s=sample: entry.op(s.input, *s.args, **s.kwargs), lambda op: row_of(op) is not None)
        except Exception as error:  # noqa: BLE001 - whatever torch raises here, its next sample goes on
            tally.unrecorded[name, f"{type(error).__name__}: {error}"] += 1
            continue
        for call in calls:
            _judge(call, name, number, tally)
    tally.counts["operators"] += 1
    tally.counts["operators without a gap"] += before == (len(tally.without_row), tally.counts["without row"])


def _judge(call: Recorded, name: str, number: int, tally: Tally) -> None:
    tally.counts["calls"] += 1
    row = row_of(call.op, call.output)
    if row is None:
        tally.counts["without row"] += 1
        tally.without_row.setdefault(str(call.op), set()).add((name, number))
        return
    tally.overloads[str(call.op)] += 1
    try:
        check(call, row, number)
        tally.counts["held"] += 1
    except Skipped as why:
        tally.counts[f"left {why}"] += 1
    except Refused as why:
        tally.refused[str(call.op), str(why)] += 1
    except Exception as error:  # noqa: BLE001 - any error is a failure, and the next call goes on
        tally.fail(call, f"{name}, sample {number}", error)


def _spread(items: list[Any], limit: int | None) -> list[Any]:
    """At most `limit` of the items, evenly far apart."""
    if limit is None or len(items) <= limit:
        return items
    return [items[at * len(items) // limit] for at in range(limit)]


def _seed(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


if __name__ == "__main__":
    sys.exit(main())
