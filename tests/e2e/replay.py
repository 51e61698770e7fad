"""Write a recorded run once more, at any speed: `python -m tests.e2e.replay SOURCE TARGET --rate 500`.

The lines are the recording's own, to the byte, but for `time`, which is now: what a monitor sees is a run that lives.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from eegwatch.run.folder import RUN_LOG

BATCH_S = 0.002  # lines due within so long are written together


def replay(source: Path, target: Path, rate: float) -> int:
    """Append the records of one log to another folder's, `rate` a second; returns how many."""
    lines = (source / RUN_LOG).read_bytes().splitlines()
    target.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with (target / RUN_LOG).open("ab", buffering=0) as log:
        for count, line in enumerate(lines):
            early = begin + count / rate - time.monotonic()
            if early > BATCH_S:
                time.sleep(early)
            record = json.loads(line) | {"time": time.time()}
            if record["type"] == "run":
                record["run_id"] = target.name
            log.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
    return len(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--rate", type=float, default=500.0, help="records a second")
    given = parser.parse_args()
    print(replay(given.source, given.target, given.rate), "records")
