"""TrainCheck (OSDI '25) and eegwatch on the same cases of the benchmark of silent errors."""
