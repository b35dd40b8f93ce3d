"""Populations of reinforcement-learning agents whose members use different optimizers."""

from evolute.config import Run as Run
from evolute.engine import Progress as Progress
from evolute.engine import Result as Result
from evolute.engine import train as train
from evolute.errors import UserError as UserError
from evolute.policy import Policy as Policy

__version__ = "0.1.0"
