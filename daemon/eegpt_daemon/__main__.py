"""`python -m eegpt_daemon LOG_ROOT [--config PATH]`: the detached daemon itself, launched by the CLI."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from eegpt_daemon.cli import PRIVATE
from eegpt_daemon.errors import Refused, os_error_text
from eegpt_daemon.launch import live
from eegpt_daemon.link import SHELL_UMASK
from eegwatch.run import config as configuration
from eegwatch.run.config import ConfigError


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("logs", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--continue", dest="go_on", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault(SHELL_UMASK, f"{os.umask(PRIVATE):04o}")
    os.umask(PRIVATE)
    try:
        config = configuration.load(arguments.config) if arguments.config else None
        return live(arguments.logs, config, go_on=arguments.go_on)
    except (Refused, ConfigError) as error:
        print(f"eegpt-daemon: {error}", file=sys.stderr)
    except OSError as error:
        print(f"eegpt-daemon: {os_error_text(error)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
