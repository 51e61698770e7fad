"""The LR-fault corpus: faults of public projects on real torch schedulers, with a label and a reference each."""
