"""The ledger in few lines, with shares that add up to 100.00 % as they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dlb_core.kernel.ledger import Ledger

RESIDUAL = "residual (rounding)"


class Line(NamedTuple):
    """One account: its units, and its share of the seed in hundredths of a per cent (None: its signs cancel)."""

    account: str
    units: float
    hundredths: int | None

    @property
    def share(self) -> float | None:
        """The share in per cent, to two decimals."""
        return None if self.hundredths is None else self.hundredths / 100

    @property
    def share_text(self) -> str:
        """The share as it is printed."""
        return "-" if self.hundredths is None else f"{self.hundredths / 100:.2f} %"


def ledger_lines(ledger: Ledger, most: int | None = 12) -> list[Line]:
    """Inputs, accounts by size, the residual: they sum to the seed, and their shares to 100.00.

    most: of the inputs and of the accounts only the largest are listed, the rest in one line (None: all, empty
    accounts too).
    """
    listed = [(f"input:{name}", units) for name, units in _largest(ledger.inputs, most, "inputs")]
    listed += _largest(ledger.accounts, most, "accounts")
    listed.append((RESIDUAL, ledger.residual))
    shares = hundredths([units for _, units in listed], ledger.seed if ledger.sums else 0.0)
    return [Line(name, units, share) for (name, units), share in zip(listed, shares, strict=True)]


def hundredths(units: Sequence[float], seed: float) -> list[int] | list[None]:
    """Shares of the seed in whole hundredths of a per cent, which sum to 10000.

    Each is rounded down, and what is missing goes to those that lost most; shares with signs work alike.
    """
    if seed == 0:
        return [None] * len(units)
    exact = [10_000 * value / seed for value in units]
    rounded = [math.floor(value) for value in exact]
    for_all, for_some = divmod(10_000 - sum(rounded), len(exact))  # for_all is 0 but where floats run out of digits
    by_loss = sorted(range(len(exact)), key=lambda i: rounded[i] - exact[i])
    lucky = set(by_loss[:for_some])
    return [value + for_all + (i in lucky) for i, value in enumerate(rounded)]


def _largest(units: Mapping[str, float], most: int | None, what: str) -> list[tuple[str, float]]:
    if most is None:
        return list(units.items())
    booked = sorted(((n, u) for n, u in units.items() if u != 0), key=lambda item: -abs(item[1]))
    if len(booked) <= most:
        return booked
    rest = booked[most - 1 :]
    return [*booked[: most - 1], (f"... {len(rest)} more {what}", math.fsum(u for _, u in rest))]
