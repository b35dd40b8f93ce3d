"""A population in this process whose loop is taken step by step."""

from evolute import engine
from evolute.runs import rows
from evolute.training.worker import Trained


def silent(_steps):
    pass


class Stepped:
    """What a run consists of: its state, and the host that trains it.

    Attributes:
        members: of the host, by slot.
    """

    def __init__(self, run):
        [self.state], self.crew = engine.start([run])
        [self.host] = self.crew
        self.members = list(self.host.members.values())

    def roll_out(self):
        """Take the steps of this interval; return the updates' sums by slot."""
        for member, profile in zip(self.members, self.state.members, strict=True):
            member.hyperparameters = profile.hyperparameters
        sums, _ = self.host.roll_out(self.state.interval, silent)
        return [sums[member.lane] for member in self.members]

    def evaluate(self, sums):
        """Evaluate the members after their steps, and let the state know; return the outcomes by slot."""
        run = self.state.run
        seeds = engine.episode_seeds(self.state, self.state.interval, engine.Purpose.EVALUATE, run.episodes)
        outcomes, stops = self.host.evaluate(dict(enumerate(sums)), dict.fromkeys(self.host.members, seeds))
        self.ended = self.state.take_in(Trained(self.host.troubles(), outcomes, stops, {}))
        return [outcome for _, outcome in self.ended]

    def interval(self):
        """Train an interval without an evolution; return its rows of metrics and its events."""
        self.evaluate(self.roll_out())
        self.state.interval += 1
        return rows.interval_rows(self.state, self.ended, [])

    def evolve(self):
        return engine.evolve_members(self.state, self.crew)

    def copy(self, exploit):
        engine.copy_member(self.state, self.crew, exploit)

    def group_of(self, slot):
        return self.host.group_of(slot)

    def learner(self, slot):
        return self.host.group_of(slot).take(slot)

    def close(self):
        engine.close(self.crew)
