"""A run of MLflow's file store: RUN/meta.yaml, and one file a metric in RUN/metrics.

Lines of `time value step`: `1700000000000 0.5 10` (mlflow.store.tracking.file_store).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from eegwatch.formats.kinds.metric_series import SeriesStore, Value
from eegwatch.formats.log_kind import FileHead, LogKind


class MlflowRun(SeriesStore):
    """A run folder of MLflow's file store: one file a metric, only ever appended to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, folder.resolve().name)

    def _begin(self) -> None:
        super()._begin()
        self._offsets: dict[Path, int] = {}
        self._replaced = False

    def _files(self) -> list[Path]:
        return sorted(path for path in (self.path / "metrics").rglob("*") if path.is_file())

    def look(self) -> tuple[object, float, bool]:
        """As SeriesStore."""
        stats = {path: path.stat() for path in self._files()}
        replaced = any(path not in stats or stats[path].st_size < size for path, size in self._offsets.items())
        written = max((status.st_mtime for status in stats.values()), default=0.0)
        return tuple((path, status.st_size) for path, status in stats.items()), written, replaced

    def new(self) -> Iterator[Value]:
        """As SeriesStore."""
        for path in self._files():
            name = path.relative_to(self.path / "metrics").as_posix()
            if name.startswith("system/"):
                continue  # the load of the machine
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            end = data.rfind(b"\n") + 1
            self._offsets[path] = self._offsets.get(path, 0) + end
            for line in data[:end].split(b"\n"):
                parts = line.split()
                try:
                    when, value, step = float(parts[0]), float(parts[1]), int(parts[2]) if len(parts) > 2 else 0
                except (ValueError, IndexError):
                    self.bad += bool(line.strip())
                    continue
                yield name, step, when / 1000, value


def _mlflow(head: FileHead) -> bool:
    return head.name == "meta.yaml" and b"run_id" in head.data and (head.path.parent / "metrics").is_dir()


def _follow_mlflow(path: Path, patterns: Sequence[object]) -> MlflowRun:
    return MlflowRun(path if path.is_dir() else path.parent)


KIND = LogKind("MLflow", "meta.yaml metrics/*", 4, _mlflow, _follow_mlflow, folder=True)
