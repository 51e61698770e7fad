"""The header of an EDF file, read without mne: a hundred times faster, and a corpus has tens of thousands of files.

Fields are those of the EDF and EDF+ specifications (edfplus.info): ASCII of fixed width, the fixed part of 256 bytes
first, then field by field for all signals.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

MOST_SIGNALS = 4096  # of a header: 512 is a large one
WIDTHS = {"label": 16, "transducer": 80, "unit": 8, "low": 8, "high": 8, "least": 8, "most": 8, "filter": 80, "n": 8}
UNKNOWN = ("", "x", "unknown", "anonymous", "anon", "none", "na", "n/a", "0")


@dataclass(frozen=True)
class Header:
    """`patient`, `recording`: the raw fields. `signals`: for each column of WIDTHS a list with one entry per signal."""

    patient: str
    recording: str
    start: str
    header_bytes: int
    records: int
    record_s: float
    file_bytes: int
    signals: dict[str, list[str]]

    @property
    def samples(self) -> list[int]:
        """Samples of a data record, one number a signal."""
        return [int(text) for text in self.signals["n"]]

    def rate(self, signal: int) -> float:
        """Hertz; nan where the header gives none."""
        return self.samples[signal] / self.record_s if self.record_s > 0 else math.nan

    @property
    def patient_code(self) -> str:
        """A hash of the patient's code (EDF+: the field's first word); empty if there is none."""
        code = (self.patient.split() or [""])[0].lower()
        return "" if code in UNKNOWN else hashlib.sha256(code.encode()).hexdigest()[:16]

    @property
    def sex(self) -> str:
        """M, F, or empty: the second word of an EDF+ patient field."""
        words = self.patient.split()
        return words[1].upper() if len(words) > 1 and words[1].upper() in ("M", "F") else ""

    @property
    def equipment(self) -> str:
        """The fifth word of an EDF+ recording field: "Startdate 02-MAR-2002 CODE TECHNICIAN EQUIPMENT"."""
        words = self.recording.split()
        known = len(words) > 4 and words[0].lower() == "startdate" and words[4].lower() not in UNKNOWN
        return words[4] if known else ""

    @property
    def year(self) -> str:
        """The year of the recording, "2004"; empty if the date is invalid (EDF has two digits: 85 to 99 mean 19xx)."""
        match = re.fullmatch(r"\d\d\.\d\d\.(\d\d)", self.start.strip())
        return "" if match is None else f"{'19' if int(match[1]) >= 85 else '20'}{match[1]}"


def read_header(path: Path) -> Header | None:
    """None for a file that cannot be read, or has no header of EDF."""
    try:
        with path.open("rb") as file:
            size, fixed = os.fstat(file.fileno()).st_size, file.read(256)
            signals = int(fixed[252:256])
            table = file.read(256 * min(max(signals, 0), MOST_SIGNALS))
        columns, at = {}, 0
        for name, width in WIDTHS.items():
            part = table[at * signals : (at + width) * signals]
            columns[name] = [_text(part[width * i : width * (i + 1)]) for i in range(signals)]
            at += width
        [int(number) for number in columns["n"]]
        return Header(
            patient=_text(fixed[8:88]),
            recording=_text(fixed[88:168]),
            start=_text(fixed[168:176]),
            header_bytes=int(fixed[184:192]),
            records=int(fixed[236:244]),
            record_s=float(fixed[244:252]),
            file_bytes=size,
            signals=columns,
        )
    except (OSError, ValueError, OverflowError):
        return None


def _text(field: bytes) -> str:
    return field.decode("latin-1").strip()
