"""Numbers as logs hold them: JSON with Python's NaN and Infinity, dicts as Python prints them, `3/200`, `93.5%`."""

from __future__ import annotations

import datetime
import json
import math
import re
from typing import Any

import msgspec

LONGEST_OBJECT = 1 << 20  # a megabyte between braces is not a record of a training step
_FRACTION = re.compile(r"\s*(\d+)\s*/\s*(\d+)\s*$")
_ITEM = re.compile(
    r"""(?:'([^'\\]{1,200})'|"([^"\\]{1,200})")\s*:\s*
    (?:['"]([^'"]{0,200})['"]
     |(?:np\.\w+\(|numpy\.\w+\(|tensor\(|array\()?\s*
      ([-+]?(?:\d+(?:_\d+)*\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)\b|[-+]?\d+\.(?=[,}\s]))
     |(\{)|(\[[^\]\[]{0,2000}\]))?""",
    re.VERBOSE | re.IGNORECASE,
)
_CLOSING = re.compile(r"[{}]")
_json = msgspec.json.Decoder()


def number(text: str) -> float | None:
    """The number in a text, in any spelling; None if there is none."""
    try:
        return float(text)
    except (ValueError, OverflowError):
        text = text.strip().rstrip("%").replace(",", "")
    try:
        return float(text)
    except (ValueError, OverflowError):
        return None


def fraction(text: str) -> tuple[float, int] | None:
    """`3/200` -> (3.0, 200)."""
    match = _FRACTION.match(text)
    return (float(match[1]), int(match[2])) if match and len(match[1]) < 16 and len(match[2]) < 16 else None


def json_value(text: bytes | str) -> Any:
    """JSON as Python's json writes it, NaN and Infinity included. Raises ValueError."""
    try:
        return _json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (RecursionError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None


def python_dict(text: str) -> dict[str, Any] | None:
    """The items of a dict as Python prints it: `{'loss': 0.5, 'epoch': '1.2'}`; None for other text.

    Nothing is evaluated; nested dicts stay nested, what is neither number nor text is left out.
    """
    if len(text) > LONGEST_OBJECT:
        return None
    outer: dict[str, Any] = {}
    stack: list[dict[str, Any]] = [outer]
    at = 0
    for item in _ITEM.finditer(text):
        for brace in _CLOSING.findall(text, at, item.start()):
            if brace == "}" and len(stack) > 1:
                stack.pop()
        at = item.end()
        name = item[1] if item[1] is not None else item[2]
        if item[3] is not None:
            stack[-1][name] = item[3]
        elif item[4] is not None:
            stack[-1][name] = number(item[4])
        elif item[5]:
            inner: dict[str, Any] = {}
            stack[-1][name] = inner
            stack.append(inner)
            if len(stack) > 20:
                return None
        elif item[6]:
            stack[-1][name] = [n for n in map(number, item[6][1:-1].split(",")) if n is not None]
    return outer or None


def embedded(line: str) -> tuple[str, dict[str, Any]] | None:
    """(the text before it, the object) of a line that ends in a JSON object or a Python dict."""
    begin = line.find("{")
    if begin < 0 or len(line) - begin > LONGEST_OBJECT:
        return None
    end = line.rfind("}")
    if end < begin or line[begin + 1 : begin + 3].strip()[:1] not in ('"', "'"):
        return None
    text = line[begin : end + 1]
    if '"' in text:
        try:
            value = json_value(text)
            return (line[:begin], value) if isinstance(value, dict) else None
        except ValueError:
            pass
    values = python_dict(text)
    return (line[:begin], values) if values else None


def clock_of(value: float) -> float | None:
    """Seconds since 1970 if `value` can be such a time (2001 to 2128, milliseconds too); a duration gives None."""
    if 1e9 < value < 5e9:
        return value
    return value / 1000 if 1e12 < value < 5e12 else None


def clock_in(text: str) -> float | None:
    """A time of day written as ISO 8601."""
    try:
        return datetime.datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def whole(value: float | None, most: int = 1 << 53) -> int | None:
    """A counter's value as an integer; None for a fraction, for what is not finite, negative or beyond 2^53."""
    if value is None or not math.isfinite(value) or not 0 <= value <= most or value != int(value):
        return None
    return int(value)
