"""The program `eegpt-daemon`: runs a command of `eegpt_daemon.commands`, and turns a user's mistake into one line.

Exit codes: 0 done · 1 refused, failed, died, or already running · 2 wrong usage · 3 no daemon is running ·
75 try again · 78 wrong configuration.
"""

from __future__ import annotations

import os
import sys

from eegpt_daemon import commands
from eegpt_daemon.errors import FAILED, USAGE, WRONG_CONFIG, Refused, os_error_text
from eegpt_daemon.link import SHELL_UMASK
from eegwatch import __version__
from eegwatch.commands import Parser, UsageError
from eegwatch.run.config import ConfigError
from eegwatch.run.control import log_root
from eegwatch.wording import UserError, plain

PRIVATE = 0o077  # folders 0700, files 0600, whatever the shell says: logs, caches, checkpoints


def main(argv: list[str] | None = None) -> int:
    try:
        arguments = parser().parse_args(argv)
    except UsageError as error:
        print(plain(str(error)), file=sys.stderr)
        return USAGE
    os.environ[SHELL_UMASK] = f"{os.umask(PRIVATE):04o}"  # a script that is started makes its files as the shell does
    try:
        logs = log_root(arguments.logs)
        if logs.exists() and not logs.is_dir():
            raise Refused(f"--logs {logs}: a file; a log root is a folder", USAGE)
        code: int = arguments.action(arguments, logs)
        return code
    except ConfigError as error:
        print(f"eegpt-daemon: {plain(str(error))}", file=sys.stderr)
        return WRONG_CONFIG
    except Refused as error:
        print(f"eegpt-daemon: {plain(str(error))}", file=sys.stderr)
        return error.code
    except UserError as error:
        print(f"eegpt-daemon: {plain(str(error))}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"eegpt-daemon: {os_error_text(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("eegpt-daemon: interrupted; a command already sent is still carried out", file=sys.stderr)
        return 130


def parser() -> Parser:
    top = Parser(prog="eegpt-daemon", description="Trains EEGPT probes and obeys the control file.")
    top.add_argument("--version", action="version", version=f"eegpt-daemon {__version__}")
    below = top.add_subparsers(required=True, metavar="COMMAND")
    for name, words in commands.COMMANDS.items():
        module = commands.subcommand(name)
        sub = below.add_parser(name, help=words, description=words)
        sub.add_argument("--logs", metavar="DIR", help="log root (default: $EEGWATCH_LOGS, else ./logs)")
        module.prepare_parser(sub)
        sub.set_defaults(action=module.run)
    return top


if __name__ == "__main__":
    sys.exit(main())
