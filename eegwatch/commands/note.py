"""`eegwatch note RUN [TEXT]`: show or write the note of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegwatch.commands.options import add_path
from eegwatch.run.folder import run_at
from eegwatch.run.notes import note_of, write_note
from eegwatch.wording import plain


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    add_path(parser, help="a run folder, or a log root: its newest run")
    parser.add_argument("text", nargs="*", metavar="TEXT", help='the new note; "" removes it; without one it is shown')


def run(arguments: argparse.Namespace) -> int:
    """Raises NotARun and NotNoted."""
    folder = run_at(Path(arguments.path))
    if arguments.text:
        write_note(folder, " ".join(arguments.text))
    print(plain(f"{folder.name}: {note_of(folder) or 'no note'}"))
    return 0
