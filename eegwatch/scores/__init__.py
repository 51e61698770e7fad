"""Scores of a classifier from its predictions: figures of windows and of recordings, and how exact they are.

numpy alone; `figures` asks scikit-learn, where that is installed. docs/evaluation.md defines every figure.
"""

from __future__ import annotations
