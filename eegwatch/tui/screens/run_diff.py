"""The differences between two runs as text: their configurations, and the commands about their rates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from eegwatch.run.branches import changes
from eegwatch.run.folder import CONFIG
from eegwatch.run.yaml_file import ConfigError, text_of, tree_of, without_secrets
from eegwatch.wording import plain


def run_diff(one: Path, other: Path) -> Text:
    """The differences between two runs: their configurations, then the commands about their rates."""
    commanded = []
    for folder in (one, other):
        try:
            commanded.append(changes(folder))
        except OSError as error:
            commanded.append([error.strerror or str(error)])
    text = config_diff(one, other)
    for folder, words, style in zip((one, other), commanded, ("red", "green"), strict=True):
        if commanded[0] != commanded[1]:
            text.append(f"\n\nrates of {folder.name}", "bold")
            text.append("".join(f"\n  {line}" for line in words or ["as declared"]), style)
    return text


def config_diff(one: Path, other: Path) -> Text:
    """The differences between the configurations of two runs, one key per line: key: A → B."""
    flat: list[dict[str, str]] = []
    for folder in (one, other):
        path = folder / CONFIG
        try:
            flat.append(dict(_flat(tree_of(without_secrets(text_of(path, str(path))), str(path)))))
        except (ConfigError, OSError) as error:
            return Text(plain(str(error)))
    before, after = flat
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if not keys:
        return Text("the configurations are the same")
    width = min(max(map(len, keys)), 48)
    lines = []
    for key in sorted(keys):
        old, new = before.get(key, "–"), after.get(key, "–")
        lines.append(
            Text.assemble((f"{plain(key):<{width}}  ", "bold"), (plain(old), "red"), " → ", (plain(new), "green"))
        )
    return Text("\n").join(lines)


def _flat(tree: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a configuration as (training.scheduler.max_lr, 0.003)."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, "none" if tree is None else str(tree)
