"""The user's settings: theme, pinned runs, sizes of panes. ~/.config/eegwatch/monitor.json."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from eegwatch.run.folder import write_whole

SIDE_WIDTH = 44


class Settings(msgspec.Struct):
    """Unknown keys of a newer version are passed over; a file that cannot be read is as none."""

    theme: str | None = None
    pinned: list[str] = []
    side_width: int = SIDE_WIDTH
    columns: int | None = None

    def save(self) -> None:
        """Raises OSError."""
        path = place()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    def toggle_pin(self, folder: Path) -> None:
        name = str(folder.resolve())
        self.pinned = [p for p in self.pinned if p != name] if name in self.pinned else [*self.pinned, name]

    def pins(self, folder: Path) -> bool:
        return bool(self.pinned) and str(folder.resolve()) in self.pinned  # mostly none is: no system call a run


def place() -> Path:
    root = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(root).expanduser() / "eegwatch" / "monitor.json"


def load() -> Settings:
    try:
        return msgspec.json.decode(place().read_bytes(), type=Settings)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Settings()
