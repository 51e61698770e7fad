"""Numbers as people write them: the shortest decimals in an interval, and whether a value is a short one."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal

MOST = 8  # candidates of equal length that are worth a try


def shortest(low: float, high: float) -> list[float]:
    """The decimals of fewest significant digits in [low, high], the nearest to its middle first; [] where it is empty.

    0 counts as the shortest of all.
    """
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        return []
    if low <= 0 <= high:
        return [0.0]
    if high < 0:
        return [-value for value in shortest(-high, -low)]
    a, b = Decimal(low), Decimal(high)
    for digits in range(1, 18):
        unit = Decimal(1).scaleb(a.adjusted() - digits + 1)
        first = (a / unit).to_integral_value(rounding=ROUND_CEILING)
        count = int((b / unit - first).to_integral_value(rounding="ROUND_FLOOR")) + 1
        if count >= 1:
            middle = (low + high) / 2
            some = range(count) if count <= 4 * MOST else {count * i // (4 * MOST) for i in range(4 * MOST)}
            values = [float((first + i) * unit) for i in some]
            return sorted(values, key=lambda v: abs(v - middle))[:MOST]
    return [(low + high) / 2]


def digits(value: float) -> int:
    """Significant digits of the shortest decimal within a part in 1e9 of `value`."""
    if value == 0:
        return 0
    room = 1e-9 * abs(value)
    (best, *_) = shortest(value - room, value + room)
    return len(Decimal(repr(best)).normalize().as_tuple().digits)


def roundest(low: float, high: float) -> int | None:
    """The integer in [low, high] with the most trailing zeros, or None."""
    a, b = math.ceil(low), math.floor(high)
    if a > b:
        return None
    values = [int(v) for v in shortest(float(a), float(b)) if v == int(v)]
    return values[0] if values else a
