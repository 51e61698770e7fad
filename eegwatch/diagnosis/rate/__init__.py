"""Proofs about learning rates: is each rate where its declared schedule says, and if not, why."""
