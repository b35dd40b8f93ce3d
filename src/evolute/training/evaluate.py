"""Deterministic returns: a policy without exploration noise, completed episodes only."""

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from evolute.environments.gym import Environment
from evolute.errors import EnvironmentFault, RunStopped

LOG = logging.getLogger("evolute")

# Where an environment has no time limit of its own, an episode of evaluation is cut here and counted as it stands.
LONGEST_EPISODE = 10_000
# Faults of an environment that an evaluation outside of training tolerates.
MAX_FAULTS = 10


class Evaluation(NamedTuple):
    """Returns and lengths of episodes that were played to their end, or cut."""

    returns: list[float]
    lengths: list[int]
    # Episodes that were dropped because the environment failed.
    faults: int = 0
    # Episodes among them that were cut after LONGEST_EPISODE steps.
    cut: int = 0

    @property
    def mean(self) -> float:
        """The mean return; NaN without a completed episode."""
        return float(np.mean(self.returns)) if self.returns else math.nan

    @property
    def std(self) -> float:
        """The returns' standard deviation; NaN without a completed episode."""
        return float(np.std(self.returns)) if self.returns else math.nan


def play(
    environment: Environment, act: Callable[[np.ndarray], np.ndarray], seed: int | None, limit: int
) -> tuple[float, int, bool]:
    """Play one episode.

    Args:
        environment: is reset with `seed` first.
        act: observation [O] to action [A] in [-1, 1].
        seed: of the episode; None to go on with the environment's own randomness.
        limit: the most steps to take.

    Returns:
        The return, the length, and whether the episode ended by itself.
    """
    obs = environment.reset(seed)
    total, length = 0.0, 0
    while length < limit:
        step = environment.step(act(obs))
        obs, total, length = step.obs, total + step.reward, length + 1
        if step.terminated or step.truncated:
            return total, length, True
    return total, length, False


def by_episodes(
    environment: Environment,
    act: Callable[[np.ndarray], np.ndarray],
    seeds: list[int],
    faulted: Callable[[EnvironmentFault], None] | None = None,
) -> Evaluation:
    """Play one episode per seed; the same seeds for all members make their fitness comparable.

    Args:
        environment: where the episodes are played.
        act: observation [O] to action [A] in [-1, 1].
        seeds: of the episodes. One in which the environment fails is played again from its start, in the environment made anew.
        faulted: is told of every fault, and raises to give up; without it, RunStopped is raised after MAX_FAULTS.
    """
    faulted = faulted or tolerate(MAX_FAULTS)
    returns, lengths, faults, cut = [], [], 0, 0
    LOG.info("playing %d episodes", len(seeds))
    for seed in seeds:
        while (played := _attempt(environment, act, seed, LONGEST_EPISODE, faulted)) is None:
            faults += 1
        returns.append(played[0])
        lengths.append(played[1])
        cut += not played[2]
    return Evaluation(returns, lengths, faults, cut)


def by_steps(environment: Environment, act: Callable[[np.ndarray], np.ndarray], steps: int, seed: int) -> Evaluation:
    """Play `steps` environment steps and count completed episodes only: RL Baselines3 Zoo's protocol.

    An episode in which the environment fails is dropped with its steps. Raises RunStopped after MAX_FAULTS of them.
    """
    faulted, returns, lengths, left, faults = tolerate(MAX_FAULTS), [], [], steps, 0
    LOG.info("playing %d steps", steps)
    episode_seed: int | None = seed
    while left > 0:
        played = _attempt(environment, act, episode_seed, left, faulted)
        if played is None:
            faults += 1
            # A new environment has no randomness of its own to go on with that a second evaluation would see again.
            episode_seed = seed + faults
            continue
        total, length, completed = played
        left, episode_seed = left - length, None
        if completed:
            returns.append(total)
            lengths.append(length)
    return Evaluation(returns, lengths, faults)


def no_episode(environment: Environment, steps: int, faults: int) -> str:
    """Return why `by_steps` completed no episode, and what helps."""
    longest = environment.facts.longest_episode
    episodes = f"give --episodes, which counts an episode as it stands after {LONGEST_EPISODE:,} steps"
    if faults:
        return f"no episode was completed within them, because the environment failed {faults} times; fix it or raise --steps"
    if longest is None:
        return f"no episode ended within them, nor need one ever: the environment has no max_episode_steps; {episodes}"
    return f"no episode ended within them; raise it to at least {longest}, the longest episode, or {episodes}"


def _attempt(
    environment: Environment,
    act: Callable[[np.ndarray], np.ndarray],
    seed: int | None,
    limit: int,
    faulted: Callable[[EnvironmentFault], None],
) -> tuple[float, int, bool] | None:
    """Play one episode; None where the environment fails, which is then made anew."""
    try:
        return play(environment, act, seed, limit)
    except EnvironmentFault as fault:
        faulted(fault)
    rebuild(environment, faulted)
    return None


def rebuild(environment: Environment, faulted: Callable[[EnvironmentFault], None]) -> None:
    """Make the environment anew, however often that fails; `faulted` raises to give up."""
    while True:
        try:
            environment.rebuild()
            return
        except EnvironmentFault as fault:
            faulted(fault)


def tolerate(most: int) -> Callable[[EnvironmentFault], None]:
    """Return a `faulted` for `by_episodes` that raises RunStopped after `most` faults."""
    faults = 0

    def faulted(fault: EnvironmentFault) -> None:
        nonlocal faults
        faults += 1
        if faults > most:
            times = f"{faults} times" if faults > 1 else "once"
            raise RunStopped(
                f"the evaluation cannot go on: the environment failed {times}, the last time {fault}; fix it."
            ) from fault

    return faulted
