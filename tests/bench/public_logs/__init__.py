"""Training logs of public repositories: each is opened, and what was read is compared with what a person read in it."""
