"""eegwatch: a terminal monitor for EEG training runs that knows what the learning rate should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eegwatch.runlog import RunLog

__all__ = ["RunLog", "__version__"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """`from eegwatch import RunLog`, imported only when asked for: the command line does not pay for it."""
    if name == "RunLog":
        from eegwatch.runlog import RunLog

        return RunLog
    raise AttributeError(f"module 'eegwatch' has no attribute {name!r}")
