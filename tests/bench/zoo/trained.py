"""Small models, trained for real."""
