"""eegwatch: a terminal monitor for EEG training runs that knows what the learning rate should be."""

__version__ = "0.1.0"
