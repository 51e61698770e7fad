"""How optimizers make their updates: the formulas, with bounds of their rounding, that steps are held against."""
