"""The fifth set: from a fixed list of searches, by another hand than the rules, which saw it when it was finished."""
