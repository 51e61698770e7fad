"""EEG as files and arrays: corpora in TUAB layout, EDF recordings, shards, frozen features, corpora to try."""
