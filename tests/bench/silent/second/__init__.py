"""The second half: errors and healthy trainings that the rules never saw before they were frozen."""
