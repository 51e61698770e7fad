"""Results computed about a run after its training: one file each in the run's folder, and the text made of them."""
