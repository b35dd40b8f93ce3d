"""The metrics of a run: each is declared once, with name, unit, meaning, value, rule and heading. Imports no JAX."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evolute.runs import forms
from evolute.runs.forms import NAME, NUMBER_OR_NULL, NUMBERS, SLOT, WHOLE

if TYPE_CHECKING:
    from evolute.hyperparameters import Hyperparameters
    from evolute.state import Profile, State
    from evolute.training.worker import Outcome


class Ended(NamedTuple):
    """One member's interval that has just ended."""

    state: "State"
    member: "Profile"
    hyperparameters: "Hyperparameters"  # that it trained with
    outcome: "Outcome"

    @property
    def kind(self) -> str:
        """By which it learnt; since the interval's end it may be of another."""
        return self.state.kind_in(self.member, self.state.interval - 1)

    @property
    def updates(self) -> float:
        """Updates of each critic, at least 1 to divide by."""
        return max(float(self.outcome.sums.updates), 1.0)

    @property
    def critic_updates(self) -> float:
        """Updates of all critics, at least 1 to divide by."""
        return max(float(self.outcome.sums.critic_updates), 1.0)

    @property
    def actor_updates(self) -> float:
        """Updates of the actor, at least 1 to divide by."""
        return max(float(self.outcome.sums.actor_updates), 1.0)


class Column(NamedTuple):
    """One metric, a field of every row of metrics.jsonl."""

    name: str
    unit: str
    help: str
    value: Callable[[Ended], Any]
    # What a row that is read must hold; None where nobody reads it.
    rule: Any = None
    # Whether older versions did not record it.
    recent: bool = False
    # In the table of networks; the actor's and the critics' columns share it.
    heading: str = ""


def percent(share: float | None) -> str:
    """Return a share for people; a dash where there is none."""
    return "-" if share is None else f"{share:.0%}"


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else math.nan


def _network(role: str, name: str, help: str, value: Callable[[Ended], Any], rule: Any, heading: str, unit: str) -> Column:
    whose = "the actor's" if role == "actor" else "the critics'"
    return Column(f"{role}_{name}", unit, help.format(whose), value, rule, recent=True, heading=heading)


COLUMNS = (
    Column("interval", "", "Number of the interval, from 1.", lambda e: e.state.interval, WHOLE),
    Column("steps", "environment steps", "The run's clock.", lambda e: e.state.steps_done, WHOLE),
    Column("member", "", "Slot of the member.", lambda e: e.member.slot, SLOT),
    Column("kind", "", "Its algorithm, where that is not TD3, and its optimizers.", lambda e: e.kind, NAME),
    Column("fitness", "return", "Mean of the evaluation's episodes.", lambda e: e.outcome.evaluation.mean, NUMBER_OR_NULL),
    Column("fitness_std", "return", "Their standard deviation.", lambda e: e.outcome.evaluation.std),
    Column("episode_length", "steps", "Mean length of these episodes.", lambda e: _mean(e.outcome.evaluation.lengths)),
    Column("training_return", "return", "Mean of training episodes that ended.", lambda e: _mean(e.member.finished_returns)),
    Column("training_episodes", "episodes", "How many of them ended.", lambda e: len(e.member.finished_returns)),
    Column("environment_steps", "steps", "Of the member, so far.", lambda e: e.member.environment_steps, WHOLE),
    Column("gradient_steps", "updates", "Of the member, so far.", lambda e: e.member.gradient_steps),
    Column(
        "population_environment_steps",
        "steps",
        "Of all members, so far.",
        lambda e: sum(member.environment_steps for member in e.state.members),
    ),
    Column("critic_loss", "return²", "Mean of the critics' losses, added.", lambda e: e.outcome.sums.critic_loss / e.updates),
    Column("actor_loss", "return", "Mean of the actor's loss.", lambda e: e.outcome.sums.actor_loss / e.actor_updates),
    Column("q_value", "return", "Mean of what the critics say.", lambda e: e.outcome.sums.q_value / e.updates),
    Column("contained_statistics", "", "Batches left out of an average.", lambda e: e.outcome.sums.contained.statistics),
    Column("contained_inverses", "", "Layers that kept their inverses.", lambda e: e.outcome.sums.contained.inverses),
    Column("contained_steps", "updates", "Updates left out as not finite.", lambda e: e.outcome.sums.contained.steps),
    _network(
        "critic",
        "shortened",
        "Share of {} steps that the norm constraint shortened (E14).",
        lambda e: e.outcome.sums.critic_contained.shortened / e.critic_updates,
        NUMBER_OR_NULL,
        "shortened",
        "fraction",
    ),
    _network(
        "critic",
        "shortening",
        "Mean part of {} steps that it took away.",
        lambda e: e.outcome.sums.critic_contained.shortening / e.critic_updates,
        NUMBER_OR_NULL,
        "by",
        "fraction",
    ),
    _network(
        "actor",
        "shortened",
        "Share of {} steps that the norm constraint shortened (E14).",
        lambda e: e.outcome.sums.actor_contained.shortened / e.actor_updates,
        NUMBER_OR_NULL,
        "shortened",
        "fraction",
    ),
    _network(
        "actor",
        "shortening",
        "Mean part of {} steps that it took away.",
        lambda e: e.outcome.sums.actor_contained.shortening / e.actor_updates,
        NUMBER_OR_NULL,
        "by",
        "fraction",
    ),
    _network("actor", "norms", "Norms of {} layers.", lambda e: e.outcome.health.actor_norms, NUMBERS, "norms", ""),
    _network("critic", "norms", "Norms of {} layers, the larger.", lambda e: e.outcome.health.critic_norms, NUMBERS, "norms", ""),
    _network(
        "actor",
        "dead",
        "Share of dead units, whose activation is flat for all transitions looked at, in {} worst hidden layer.",
        lambda e: e.outcome.health.actor_dead,
        NUMBER_OR_NULL,
        "dead",
        "fraction",
    ),
    _network(
        "critic",
        "dead",
        "Share of dead units, whose activation is flat for all transitions looked at, in {} worst hidden layer.",
        lambda e: e.outcome.health.critic_dead,
        NUMBER_OR_NULL,
        "dead",
        "fraction",
    ),
    Column("contained_losses", "", "Losses that were not finite.", lambda e: e.outcome.sums.contained.losses),
    Column("environment_faults", "", "Failures of its environment in the interval.", lambda e: len(e.member.faults)),
    Column("quarantined", "", "Why it is in quarantine, or null.", lambda e: e.member.quarantined),
    Column(
        "hyperparameters",
        "",
        "What it trained with, by name.",
        lambda e: e.hyperparameters._asdict(),
        forms.HYPERPARAMETERS,
    ),
)


# In the order of `evolute show`.
NETWORK_HEADINGS = ("shortened", "by", "dead", "norms")


def row(ended: Ended) -> dict[str, Any]:
    """Return a member's metrics of an interval."""
    return {column.name: column.value(ended) for column in COLUMNS}


OLD = {column.name: column.rule for column in COLUMNS if column.rule and not column.recent}
RECENT = {column.name: column.rule for column in COLUMNS if column.rule and column.recent}


def fault(value: Any) -> str | None:
    """Return what is wrong with a row of metrics, None where it is sound."""
    return forms.fault(value, OLD) or (forms.fault(value, RECENT) if not value.keys().isdisjoint(RECENT) else None)


def network_cells(metrics: dict[str, Any], role: str) -> list[str]:
    """Return what that table shows of an actor or of the critics, by heading."""
    names = {column.heading: column.name for column in COLUMNS if column.heading and column.name.startswith(role)}
    values = [metrics[names[heading]] for heading in NETWORK_HEADINGS]
    return [
        " ".join("-" if norm is None else f"{norm:.3g}" for norm in value) if isinstance(value, list) else percent(value)
        for value in values
    ]
