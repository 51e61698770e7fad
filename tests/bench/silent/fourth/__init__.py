"""The fourth set: from a fixed list of searches, whatever mechanisms other sets have; by another hand than the rules."""
