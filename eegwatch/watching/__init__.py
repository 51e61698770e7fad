"""The watcher of a training loop: what each optimizer step did, as records; eegwatch.diagnosis.silent judges them."""
