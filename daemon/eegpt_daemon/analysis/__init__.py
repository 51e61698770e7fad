"""Computations about a finished run from its cached features: optimum of the loss, baselines, cost of a fault."""
