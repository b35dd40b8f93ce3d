"""What a run says of itself, as plain rows: metrics, events, leaderboard, summary."""

from typing import Any

import numpy as np

from evolute import kinds
from evolute.evolution.base import Exploit, ranked
from evolute.runs import cautions, columns
from evolute.runs.columns import Ended
from evolute.state import Best, Profile, State
from evolute.training.evaluate import Evaluation
from evolute.training.health import MOSTLY
from evolute.training.worker import Outcome

# Gradients are products of two numbers of an environment's size, and optimizers square gradients.
LARGEST_SCALE = float(np.finfo(np.float32).max) ** 0.25


def interval_rows(
    state: State, ended: list[tuple[Profile, Outcome]], exploits: list[Exploit]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of metrics and the events of the interval that just ended, given who ended it."""
    events = trouble_rows(state, state.interval) + dead_rows(state, ended)
    events += [event_row(state, exploit) for exploit in exploits]
    before = {exploit.child.slot: exploit.child.hyperparameters for exploit in exploits}
    rows = [
        columns.row(Ended(state, member, before.get(member.slot, member.hyperparameters), outcome)) for member, outcome in ended
    ]
    return rows, events + cautions.event_rows(state)


def event_row(state: State, exploit: Exploit) -> dict[str, Any]:
    """Return one exploit as an event."""
    child, parent = exploit.child, exploit.parent
    if child.slot == parent.slot:
        return schedule_row(state, exploit)
    return {
        "event": "exploit",
        "interval": state.interval,
        "steps": state.steps_done,
        "member": child.slot,
        "parent": parent.slot,
        "member_kind": child.kind,
        "parent_kind": parent.kind,
        "member_fitness": child.fitness,
        "parent_fitness": parent.fitness,
        # Where algorithms differ: what is alike in both is copied, the rest is new.
        **({"networks": "alike"} if kinds.of(child.kind).algorithm != kinds.of(parent.kind).algorithm else {}),
        "optimizer_state": "copied" if exploit.same_kind and state.run.copy_optimizer_state else "new",
        "old_hyperparameters": child.hyperparameters._asdict(),
        "new_hyperparameters": exploit.hyperparameters._asdict(),
    }


def schedule_row(state: State, exploit: Exploit) -> dict[str, Any]:
    """Return what a schedule made of the one member as an event."""
    new, old = exploit.child, exploit.parent
    return {
        "event": "schedule",
        "interval": state.interval,
        "steps": state.steps_done,
        "member": new.slot,
        "member_kind": new.kind,
        "old_kind": old.kind,
        **({"networks": "alike"} if kinds.of(new.kind).algorithm != kinds.of(old.kind).algorithm else {}),
        "optimizer_state": "copied" if exploit.same_kind and state.run.copy_optimizer_state else "new",
        "old_hyperparameters": old.hyperparameters._asdict(),
        "new_hyperparameters": exploit.hyperparameters._asdict(),
    }


def trouble_rows(state: State, interval: int) -> list[dict[str, Any]]:
    """Return an interval's failures of environments, its quarantines and who missed it as events; `interval` counts from 1."""
    rows = []
    for member in state.members:
        common = {"interval": interval, "steps": min(interval * state.run.interval, state.run.steps), "member": member.slot}
        rows += [{"event": "environment_fault", **common, **fault._asdict()} for fault in member.faults]
        if member.absent:
            rows.append({"event": "absent", **common, "member_kind": member.kind})
        if member.quarantined is not None:
            kind = state.kind_in(member, interval - 1)
            rows.append({"event": "quarantine", **common, "member_kind": kind, "reason": member.quarantined})
    return rows


def dead_rows(state: State, ended: list[tuple[Profile, Outcome]]) -> list[dict[str, Any]]:
    """Return a warning as event for each member of which a network has mostly died."""
    return [
        {
            "event": "dead_units",
            "interval": state.interval,
            "steps": state.steps_done,
            "member": member.slot,
            "member_kind": state.kind_in(member, state.interval - 1),
            "network": network,
            "share": share,
        }
        for member, outcome in ended
        for network, share in (("actor", outcome.health.actor_dead), ("critics", outcome.health.critic_dead))
        if share > MOSTLY
    ]


def out_of_scale(members: list[Profile]) -> str | None:
    """Return what to do about observations or rewards that no learning rate can make up for; None where they are of good size."""
    largest = {"observations": 0.0, "rewards": 0.0}
    for member in members:
        for name, value in zip(largest, member.largest, strict=True):
            largest[name] = max(largest[name], value)
    said = [f"{name} up to {value:.1g}" for name, value in largest.items() if value > LARGEST_SCALE]
    if not said:
        return None
    return (
        f"the environment has {' and '.join(said)}, whose products overflow in single precision: scale them to the order of 1, "
        "such as with gymnasium.wrappers.TransformObservation and TransformReward"
    )


def nobody_left_row(state: State, interval: int, settings: str) -> dict[str, Any]:
    """Return the end of a run whose members are all in quarantine as an event.

    Args:
        state: of the run.
        interval: counts from 1.
        settings: what tells the run's settings from others.
    """
    # An environment that failed may be another one by the time that the run is resumed.
    repeats = not any(len(member.faults) > state.run.max_faults for member in state.members)
    return {"event": "nobody_left", "interval": interval, "repeats": repeats, "settings": settings}


def nobody_left(state: State, where: str = "") -> str:
    """Return why a run stops whose members are all in quarantine, and what to do; `where` says where settings are changed."""
    reasons: dict[str, list[int]] = {}
    for member in state.members:
        reasons.setdefault(str(member.quarantined), []).append(member.slot)
    numbered = {why: f"member{'s' if len(slots) > 1 else ''} {', '.join(map(str, slots))}" for why, slots in reasons.items()}
    said = "; ".join(f"{who}: {why}" for why, who in numbered.items())
    failing = sum(len(member.faults) > state.run.max_faults for member in state.members)
    cures = []
    if failing < len(state.members):
        cures.append(out_of_scale(state.members) or f"lower the learning rates or raise the dampings{where}")
    if failing:
        cures.append(f"fix the environment or raise max_faults{where}")
    return f"every member is in quarantine, so nobody is left to copy ({said}); {', and '.join(cures)}."


def describe(best: Best) -> dict[str, Any]:
    """Return where the best policy came from."""
    return {
        "fitness": best.fitness,
        "member": best.slot,
        "kind": best.kind,
        "environment_steps": best.environment_steps,
    }


def leaderboard(members: list[Profile]) -> list[dict[str, Any]]:
    """Return the members, best first."""
    order = ranked([member.standing for member in members])
    return [
        {
            "rank": rank,
            "member": standing.slot,
            "kind": standing.kind,
            "fitness": standing.fitness,
            "parent": members[standing.slot].parent,
            "environment_steps": members[standing.slot].environment_steps,
            "gradient_steps": members[standing.slot].gradient_steps,
            "hyperparameters": standing.hyperparameters._asdict(),
        }
        for rank, standing in enumerate(order, start=1)
    ]


def summary(
    state: State, best: Best, evaluation: Evaluation, board: list[dict[str, Any]], exploits: int, wall_seconds: float
) -> dict[str, Any]:
    """Return what result.json holds."""
    return {
        "env": state.run.env,
        "mix": state.run.mix,
        "seed": state.run.seed,
        "best": {
            **describe(best),
            "return_mean": evaluation.mean,
            "return_std": evaluation.std,
            "episodes": len(evaluation.returns),
            "returns": evaluation.returns,
        },
        "leaderboard": board,
        "steps_per_member": state.run.steps,
        "population_environment_steps": sum(m.environment_steps for m in state.members),
        "population_gradient_steps": sum(m.gradient_steps for m in state.members),
        "exploits": exploits,
        "quarantines": state.quarantines,
        "wall_seconds": wall_seconds,
    }
