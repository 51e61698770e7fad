"""The networks: the frozen EEGPT encoder and the probe that is trained on its features."""
