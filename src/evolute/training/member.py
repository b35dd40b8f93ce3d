"""A member as the process sees it that steps its environment; its networks live in placement's groups."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evolute.environments.gym import Environment, Step
from evolute.environments.normalise import Normaliser
from evolute.errors import EnvironmentFault, RunStopped
from evolute.hyperparameters import Hyperparameters
from evolute.training.randomness import Purpose
from evolute.training.replay import ReplayBuffer, Sample


class Fault(NamedTuple):
    """A failure of a member's environment, or of the evaluation environment while this member played."""

    during: str  # "training" or "evaluation"
    call: str  # "make", "reset" or "step"
    message: str
    # Of the member, when it happened.
    environment_steps: int


class Episode(NamedTuple):
    """What makes an episode again: with the actions, which the replay holds, a deterministic environment repeats it."""

    seed: int  # of the reset that began it
    steps: int  # so far


@dataclass
class Member:
    """One agent: what is not a network. Its slot never changes, its kind by a schedule alone."""

    slot: int
    kind: str
    hyperparameters: Hyperparameters
    environment: Environment
    replay: ReplayBuffer
    # Its place among all members of all populations that train side by side.
    lane: int
    # over the whole run
    environment_steps: int = 0
    gradient_steps: int = 0
    # What it scales observations by before networks see them, and rewards before they are learnt from; replay holds both raw.
    normaliser: Normaliser | None = None
    reward_scale: float = 1.0
    # Environment steps that a learnt transition joins.
    n_step: int = 1
    # Whether an episode goes on over the end of an interval; the episodes since the environment was made, of which the last one
    # is open, because what it keeps over resets may matter; and whether the environment here stands where that one does.
    carries: bool = False
    life: list[Episode] = field(default_factory=list)
    live: bool = False
    # Whether its curvature is to be gathered anew before its next update.
    needs_burn_in: bool = True
    # Faults of its environment in an interval that it tolerates, and whether one more stops the run.
    max_faults: int = 10
    stops_on_faults: bool = False
    # this interval
    faults: list[Fault] = field(default_factory=list)
    # Why it is out until an evolution replaces it or the interval ends; None for a sound one.
    quarantined: str | None = None
    # Whether the environment did not repeat an episode that was to go on.
    unrepeated: bool = False
    # Whether the environment is older than the interval, and is made anew before its next episode.
    stale: bool = False
    rebuild_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    episode_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    observation: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    warm_up_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    replay_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    noise_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    burn_in_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    episode_return: float = 0.0
    finished_returns: list[float] = field(default_factory=list)

    def begin_interval(self, stream: Callable[[Purpose], np.random.Generator]) -> None:
        """Start an interval with random streams of its own.

        The environment is made anew, because a seeded reset need not clear all of its state: milliseconds (7 for HalfCheetah-v4,
        as for Humanoid-v4). And it is reset, so an episode that the last interval's end cut counts as truncated; unless the
        member carries episodes over, and goes on with that one.
        """
        self.faults, self.quarantined, self.unrepeated, self.stale = [], None, False, False
        self.rebuild_rng = stream(Purpose.REBUILD)
        self.episode_rng = stream(Purpose.ENVIRONMENT)
        if not self.go_on():
            self.episode_return = 0.0
            self.rebuild(self.next_seed())
        self.warm_up_rng = stream(Purpose.WARM_UP)
        self.replay_rng = stream(Purpose.REPLAY)
        self.noise_rng = stream(Purpose.NOISE)
        self.burn_in_rng = stream(Purpose.BURN_IN)
        self.finished_returns = []

    def next_seed(self) -> int:
        """Return the seed of another episode of this interval."""
        return int(self.episode_rng.integers(2**31))

    def go_on(self) -> bool:
        """Go on with the open episode; return False where there is none, it cannot be repeated, or is not carried over."""
        # What the replay does not hold another process could not repeat, and it must do as this one does.
        if not self.carries or not self.life or sum(episode.steps for episode in self.life) > len(self.replay):
            return False
        if not self.live:
            self.unrepeated = not self.repeat()
        self.stale = True
        return not self.unrepeated

    def repeat(self) -> bool:
        """Bring a new environment to where the open episode stands; return whether it gave what the replay recorded."""
        obs = self.observation
        rows = iter(self.replay.last(sum(episode.steps for episode in self.life)))
        try:
            self.environment.rebuild()
            for n, episode in enumerate(self.life):
                obs, ended, self.episode_return = self.environment.reset(episode.seed), False, 0.0
                for row in itertools.islice(rows, episode.steps):
                    step = None if ended else self.environment.step(self.action_in(row))
                    if step is None or not self.recorded(row, obs, step):
                        return False
                    obs, ended = step.obs, step.terminated or step.truncated
                    self.episode_return += step.reward
                if ended == (n == len(self.life) - 1):
                    return False
        except EnvironmentFault as fault:
            self.note(fault, "training")
            return False
        # It was seen before.
        self.observation, self.live = obs, True
        return True

    def action_in(self, row: np.ndarray) -> np.ndarray:
        """Return the action [A] of a packed transition [W]."""
        observations = self.environment.shape.observations
        return row[observations : -observations - 2]

    def recorded(self, row: np.ndarray, obs: np.ndarray, step: Step) -> bool:
        """Return whether a packed transition [W] is that from an observation [O] by a step, bit by bit."""
        observations = self.environment.shape.observations
        given = (obs.tobytes(), float(np.float32(step.reward)), float(step.terminated), step.obs.tobytes())
        reward, terminated = (float(x) for x in row[-observations - 2 : -observations])
        return given == (row[:observations].tobytes(), reward, terminated, row[-observations:].tobytes())

    def warm_up_action(self, noise: float) -> np.ndarray:
        """Return a uniformly random action [A]; with Gaussian `noise` on top, clipped, where that is not zero."""
        rng, shape = self.warm_up_rng, self.environment.shape.actions
        action = rng.uniform(-1.0, 1.0, shape)
        if noise:
            action = np.clip(action + noise * rng.standard_normal(shape), -1.0, 1.0)
        return action.astype(np.float32)

    def noise(self) -> np.ndarray:
        """Return standard normal noise [A] for an exploring action."""
        return self.noise_rng.standard_normal(self.environment.shape.actions, np.float32)

    def sample(self, padded: int, noise: int, rng: np.random.Generator | None = None) -> Sample:
        """Draw a batch of this member's size, padded to the compiled one, and `noise` standard normal numbers for each row."""
        rng = rng or self.replay_rng
        size, discount = self.hyperparameters.batch_size, self.hyperparameters.discount
        rows, weights = self.replay.sample(rng, size, padded, self.n_step, discount)
        self.scale(rows[:size])
        return Sample(rows, weights, rng.standard_normal((padded, noise), np.float32))

    def spaced(self, most: int) -> np.ndarray:
        """Return at most that many transitions [N, W], packed, evenly spaced over the replay, as networks see them."""
        rows = self.replay.spaced(most)
        self.scale(rows)
        return rows

    def scale(self, rows: np.ndarray) -> None:
        """Make packed raw transitions [N, W] what networks see, in place."""
        observations = self.environment.shape.observations
        if self.normaliser is not None:
            scaling = self.normaliser.scaling
            for part in (rows[:, :observations], rows[:, -observations:]):
                part[:] = scaling.apply(part)
        if self.reward_scale != 1.0:
            rows[:, -observations - 2] *= np.float32(self.reward_scale)

    @property
    def seen(self) -> np.ndarray:
        """The observation [O] as networks see it."""
        return self.observation if self.normaliser is None else self.normaliser.scaling.apply(self.observation)

    def observe(self, obs: np.ndarray) -> None:
        """Stand at an observation [O] of training."""
        self.observation = obs
        if self.normaliser is not None:
            self.normaliser.see(obs)

    def advance(self, action: np.ndarray) -> None:
        """Take an action [A] in [-1, 1], remember the transition, and start a new episode where this one ended.

        Where the environment fails, the episode is dropped without a transition and a new one begins. For a member in quarantine
        the clock ticks and nothing else happens, because its group shares the clock.
        """
        self.environment_steps += 1
        if self.quarantined is None and not np.isfinite(action).all():
            # Its environment must not be blamed for what it would make of this.
            self.quarantine("its action was not finite")
        if self.quarantined is not None:
            return
        try:
            step = self.environment.step(action)
        except EnvironmentFault as fault:
            self.recover(fault)
            return
        self.replay.insert(self.observation, action, step.reward, step.obs, step.terminated)
        self.observe(step.obs)
        self.episode_return += step.reward
        if self.carries:
            self.life[-1] = Episode(self.life[-1].seed, self.life[-1].steps + 1)
        if step.terminated or step.truncated:
            self.finished_returns.append(self.episode_return)
            self.episode_return = 0.0
            self.begin_episode()

    def begin_episode(self) -> None:
        """Start another episode of this interval; one that may be carried over has a seed by which it is repeated."""
        if self.stale:
            self.rebuild(self.next_seed())
            return
        seed = self.next_seed() if self.carries else None
        try:
            self.observe(self.environment.reset(seed))
            if seed is not None:
                self.life.append(Episode(seed, 0))
        except EnvironmentFault as fault:
            self.recover(fault)

    def recover(self, fault: EnvironmentFault) -> None:
        """Start a new episode in a new environment after a fault in training."""
        self.episode_return = 0.0
        self.note(fault, "training")
        self.rebuild(int(self.rebuild_rng.integers(2**31)))

    def rebuild(self, seed: int) -> None:
        """Make the environment anew and reset it, until that succeeds or the member is in quarantine."""
        while self.quarantined is None:
            try:
                self.environment.rebuild()
                self.observe(self.environment.reset(seed))
                self.life, self.live, self.stale = [Episode(seed, 0)], True, False
                return
            except EnvironmentFault as fault:
                self.note(fault, "training")
                seed = int(self.rebuild_rng.integers(2**31))

    def drop_episode(self) -> None:
        """Let no episode go on: the next interval begins another one."""
        self.life, self.live = [], False

    def note(self, fault: EnvironmentFault, during: str) -> None:
        """Remember a fault; one too many is quarantine, or raises RunStopped."""
        self.faults.append(Fault(during, fault.call, fault.message, self.environment_steps))
        if len(self.faults) <= self.max_faults:
            return
        times = f"{len(self.faults)} times" if len(self.faults) > 1 else "once"
        said = f"its environment failed {times} in an interval, the last time {fault}"
        self.quarantine(said)
        if self.stops_on_faults:
            raise RunStopped(f"member {self.slot} cannot go on: {said}; fix the environment or raise max_faults.")

    def note_in_evaluation(self, fault: EnvironmentFault) -> None:
        """Remember a fault of the evaluation environment; raises it again where the member is in quarantine by now."""
        self.note(fault, "evaluation")
        if self.quarantined is not None:
            raise fault

    def quarantine(self, reason: str) -> None:
        """Take the member out for the rest of the interval."""
        self.quarantined = reason
        self.drop_episode()
        # Its group goes on computing an action for it.
        self.observation = np.zeros(self.environment.shape.observations, np.float32)
