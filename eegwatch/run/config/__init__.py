"""The configuration of a run: the users' YAML keys, checked, with every default in one place.

Shared by both programs: the daemon runs it, the monitor reads the declared schedule and `expected:` from it.
An unknown key is an error; the message suggests the nearest known name.
"""

from __future__ import annotations

from eegwatch.run.config.loading import dump as dump
from eegwatch.run.config.loading import expanded_notify as expanded_notify
from eegwatch.run.config.loading import load as load
from eegwatch.run.config.loading import parse_text as parse_text
from eegwatch.run.config.loading import public as public
from eegwatch.run.config.loading import training_hash as training_hash
from eegwatch.run.config.schedule import SCHEDULE_NAMES as SCHEDULE_NAMES
from eegwatch.run.config.schedule import TORCH_NAMES as TORCH_NAMES
from eegwatch.run.config.schedule import expected_rates as expected_rates
from eegwatch.run.config.schedule import schedule_name as schedule_name
from eegwatch.run.config.schedule import schedule_of as schedule_of
from eegwatch.run.config.schema import Backbone as Backbone
from eegwatch.run.config.schema import Config as Config
from eegwatch.run.config.schema import Data as Data
from eegwatch.run.config.schema import Distributed as Distributed
from eegwatch.run.config.schema import EarlyStopping as EarlyStopping
from eegwatch.run.config.schema import Expected as Expected
from eegwatch.run.config.schema import Experiment as Experiment
from eegwatch.run.config.schema import Guard as Guard
from eegwatch.run.config.schema import Hung as Hung
from eegwatch.run.config.schema import Logging as Logging
from eegwatch.run.config.schema import Model as Model
from eegwatch.run.config.schema import Notify as Notify
from eegwatch.run.config.schema import Optimizer as Optimizer
from eegwatch.run.config.schema import Part as Part
from eegwatch.run.config.schema import Probe as Probe
from eegwatch.run.config.schema import Restarts as Restarts
from eegwatch.run.config.schema import Scheduler as Scheduler
from eegwatch.run.config.schema import Script as Script
from eegwatch.run.config.schema import Supervision as Supervision
from eegwatch.run.config.schema import Synthetic as Synthetic
from eegwatch.run.config.schema import TargetMetrics as TargetMetrics
from eegwatch.run.config.schema import Training as Training
from eegwatch.run.config.validation import TUNABLE as TUNABLE
from eegwatch.run.yaml_file import ConfigError as ConfigError
