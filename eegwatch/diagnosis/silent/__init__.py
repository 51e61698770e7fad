"""Silent errors of a training loop: equalities that must hold, judged from the records of the watcher."""
