"""Records + declared schedule -> findings: what is wrong, since when, why, what it costs and what to do."""
