"""The program `eegwatch`: runs a subcommand of `eegwatch.commands`, and turns a user's mistake into one line.

Exit codes: 0 nothing wrong · 1 findings of severity warning or error · 2 unreadable input or wrong usage.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin after import: twice the CPU for a 4 ms job

from eegwatch.commands import UsageError, run
from eegwatch.firstframe import first_frame
from eegwatch.wording import UserError, plain

WRONG, UNREADABLE = 1, 2  # as in commands.options, which takes 0.3 s to import: the first frame comes before it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code; `--help` and `--version` raise SystemExit(0)."""
    words = sys.argv[1:] if argv is None else argv
    try:
        with warnings.catch_warnings(), first_frame(words):
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # numpy's, of the NaN and the infinities that a log may hold
            code = run(words)
        sys.stdout.flush()  # a pipe that nobody reads is noticed here, not at the end of the interpreter
        return code
    except UserError as error:
        message = plain(str(error))
        prefix = "" if isinstance(error, UsageError) and message.startswith("eegwatch") else "eegwatch: "
        print(f"{prefix}{message}", file=sys.stderr)
        return UNREADABLE
    except BrokenPipeError:  # `eegwatch check … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WRONG
    except KeyboardInterrupt:
        return 130  # as the shell counts an interrupted program
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"eegwatch: {plain(where)}{plain(error.strerror or str(error))}", file=sys.stderr)
        return UNREADABLE


if __name__ == "__main__":
    sys.exit(main())
