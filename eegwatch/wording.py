"""Numbers as text for people (rates, durations, counts, sizes), one format each; and messages about their mistakes."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """A mistake that a person can mend: the text says where and what to do, and a program ends with that one line."""


def scientific(value: float, digits: int) -> str:
    """A number with so many decimals and its exponent as people type it: 2.84e-3, never 2.84e-03."""
    if not math.isfinite(value):
        return str(value)
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def rate(value: float) -> str:
    """A learning rate with three digits, 2.84e-3; exact zero is 0."""
    return "0" if value == 0 else scientific(value, 2)


def exact_rate(value: float, other: float) -> str:
    """`value` with as many digits as it takes to tell it from `other` (three at least)."""
    if not (math.isfinite(value) and math.isfinite(other)) or value in (other, 0):
        return rate(value)
    for digits in range(2, 17):
        if f"{value:.{digits}e}" != f"{other:.{digits}e}":
            return scientific(value, digits)
    return repr(value)


def exact(value: float) -> str:
    """A number as a person would type it, all its digits kept: 3e-4, 1.875e-3, 0.5, 5."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if 0.1 <= abs(value) < 1e6:
        return repr(float(value)).removesuffix(".0")
    return next(text for text in (scientific(value, digits) for digits in range(18)) if float(text) == value)


def significant(value: float, digits: int = 3) -> str:
    """A measured number with so many significant digits: 0.0123, 4.57, 1,970; below 1e-3 and from 1e6 on 2.5e-5."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")
    if abs(rounded) >= 1e6 or abs(rounded) < 1e-3:
        mantissa, _, exponent = scientific(value, digits - 1).partition("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{exponent}"
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"


def fitting(parts: list[str], width: int, between: str = "  ") -> str:
    """As many of the parts, from the first on, as fit whole into a width; the first always."""
    line = parts[0] if parts else ""
    for part in parts[1:]:
        if len(line) + len(between) + len(part) > width:
            break
        line += between + part
    return line


def path_end(path: Path, width: int) -> str:
    """A path, or as many of its last parts as fit whole: …/experiment_7/logs."""
    words = plain(str(path))
    parts = words.split("/")
    while len(words) > width and len(parts) > 1:
        parts = parts[1:]
        words = "/".join(["…", *parts])
    return words


def short_rate(value: float) -> str:
    """For axes and tables: 3e-3, 1.2e-4, 0.1."""
    if not math.isfinite(value) or value == 0 or 0.1 <= abs(value) < 100:
        return f"{value:.3g}"
    mantissa, _, exponent = scientific(value, 2).partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{exponent}"


def deviation(ratio: float) -> str:
    """observed / expected in words: +1.7 %, 12 times too low. Infinite: the expected rate is 0."""
    if ratio == 0:
        return "0 instead of a rate"
    if not math.isfinite(ratio) or ratio < 0:
        return "a rate instead of 0" if ratio == math.inf else "beyond comparison"
    if 0.5 < ratio < 2:
        percent = (ratio - 1) * 100
        if abs(percent) < 1e-6:
            return "by less than a millionth of a per cent"
        digits = 1 if abs(percent) >= 0.1 else 3 if abs(percent) >= 0.001 else 6
        return f"{percent:+.{digits}f} %"
    times = ratio if ratio > 1 else 1 / ratio
    word = "high" if ratio > 1 else "low"
    if times >= 1e6:
        return f"more than a million times too {word}"
    return f"{times:.1f} times too {word}" if times < 10 else f"{times:,.0f} times too {word}"


def of_planned(ratio: float) -> str:
    """observed / planned rate as a share: 1/12 of the planned LR, 2.4 times the planned LR, 1.7 % above it."""
    if not math.isfinite(ratio) or ratio < 0:
        return "no share of the planned LR"
    if ratio == 0:
        return "0 instead of the planned LR"
    if ratio >= 2:
        return f"{ratio:.1f} times the planned LR" if ratio < 10 else f"{ratio:,.0f} times the planned LR"
    if ratio <= 0.5:
        return f"1/{1 / ratio:.1f} of the planned LR" if ratio > 0.1 else f"1/{1 / ratio:,.0f} of the planned LR"
    percent = abs(ratio - 1) * 100
    digits = 1 if percent >= 0.1 else 3 if percent >= 0.001 else 6
    return f"{percent:.{digits}f} % {'above' if ratio > 1 else 'below'} the planned LR"


def count_of(number: int, noun: str) -> str:
    """1 step, 3 steps."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


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
    return f"{s // 86400:,} d {s % 86400 // 3600} h"


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
