"""Numbers on a picture: all of one row with the same digits behind the point, so that they can be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Digits:
    """How to write numbers up to a size.

    places: behind the point. power: of ten that they are divided by, where they are all tiny or huge.
    """

    places: int
    power: int = 0

    @classmethod
    def of(cls, limit: float, digits: int = 3) -> Digits:
        """For numbers up to +-`limit`, the largest with so many digits."""
        if not limit or not math.isfinite(limit):
            return cls(0)
        size = math.floor(math.log10(limit))
        if -3 <= size < 5:
            return cls(max(digits - 1 - size, 1 if size < 3 else 0))
        return cls(max(digits - 1, 0), size)

    def text(self, value: float, *, sign: bool = True) -> str:
        """The number; one that would show as nothing but zeros is a plain zero."""
        if not math.isfinite(value):
            return str(value)
        scaled = value / 10.0**self.power if self.power > -300 else value * 10.0**-self.power
        written = f"{abs(scaled):.{self.places}f}"
        empty = not float(written)
        mark = "" if empty else MINUS if value < 0 else "+" if sign else ""
        return mark + written + (f"e{_signed(self.power)}" if self.power and not empty else "")

    def exact(self, value: float, *, sign: bool = True) -> str:
        """The number; one that would show as nothing but zeros by its power of ten."""
        written = self.text(value, sign=sign)
        if not value or not math.isfinite(value) or any(digit in "123456789" for digit in written.split("e")[0]):
            return written
        mantissa, power = f"{abs(value):.0e}".split("e")
        short = f"{abs(value):.1g}" if -3 <= int(power) < 5 else f"{mantissa}e{_signed(int(power))}"
        return f"{MINUS if value < 0 else '+' if sign else ''}{short}"


def total(value: float) -> str:
    """A number that stands alone."""
    return Digits.of(abs(value)).exact(value)


def plain(value: float | int | bool) -> str:
    """A value of an input, in few digits."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        mantissa, _, power = f"{value:.4g}".partition("e")
        return mantissa.replace("-", MINUS) + (f"e{_signed(int(power))}" if power else "")
    return str(value).replace("-", MINUS)


def _signed(power: int) -> str:
    return str(power).replace("-", MINUS)
