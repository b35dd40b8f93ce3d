"""What somebody should know of a run although nothing is refused: one sentence each, with the value, the rule and the fix."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import gymnasium

from evolute import optimizers
from evolute.config import Run
from evolute.environments.gym import UNREPEATABLE, versions
from evolute.environments.spaces import Facts
from evolute.options import shown
from evolute.presets import ALGORITHMS, PRESETS
from evolute.state import State
from evolute.training.evaluate import LONGEST_EPISODE
from evolute.training.host import carries

# The first version of MuJoCo that keeps something else for warm starts (decision 0001).
OTHER_PHYSICS = (3, 3, 6)
# Settings that a strategy does not use, and that one member alone does not.
UNUSED = {"mfpbt": ("truncation",), "replay": ("truncation", "factors", "frequencies", "perturb", "bounds")}
UNUSED["none"] = (*UNUSED["replay"], "copy_optimizer_state")
UNUSED_ALONE = ("strategy", *UNUSED["none"])


def at_start(run: Run, facts: Facts) -> list[str]:
    """Return what an environment and the settings of a run say before it is trained."""
    about = [*flattened(run.env, facts), *too_short(run, facts), *any_length(run, facts), *newer_engine(run.env, versions())]
    return [*about, *unevolved(run), *idle(run)]


def flattened(env: str, facts: Facts) -> list[str]:
    """Return what is to be known of observations that are no flat arrays."""
    if not facts.flattened:
        return []
    return [
        f"observations of {env!r} are flattened to {facts.shape.observations} numbers, in the order of "
        f"gymnasium.spaces.flatten, from {facts.flattened}; give a policy the same."
    ]


def newer_engine(env: str, installed: Mapping[str, str]) -> list[str]:
    """Return what is to be known where a v4 task runs on an engine of other physics than published results come from."""
    task = env.rpartition(":")[2]
    made = gymnasium.registry[task].entry_point if task in gymnasium.registry else None
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", installed["mujoco"])
    if not (task.endswith("-v4") and isinstance(made, str) and made.startswith("gymnasium.envs.mujoco")) or numbers is None:
        return []
    if tuple(map(int, numbers.groups())) < OTHER_PHYSICS:
        return []
    first, version = ".".join(map(str, OTHER_PHYSICS)), installed["mujoco"]
    return [
        f"MuJoCo {version} is installed, and from {first} on it computes other physics for {env!r} than the versions that "
        f"published returns come from: they are not comparable; install 'mujoco<{first}' where that matters."
    ]


def too_short(run: Run, facts: Facts) -> list[str]:
    """Return what is to be known where an episode does not fit into an interval."""
    longest = facts.longest_episode
    if longest is None or (carries(run, facts) and longest <= run.steps):
        return []
    if longest <= min(run.shortest_interval, run.steps):
        return []
    if longest > run.steps:
        return [
            f"an episode of {run.env!r} has up to {longest:,} steps, and the run has {run.steps:,}: nobody trains on an end "
            f"that comes later; raise --steps to at least {longest}."
        ]
    return [
        f"an episode of {run.env!r} has up to {longest:,} steps, and an interval has {run.shortest_interval:,}, after which the "
        "environment is made anew, because carry_episodes is 'never': nobody trains on the end of an episode that is longer; "
        f"set it to 'auto', or raise the interval to at least {longest}."
    ]


def any_length(run: Run, facts: Facts) -> list[str]:
    """Return what is to be known where evaluation may cut an episode."""
    longest = facts.longest_episode
    if longest is not None and longest <= LONGEST_EPISODE:
        return []
    has = "no known longest episode" if longest is None else f"episodes of up to {longest:,} steps"
    return [
        f"the environment {run.env!r} has {has}, and an evaluation cuts one that does not end after {LONGEST_EPISODE:,} steps: "
        f"it costs up to {run.episodes * LONGEST_EPISODE:,} steps for each member and interval; "
        f"register the environment with max_episode_steps, or wrap it with gymnasium.wrappers.TimeLimit, of at most "
        f"{LONGEST_EPISODE} steps."
    ]


def unevolved(run: Run) -> list[str]:
    """Return what is to be known where a population never evolves: nobody does before all have learnt, nor at a run's end."""
    if run.strategy in ("none", "replay") or len(run.kinds) == 1:
        return []
    earliest = run.interval * (run.learning_starts // run.shortest_interval + 1)
    if earliest < run.steps:
        return []
    return [
        f"nobody evolves in this run: members evolve between two intervals, once all have learnt, which with interval "
        f"{run.interval:,} and learning_starts {run.learning_starts:,} is after {earliest:,} steps at the earliest, and the run "
        f"has {run.steps:,}; raise --steps above {earliest}, or lower --interval."
    ]


def idle(run: Run) -> list[str]:
    """Return which settings were given and have no effect in this run."""
    alone = len(run.kinds) == 1 and not run.schedule
    names = UNUSED_ALONE if alone else UNUSED.get(run.strategy, ("frequencies",))
    whose = "one member alone" if alone else f"the strategy {run.strategy!r}"
    given = given_of_evolution(run)
    unused = [(f"{name} is {shown(given[name])}, which {whose} does not use", "leave it out") for name in names if name in given]
    for setting in ("perturb", "bounds") if "perturb" not in names else ():
        for name in given.get(setting, ()):
            if name not in run.perturb:
                unused.append((f"{setting} names {name}, which is not perturbed", "leave it out, or name it in perturb, too"))
            elif not any(name in run.perturbed(kind) for kind in run.mix):
                unused.append(
                    (f"{setting} names {name}, and no kind of the mix has it", "leave it out, or add one, such as kfac=1")
                )
    if run.shrink == "gradient" and not run.schedule and all(n == run.interval for n in run.steps_per_interval.values()):
        said = "shrink is 'gradient', and no kind has fewer steps per interval"
        unused.append((said, "leave it out, or set steps_per_interval, such as kfac=3000"))
    used = {name for kind in run.mix for name, _ in run.optimizers_of(kind).values()}
    unused += [
        (f"optimizers.{name} is given, and no kind of the mix has it", f"leave it out, or add a kind, such as {name}=1")
        for name, table in run.optimizers.items()
        if name not in used and table not in usual_options(run, name)
    ]
    return [f"{said}: it has no effect; {fix}." for said, fix in unused]


def given_of_evolution(run: Run) -> dict[str, Any]:
    """Return the settings of how a population evolves that are not their defaults, by name."""
    own = {field.name: getattr(run, field.name) for field in dataclasses.fields(Run) if field.name in UNUSED_ALONE}
    # A run sets the bound of a batch itself where the buffer is small.
    own["bounds"] = {name: pair for name, pair in run.bounds.items() if (name, pair[1]) != ("batch_size", run.buffer_size)}
    defaults = {field.name: field.default for field in dataclasses.fields(Run)} | {"bounds": {}}
    return {name: value for name, value in own.items() if value != defaults[name]}


def usual_options(run: Run, name: str) -> list[dict[str, Any]]:
    """Return the options that an optimizer has where nobody gives any: a run that was made of another one has them in full."""
    rates = [PRESETS[run.preset](run.env, algorithm)["learning_rate"] for algorithm in ALGORITHMS]
    return [optimizers.resolve([], {name: {}}, rate)[name] for rate in rates]


def repetition(env: str, circumstances: dict[str, Any]) -> list[str]:
    """Return what is to be known of an environment that does not repeat itself."""
    if circumstances.get("physics_fingerprint") != UNREPEATABLE:
        return []
    return [
        f"the environment {env!r} does not repeat itself: two rollouts with the same seeds and actions differ, so it draws from "
        "a generator that reset(seed=...) does not seed; the run can be resumed, but it does not repeat bit by bit; "
        "draw from self.np_random instead."
    ]


def cores(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what is to be known where a run goes on with another number of cores, given both circumstances."""
    old, new = before.get("cores"), now["cores"]
    if old in (None, new) or not now["devices"][0].startswith("cpu"):
        return []
    return [
        f"the run had {old} cores and has {new} now: large matrix products are divided by their number, so what follows may be "
        "rounded otherwise than without the interruption; give it as many as before (taskset) where every bit counts."
    ]


def event_rows(state: State) -> list[dict[str, Any]]:
    """Return what the interval that just ended shows, as events."""
    said = [*endless(state), *unrepeated(state)]
    return [{"event": "caution", "interval": state.interval, "steps": state.steps_done, "message": message} for message in said]


def endless(state: State) -> list[str]:
    """Return what is to be known where no episode ended in the first interval, which cuts it."""
    known = state.facts.longest_episode is not None or carries(state.run, state.facts)
    if state.interval > 1 or known or any(member.finished_returns or member.quarantined for member in state.members):
        return []
    return [
        f"no episode of {state.run.env!r} ended within the first interval, of {state.steps_done:,} steps, after which the "
        "environment is made anew, because carry_episodes is 'never': nobody trains on the end of an episode that is longer; "
        "set it to 'auto', or raise the interval above the length of an episode."
    ]


def unrepeated(state: State) -> list[str]:
    """Return what is to be known where an environment did not repeat the episodes that were to go on."""
    slots = [str(member.slot) for member in state.members if member.unrepeated]
    if not slots:
        return []
    return [
        f"the environment {state.run.env!r} did not repeat the open episode of member{'s' if len(slots) > 1 else ''} "
        f"{', '.join(slots)} from its seed and its actions, so a new one was begun: what follows is not what the run would have "
        "been without the interruption; draw all randomness from self.np_random, and keep no state over episodes."
    ]


def messages(events: list[dict[str, Any]]) -> list[str]:
    """Return the sentences of those events that are cautions."""
    return [event["message"] for event in events if event["event"] == "caution"]
