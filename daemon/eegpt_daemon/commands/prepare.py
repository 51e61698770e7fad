"""`eegpt-daemon prepare`: a corpus indexed, checked and encoded into the cache, without training."""

from __future__ import annotations

import argparse
from pathlib import Path

from eegpt_daemon.errors import OK, WRONG_CONFIG, Refused, require_heavy


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="PATH")


def run(arguments: argparse.Namespace, logs: Path) -> int:
    """0 ready, 78 a configuration or corpus that cannot be trained on, 130 interrupted (what is done is kept)."""
    require_heavy()
    from eegpt_daemon.data.prepare_corpus import prepare_alone
    from eegpt_daemon.trainer.attempt import USER_ERRORS

    try:
        prepare_alone(arguments.config)
    except USER_ERRORS as error:
        raise Refused(str(error), WRONG_CONFIG) from None
    except KeyboardInterrupt:
        raise Refused("interrupted; finished parts are kept, the same command continues from there", 130) from None
    return OK
