"""A member's replay as a Minari data set."""

# Of an extra.
# pyright: reportMissingImports=false

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Space
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from evolute.environments.spaces import Facts
from evolute.errors import UserError
from evolute.policy import in_units_of
from evolute.runs.episodes import Episode

# Minari's names of data sets.
NAME = re.compile(r"[-\w]+-v[0-9]+", re.ASCII)


def check_name(out: Path) -> None:
    """Raise UserError where a folder's name is no name of a data set."""
    if not NAME.fullmatch(out.name):
        raise UserError(
            f"--out is {str(out)!r}; a data set's name has letters, digits, _ and -, and ends with a version, such as replay-v0."
        )


def write(
    folder: Path, episodes: Iterable[Episode], facts: Facts, spaces: tuple[Space, Space], spec: EnvSpec | None, kind: str
) -> tuple[int, int]:
    """Write a data set, and return how many episodes and transitions it has.

    Args:
        folder: to be made; its name is the data set's.
        episodes: what the data set is to hold.
        facts: of the environment.
        spaces: of its observations, flat, and its actions.
        spec: how Gymnasium makes the environment, if it is known.
        kind: of the member.
    """
    folder.mkdir()
    # Minari joins a relative path with itself.
    storage = MinariStorage.new(folder.absolute() / "data", *spaces, env_spec=spec)
    storage.update_metadata(
        {
            "dataset_id": folder.name,
            "algorithm_name": kind,
            "description": "Replay of a member of a population: what it did while it learnt, and what it copied from others.",
            "minari_version": minari.__version__,
        }
    )
    storage.update_episodes(_buffers(episodes, facts, spaces[0].dtype))
    return int(storage.total_episodes), int(storage.total_steps)


def _buffers(episodes: Iterable[Episode], facts: Facts, dtype: np.dtype | None) -> Iterator[EpisodeBuffer]:
    for episode in episodes:
        steps = len(episode.rewards)
        last = np.arange(steps) == steps - 1
        # What the environment was given.
        actions = in_units_of(facts.low, facts.high, episode.actions).reshape(steps, *facts.action_shape)
        yield EpisodeBuffer(
            observations=episode.observations.astype(dtype),  # type: ignore[arg-type]
            actions=actions,  # type: ignore[arg-type]
            rewards=episode.rewards.astype(np.float64),  # type: ignore[arg-type]
            terminations=last & episode.terminated,  # type: ignore[arg-type]
            truncations=last & (not episode.terminated),  # type: ignore[arg-type]
            infos={},
        )
