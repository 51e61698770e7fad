"""The examples of CONTRIBUTING.md: put where it says, each works with its one row and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USE = """
import numpy as np, sys
from pathlib import Path
from eegwatch import RunLog
from eegwatch.charts.kinds import kinds
from eegwatch.charts.model import ChartStyle
from eegwatch.check import *  # noqa
from eegwatch.cli import main
from eegwatch.diagnosis.rules import RULES
log = RunLog(sys.argv[1], total_steps=50)
for n in range(1, 51): log.step(loss=-1.0 / n, lr=1e-3)
log.end()
assert "loss_negative" in [rule.name for rule in RULES]
assert "perplexity" in [kind.name for kind in kinds(log.history)]
main(["check", str(log.folder)])
main(["export", str(log.folder), "-o", sys.argv[1] + "/p.svg", "--chart", "perplexity"])
raise SystemExit(main(["steps", str(log.folder)]))
"""


def test_the_examples_work_with_one_file_and_one_row_each(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    shutil.copytree(ROOT / "eegwatch", tmp_path / "eegwatch", ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "CONTRIBUTING.md").read_text()
    examples = re.findall(
        r"`(eegwatch/[\w/]+\.py)`, and the row `([^`]+)` in `(\w+)`.*?```python\n(.*?)```", text, re.DOTALL
    )
    assert len(examples) == 3
    for place, row, table, code in examples:
        (tmp_path / place).write_text(code)
        room = tmp_path / place.rpartition("/")[0] / "__init__.py"
        source = room.read_text()
        if '"' not in row:  # a name to import
            name = row.rstrip(",")
            module = place.removesuffix(".py").replace("/", ".")
            source = source.replace(
                "from __future__ import annotations\n",
                f"from __future__ import annotations\nfrom {module} import {name}\n",
                1,
            )
        begin = re.search(rf"^{table}\b[^=]*= [({{]", source, re.MULTILINE)
        assert begin is not None, table
        room.write_text(source[: begin.end()] + row + source[begin.end() :])
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "logs")], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("50") and "the loss is below zero" in done.stdout, done.stdout
