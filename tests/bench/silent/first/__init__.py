"""The first half: errors and healthy trainings, written beside the rules and without sight of them."""
