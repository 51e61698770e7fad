"""What is computed about a run from its cached features: the optimum of its loss, baselines, and its twin."""
