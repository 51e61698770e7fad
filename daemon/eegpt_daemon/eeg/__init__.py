"""EEG as files and arrays: corpora in TUAB layout, EDF recordings, frozen features, a synthetic corpus."""
