"""The protocol card of a run: everything about data and model without which a score cannot be compared."""

from __future__ import annotations

from eegpt_daemon.analysis.cached_run import CachedRun
from eegpt_daemon.data.recording import wanted_channels
from eegwatch.run.config import Config

REFERENCES = {"average": "average of the channels", "none": "as recorded"}
SCALINGS = {
    "millivolt": "millivolt",
    "uv100": "microvolt / 100",
    "zscore": "z-score of each channel over the recording",
}
# Wang et al., NeurIPS 2024: none of them holds recordings of the TUH EEG corpus
EEGPT_CORPORA = "PhysioMI, HGD, TSU, SEED, M3CV (no recording of the TUH EEG corpus)"


def is_tuab(config: Config) -> bool:
    """Whether published scores on TUAB may be shown for this run: not for synthetic signals or other classes."""
    return config.data.synthetic is None and [name.lower() for name in config.data.labels] == ["normal", "abnormal"]


def card(run: CachedRun) -> list[tuple[str, str]]:
    """(what, how), in order."""
    data, planned = run.config.data, run.planned
    seed = run.config.experiment.seed if data.split_seed is None else data.split_seed
    splits = []
    for split, windows in (("train", run.data.train), ("val", run.data.val), ("eval", run.data.test)):
        entries = [entry for entry in planned.entries if entry.split == split]
        if windows is not None:
            subjects = len({entry.subject for entry in entries})
            splits.append(
                f"{split}: {len(windows.names):,} recordings of {subjects:,} subjects, {len(windows):,} windows"
            )
    used = sum(len(windows.names) for windows in (run.data.train, run.data.val, run.data.test) if windows is not None)
    rejected = len(planned.entries) + len(planned.left_out) - used
    channels = wanted_channels(data)
    made_up = "SYNTHETIC signals; " if data.synthetic is not None else ""
    return [
        ("data", f"{made_up}classes {', '.join(data.labels)}; {'; '.join(splits)}"),
        ("split", f"by subject; validation {data.val_fraction:.0%} of the training subjects (seed {seed})"),
        ("evaluation", "the official evaluation set; it chooses nothing"),
        ("rejected files", f"{rejected:,}, by name in recordings.tsv of the cache"),
        ("windows", f"{data.window_duration:g} s, stride {data.window_stride:g} s, over the whole of each recording"),
        ("shortest recording", f"{data.min_duration:g} s"),
        ("sampling rate", f"{data.sampling_rate} Hz, polyphase resampling"),
        ("filters", "none but the resampler's low-pass; no notch"),
        ("channels", f"{len(channels)}: {' '.join(channels)}; missing ones: {data.missing}"),
        ("reference", REFERENCES[data.reference]),
        ("scaling", f"{SCALINGS[data.scaling]}; features standardised by the training windows"),
        ("encoder", _encoder(run.config)),
        ("pretrained on", _pretrained(run.config)),
    ]  # fmt: skip


def _pretrained(config: Config) -> str:
    if config.model.backbone.entry is not None:
        return "not known here: the encoder is the user's own"
    return EEGPT_CORPORA if config.model.backbone.checkpoint_path else "nothing: random weights"


def _encoder(config: Config) -> str:
    backbone = config.model.backbone
    if backbone.entry is not None:
        return f"{backbone.entry} (of the user's own), frozen"
    what = f"checkpoint {backbone.checkpoint_path}" if backbone.checkpoint_path else f"preset {backbone.preset}"
    return f"{backbone.name}, {what}, {backbone.precision}, " + ("frozen" if backbone.freeze else "trained too")
