"""The writer for a training script: `RunLog`, its lines on disk, and the rates that each optimizer step used."""

from eegwatch.runlog.writer import RunLog

__all__ = ["RunLog"]
