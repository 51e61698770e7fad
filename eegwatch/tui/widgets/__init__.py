"""The regions of the screen, one file each."""
