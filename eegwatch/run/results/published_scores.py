"""Published scores on TUAB with their protocols, shown beside a run's own scores.

Looked up 2026-11-25. `balanced_accuracy` and `auroc` as they were printed; an empty string where a source has none.
"""

from __future__ import annotations

import msgspec

LOOKED_UP = "2026-11-25"


class Published(msgspec.Struct, frozen=True):
    """`source` and `model`; `protocol`: what was trained, on which windows, how often; `level`: what is scored."""

    source: str
    model: str
    protocol: str
    level: str
    balanced_accuracy: str = ""
    auroc: str = ""


_FULL = "all weights fine-tuned"
_BENCH = f"{_FULL}, average pooling; its evaluation set is validation and test in one"
TUAB = (
    Published("EEGPT paper, Table 2", "EEGPT", f"linear probing by the text, {_FULL} by its code; 10 s, 3 runs", "window", ".7983 ± .0030", ".8718 ± .0050"),  # noqa: E501
    Published("EEGPT paper, appendix", "EEGPT without pretraining", "as above", "window", ".7553", ".8260"),
    Published("quoted in the EEGPT paper", "BIOT", _FULL, "window", ".7959 ± .0057", ".8815 ± .0043"),
    Published("quoted in the EEGPT paper", "LaBraM-Base", _FULL, "window", ".8140 ± .0019", ".9022 ± .0009"),
    Published("EEG-FM-Bench, Table 2", "EEGPT", _BENCH, "window", ".7866 ± .0024", ".8752 ± .0101"),
    Published("EEG-FM-Bench, Table 2", "BENDR", _BENCH, "window", ".827", ".895"),
    Published("EEG-FM-Bench, Table 2", "BIOT", _BENCH, "window", ".795", ".883"),
    Published("EEG-FM-Bench, Table 2", "LaBraM", _BENCH, "window", ".795", ".869"),
    Published("EEG-FM-Bench, Table 2", "CBraMod (pretrained on all of TUEG)", _BENCH, "window", ".814", ".890"),
    Published("EEG-FM-Bench, Table 2", "CSBrain", _BENCH, "window", ".790", ".853"),
    Published("EEG-FM-Bench, Table 2", "REVE", _BENCH, "window", ".813", ".879"),
    Published("EEG-FM-Bench", "LaBraM, frozen", "linear probing; a user of the same code reports about .75", "window", ".6040"),  # noqa: E501
    Published("REVE-Base, model card", "REVE, frozen", "linear probing", "window", ".81"),
    Published("REVE-Base, model card", "REVE", _FULL, "window", ".8315"),
    Published("AdaBrain-Bench", "EEGPT", "across subjects, probably all weights fine-tuned", "window", ".8054"),
    Published("AdaBrain-Bench", "BIOT", "across subjects, probably all weights fine-tuned", "window", ".7807"),
    Published("AdaBrain-Bench", "LaBraM", "across subjects, probably all weights fine-tuned", "window", ".8150"),
    Published("AdaBrain-Bench", "CBraMod", "across subjects, probably all weights fine-tuned", "window", ".8005"),
    Published("NeuralBench v1", "BENDR", f"{_FULL}, 60 s to 21 min, 3 seeds", "recording", ".818"),
    Published("NeuralBench v1", "LUNA", f"{_FULL}, 60 s to 21 min, 3 seeds", "recording", ".803"),
    Published("NeuralBench v1", "CBraMod", f"{_FULL}, 60 s to 21 min, 3 seeds", "recording", ".797"),
    Published("NeuralBench v1", "EEGNet", "trained from scratch, 3 seeds", "recording", ".794"),
    Published("NeuralBench v1", "LaBraM", f"{_FULL}, 60 s to 21 min, 3 seeds", "recording", ".785"),
    Published("NeuralBench v1", "REVE", f"{_FULL}, 60 s to 21 min, 3 seeds", "recording", ".780"),
    Published("NeuralBench v1", "BIOT", f"{_FULL}, 60 s to 21 min, 3 seeds", "recording", ".766"),
    Published("NeuralBench v1", "hand-made features", "3 seeds", "recording", ".723"),
    Published("EEG-Bench (ETH), Abnormal", "LaBraM, blocks frozen", "the whole recording", "recording", ".838 ± .011"),
    Published("EEG-Bench (ETH), Abnormal", "support vector machine", "the whole recording", "recording", ".722"),
    Published("EEG-Bench (ETH), Abnormal", "BENDR", "the whole recording", "recording", ".717"),
    Published("EEG-Bench (ETH), Abnormal", "Neuro-GPT", "the whole recording", "recording", ".696"),
    Published("EEG-Bench (ETH), Abnormal", "linear discriminant", "the whole recording", "recording", ".677"),
    Published("CBraMod paper", "CBraMod", f"{_FULL}; users' reruns .776, .806, .804 (AUROC .861, .877, .875)", "window", ".8289"),  # noqa: E501
    Published("brain-go-brrr", "EEGPT, frozen", "linear probing, 4 s, own split; by its documents, which contradict each other", "window", "", "about .85"),  # noqa: E501
)  # fmt: skip


def table() -> tuple[list[str], list[list[str]]]:
    """(header, rows)."""
    header = ["source", "model", "protocol", "scored", "balanced accuracy", "AUROC"]
    return header, [[p.source, p.model, p.protocol, p.level, p.balanced_accuracy, p.auroc] for p in TUAB]
