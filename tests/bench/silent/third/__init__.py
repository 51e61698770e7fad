"""The third set: written by another hand than the rules and both halves, from reports that a fixed list of searches gave."""
