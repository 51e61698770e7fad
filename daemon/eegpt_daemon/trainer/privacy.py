"""Removes the corpus's file names from messages and logs: TUAB's are patient ids (data.log_file_names: false)."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from eegwatch.run.config import Data

REST_OF_PATH = r"/[^'\"\n]+"


class Privacy:
    """`clean(text)` replaces every path below the corpus, and every name of a file that is known."""

    def __init__(self, data: Data) -> None:
        self.open = data.log_file_names or data.synthetic is not None  # names may be told
        root = Path(data.root_dir)
        roots = {str(root), str(root.absolute()), str(root.resolve())} - {"/", "."}
        self._paths = [re.compile(re.escape(path) + REST_OF_PATH) for path in sorted(roots, key=len, reverse=True)]
        self._instead = f"{data.root_dir}/…"
        self._names: re.Pattern[str] | None = None

    def learn(self, files: Iterable[tuple[str, str]]) -> None:
        """(name of a file without its suffix, what logs call it) of the corpus."""
        self._aliases = {stem: alias for stem, alias in files if len(stem) >= 4}  # "a" is part of every word
        names = sorted(self._aliases, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names))) if names else None

    def clean(self, text: str) -> str:
        """The text without names of recordings."""
        if self.open:
            return text
        for path in self._paths:
            text = path.sub(self._instead.replace("\\", r"\\"), text)
        if self._names is not None:
            text = self._names.sub(lambda match: self._aliases[match[0]], text)
        return text

    def trace(self, error: BaseException) -> None:
        """The traceback of an exception, to standard error."""
        print(self.clean("".join(traceback.format_exception(error))), file=sys.stderr, end="", flush=True)

    def quieten_warnings(self) -> None:
        """Python's warnings go through `clean` too: mne names files in them."""

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
            line: str | None = None,
        ) -> None:  # fmt: skip
            text = warnings.formatwarning(message, category, filename, lineno, line)
            print(self.clean(text), file=file or sys.stderr, end="")

        warnings.showwarning = show
