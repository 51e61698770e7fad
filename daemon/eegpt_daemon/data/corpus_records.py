"""Records of the log about the corpus and its cache (signals, labels, headers, encoder), for the diagnosis to judge.

Only headers and lists are read: the fingerprints of signals are in the cache's index.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eegpt_daemon.data.corpus import Entry
from eegpt_daemon.data.edf_header import Header, read_header
from eegpt_daemon.data.header_facts import headers_look
from eegpt_daemon.data.label_sources import LabelSources
from eegpt_daemon.data.same_signal import signals_look
from eegpt_daemon.data.windows import WindowStore
from eegpt_daemon.model.custom_encoder import ForeignEncoder
from eegpt_daemon.model.encoder import Encoder
from eegpt_daemon.model.training_mode import active_in_training_mode
from eegwatch.run.config import Config
from eegwatch.watching.naming import first_names

Look = tuple[str, dict[str, Any]]


def corpus_looks(config: Config, store: WindowStore, entries: list[Entry], used: set[str]) -> list[Look]:
    """The records (look, values) on the recordings in `used`, by their relative paths. Raises OSError."""
    kept = [entry for entry in entries if entry.relative in used]
    headers: list[tuple[Entry, Header]] = []
    for entry in kept:
        header = read_header(entry.path)
        if header is not None:
            headers.append((entry, header))
    signals = [(entry, _signal(store, entry)) for entry in kept]
    sources = LabelSources(Path(config.data.root_dir), kept, config.data.labels)
    return [
        ("signals", signals_look(signals)),
        ("labels", sources.look(headers)),
        ("headers", headers_look(headers, config.data.labels)),
    ]


def _signal(store: WindowStore, entry: Entry) -> dict[str, Any]:
    """The fingerprint in the index; of an earlier cache, the hash of the rows: it tells whole copies."""
    shard = store.store.index.get(store.shard_name(entry))
    if shard is None or not shard.rows:
        return {}
    return shard.signal or {"whole": f"rows {shard.sha256}", "seconds": 0, "kept": ""}


def encoder_look(encoder: Encoder | ForeignEncoder) -> dict[str, Any]:
    """The values of an `encoder` record: what in it was in training mode, and what trying it has shown."""
    if isinstance(encoder, ForeignEncoder):
        return {"encoder": encoder.name, "active": None, **encoder.behaviour}
    names = active_in_training_mode(encoder)
    active = first_names(names) if names else None
    # every part of it is known: without an active one it gives the same features each time
    return {"encoder": type(encoder).__name__, "active": active, "repeat": 0.0, "alone": 0.0}
