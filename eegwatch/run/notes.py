"""A person's note on a run: one line of text in `note.txt` beside its log, shown in lists of runs and in the report."""

from __future__ import annotations

from pathlib import Path

from eegwatch.run.folder import write_whole
from eegwatch.wording import UserError

NOTE = "note.txt"
LONGEST = 500  # characters: a line of a list, not a page
READ_BYTES = 4 * LONGEST


class NotNoted(UserError):
    """The note could not be written: where and why."""


def note_of(folder: Path) -> str:
    """The note of a run folder as one line, "" for none. What somebody wrote with an editor is read too."""
    try:
        with (folder / NOTE).open("rb") as file:
            content = file.read(READ_BYTES)
    except OSError:
        return ""
    return " ".join(content.decode(errors="replace").split())[:LONGEST]


def write_note(folder: Path, text: str) -> None:
    """Replace the note of a run folder; an empty one removes it. Raises NotNoted."""
    line = " ".join(text.split())
    if len(line) > LONGEST:
        raise NotNoted(f"a note has at most {LONGEST} characters, this one has {len(line):,}")
    path = folder / NOTE
    try:
        if line:
            write_whole(path, line.encode() + b"\n")
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise NotNoted(f"{path}: {error.strerror or error}: the note could not be written") from error
