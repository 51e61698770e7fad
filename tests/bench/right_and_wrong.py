"""What the incident costs: the demo with its schedule, and with the scheduler stepped once an epoch; same data, seed.

    python -m tests.bench.right_and_wrong [--reports FOLDER] [--seeds 3 4 5]

Real daemons train configs/demo.yaml and configs/incident.yaml at full speed (no pace) to their ends. Printed: the
evaluation AUROC that each reached, reported once at the end, and what `eegwatch check` says of each log.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import tempfile
import time
from pathlib import Path

import yaml

from eegwatch.check import open_run
from eegwatch.report import write_report
from tests.e2e.processes import Daemon

CONFIGS = {"right schedule": "configs/demo.yaml", "stepped once per epoch": "configs/incident.yaml"}


def train(config: str, seed: int, folder: Path) -> Path:
    tree = yaml.safe_load(Path(config).read_text())
    tree["training"].pop("pace_steps_per_s", None)
    tree["experiment"]["seed"] = seed
    path = folder / "config.yaml"
    folder.mkdir(parents=True)
    path.write_text(yaml.safe_dump(tree))
    daemon = Daemon(folder / "logs")
    daemon.cli("start", "--config", str(path))
    end = time.monotonic() + 600
    while (daemon.records() or [{}])[-1].get("type") != "end":
        if time.monotonic() > end:
            raise SystemExit(f"{config}: not done within ten minutes")
        time.sleep(0.2)
    daemon.cli("stop")
    return daemon.run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--reports", type=Path)
    arguments = parser.parse_args()
    print(f"{'seed':>4}  {'':24} {'eval AUROC':>10} {'recordings':>10} {'best val':>9}  the log says")
    with tempfile.TemporaryDirectory() as scratch:
        for seed in arguments.seeds:
            for name, config in CONFIGS.items():
                run = train(config, seed, Path(scratch) / f"{name}-{seed}".replace(" ", "-"))
                records = [json.loads(line) for line in (run / "run.jsonl").read_text().splitlines()]
                final = [r for r in records if r["type"] == "eval" and r["split"] == "eval"][
                    -1
                ]  # the best model's stands before
                best = max(r["auroc"] for r in records if r["type"] == "eval" and r["split"] == "val")
                checked = open_run(run, None, None)
                outcome = checked.read_to_end()
                said = outcome.findings[0].message if outcome.wrong else "nothing wrong"
                print(
                    f"{seed:>4}  {name:24} {final['auroc']:10.4f} {final['recording_auroc']:10.4f} {best:9.4f}  {said}",
                    flush=True,
                )
                if arguments.reports is not None and seed == arguments.seeds[0]:
                    arguments.reports.mkdir(parents=True, exist_ok=True)
                    page = arguments.reports / f"{name.replace(' ', '_')}.md"
                    write_report(checked, page)
                    rates = re.search(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page.read_text())
                    assert rates is not None
                    page.with_suffix(".svg").write_bytes(base64.b64decode(rates[1]))  # its first picture
                    write_report(checked, page.with_suffix(".html"))


if __name__ == "__main__":
    main()
