"""From the text of a YAML file to a checked `Config`, and back; `${NAME}` and `${NAME:-default}` are expanded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import yaml

from eegwatch.run.config.schema import Config, Notify
from eegwatch.run.config.validation import check, reject_unknown
from eegwatch.run.yaml_file import ConfigError, check_values, expanded, short_name, text_of, tree_of

TRAINS_THE_SAME = (
    "script",
    "logging", "guard", "supervision", "notify", "detectors", "expected", "target_metrics", "inject", "experiment",
    "distributed",
)  # fmt: skip

# keys that are newer than the first checkpoints: left out of the hash at their default, or no older run would resume
ADDED_LATER = {"data.split_seed": None, "model.backbone.entry": None}


def load(path: Path, *, expand: bool = True) -> Config:
    """Read and check a YAML file. Raises ConfigError with file, key and remedy in one line, for any content."""
    where = short_name(path)
    return parse_text(text_of(path, where), where, expand=expand)


def parse_text(text: str, where: str, *, expand: bool = True) -> Config:
    """As `load`, from the text itself; `where` names it in errors."""
    tree = tree_of(text, where)
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: the file must be a mapping of keys, not a {type(tree).__name__}")
    tree = {key: value for key, value in tree.items() if value is not None}  # `data:` with nothing under it
    reject_unknown(tree, Config, where, "")
    try:
        config = msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at `$.")
        raise ConfigError(f"{where}: {key.rstrip('`')}: {what[0].lower()}{what[1:]}") from None
    except RecursionError:
        raise ConfigError(f"{where}: a value contains itself (a YAML alias inside its own anchor)") from None
    if config.script is not None:
        config.data.root_dir = ""  # a script has data of its own
    if expand:
        try:
            tree = msgspec.to_builtins(config)
            unexpanded = tree.pop("notify")  # a password stays in the environment: expanded when it is used
            expanded(unexpanded, "notify")  # an unset variable is reported now
            config = msgspec.convert(expanded(tree, "") | {"notify": unexpanded}, Config)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    check_values(msgspec.to_builtins(config), where, "")
    check(config, where)
    config.model.probe.n_classes = len(config.data.labels)
    return config


def dump(config: Config) -> str:
    """The configuration as run, every default filled in, as YAML."""
    return yaml.safe_dump(msgspec.to_builtins(config), sort_keys=False, allow_unicode=True)


def expanded_notify(notify: Notify) -> Notify:
    """Addresses and command with their environment variables expanded. Raises ConfigError for one that is not set."""
    return msgspec.convert(expanded(msgspec.to_builtins(notify), "notify"), Notify)


def public(config: Config) -> dict[str, Any]:
    """The configuration as a log may hold it: without `notify`, whose addresses and arguments may hold passwords."""
    tree: dict[str, Any] = msgspec.to_builtins(config)
    del tree["notify"]
    return tree


def training_hash(config: Config) -> str:
    """Hash of what training depends on: not of workers, paces, log intervals or the guard."""
    tree = msgspec.to_builtins(config)
    for path, default in ADDED_LATER.items():
        *above, key = path.split(".")
        holder = tree
        for name in above:
            holder = holder[name]
        if holder[key] == default:
            del holder[key]
    for name in ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "cache_dir", "log_file_names"):
        del tree["data"][name]
    for name in ("checkpoint_minutes", "pace_steps_per_s"):
        del tree["training"][name]
    del tree["model"]["backbone"]["compile"]
    for name in TRAINS_THE_SAME:
        del tree[name]
    tree["seed"] = config.experiment.seed
    return hashlib.sha256(msgspec.json.encode(tree, order="sorted")).hexdigest()[:16]
