"""What runs elsewhere is held here: workflows, issue forms and hooks are YAML, and call what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml", ROOT / "mkdocs.yml"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_and_folders_that_exist(path: Path) -> None:
    jobs: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    for job in jobs.values():
        assert job["runs-on"] and job["steps"]
        assert job.get("needs") in (None, *jobs)
        matrix = job.get("strategy", {}).get("matrix", {})
        for part in matrix.get("part", []):
            assert (ROOT / "tests" / part).is_dir()
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            if str(step.get("run", "")).startswith("make "):
                words = [word for word in step["run"].split()[1:] if re.fullmatch(r"[\w-]+", word)]
                assert set(words) <= TARGETS, step
            for key in re.findall(r"matrix\.(\w+)", str(step)):
                assert key in matrix


def test_every_folder_of_tests_is_run_by_a_job() -> None:
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["tests"]["strategy"][
        "matrix"
    ]
    with_tests = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert with_tests == set(matrix["part"])


def test_the_hooks_are_of_the_version_that_the_tests_use() -> None:
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert f"ruff=={hooks['rev'].removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text()
