"""How numbers are said to people: rates, durations, counts, sizes. One way each, everywhere. And their mistakes."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any


class UserError(ValueError):
    """A mistake that a person can mend: the text says where and what to do, and a program ends with that one line."""


def rate(value: float) -> str:
    """A learning rate with three digits, 2.84e-03, as the field prints it; exact zero is 0."""
    if not math.isfinite(value):
        return str(value)
    return "0" if value == 0 else f"{value:.2e}"


def exact_rate(value: float, other: float) -> str:
    """`value` with as many digits as it takes to tell it from `other` (three at least)."""
    if not (math.isfinite(value) and math.isfinite(other)) or value == other:
        return rate(value)
    for digits in range(2, 17):
        if f"{value:.{digits}e}" != f"{other:.{digits}e}":
            return f"{value:.{digits}e}"
    return repr(value)


def exact(value: float) -> str:
    """A number as a person would type it, all its digits kept: 3e-4, 1.875e-3."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    text = next(t for t in (f"{value:.{digits}e}" for digits in range(18)) if float(t) == value)
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}"


def short_rate(value: float) -> str:
    """For axes and tables: 3e-3, 1.2e-4."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def deviation(ratio: float) -> str:
    """observed / expected in words: +1.7 %, 12 times too low."""
    if not math.isfinite(ratio) or ratio <= 0:
        return "of no size"
    if 0.5 < ratio < 2:
        percent = (ratio - 1) * 100
        digits = 1 if abs(percent) >= 0.1 else 3 if abs(percent) >= 0.001 else 6
        return f"{percent:+.{digits}f} %"
    times = ratio if ratio > 1 else 1 / ratio
    word = "high" if ratio > 1 else "low"
    return f"{times:.1f} times too {word}" if times < 10 else f"{times:,.0f} times too {word}"


def duration(seconds: float) -> str:
    """4 d 3 h, 2 h 05 min, 3 min 20 s, 12 s."""
    if not math.isfinite(seconds):
        return "unknown"
    s = max(0, round(seconds))
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s" if s < 600 else f"{s // 60} min"
    if s < 86400:
        return f"{s // 3600} h {s % 3600 // 60:02d} min"
    return f"{s // 86400} d {s % 86400 // 3600} h"


def clock(seconds: float) -> str:
    """Local time of day, with the date where it is not today's; "–" for what is no time (a log may hold any number)."""
    try:
        local = time.localtime(seconds)
    except (OverflowError, ValueError, OSError):
        return "–"
    today = time.localtime()
    same = (local.tm_year, local.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M:%S" if same else "%d %b %H:%M", local)


def size(count: float) -> str:
    """Bytes as 812 kB, 1.2 GB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def count(number: int, what: str) -> str:
    """1 step, 2,000 steps."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def plain(text: str) -> str:
    """Text from a log made harmless for a terminal: control characters become the replacement character."""
    return "".join(c if c.isprintable() else " " if c in "\t\n\r" else "�" for c in text)


def plain_lines(text: str) -> str:
    """Several lines made harmless, each for itself."""
    return "\n".join(map(plain, text.splitlines()))


def pattern_of(typed: str) -> re.Pattern[str]:
    """What a person typed to search for: a regular expression, or plain text where it is none; case does not matter."""
    try:
        return re.compile(typed, re.IGNORECASE)
    except re.error:
        return re.compile(re.escape(typed), re.IGNORECASE)


def json_line(value: Any) -> str:
    """One line of valid JSON: NaN and the infinities are the strings "nan", "inf" and "-inf", as in a run log."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
