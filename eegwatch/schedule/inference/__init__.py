"""The law of a rate, found from the log alone: a schedule that reproduces every record to its printed digits.

`find` fits every family. What reproduces all records, with at least three more distinct values than it has
parameters, is a law; a rate that only rises, only stands, or moves in a few steps decides none.
"""

from eegwatch.schedule.inference.finder import SLACK, cells, find
from eegwatch.schedule.inference.law import Law
from eegwatch.schedule.inference.phases import Records
from eegwatch.schedule.inference.search import Known

__all__ = ["SLACK", "Known", "Law", "Records", "cells", "find"]
