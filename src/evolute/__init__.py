"""Populations of reinforcement-learning agents whose members use different optimizers."""

from evolute.config import Run as Run
from evolute.engine import train as train
from evolute.errors import UserError as UserError
from evolute.policy import Policy as Policy
from evolute.state import Progress as Progress
from evolute.state import Result as Result

__version__ = "0.1.0"
