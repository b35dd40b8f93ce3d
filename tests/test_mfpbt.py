"""MF-PBT: who replaces whom in small populations that can be read by eye, and what its frequencies are for."""

import numpy as np
import pytest

from evolute import evolution
from evolute.config import Run
from evolute.errors import UserError
from evolute.evolution.base import Standing, Streams

NAN = float("nan")


def population(fitness, frequencies=(1, 3), mix=None):
    run = Run("Hopper-v4", mix=mix or {"adam": len(fitness)}, strategy="mfpbt", frequencies=frequencies)
    hyper = [run.initial_hyperparameters(kind)._replace(actor_learning_rate=1e-3 * (s + 1)) for s, kind in enumerate(run.kinds)]
    return run, [Standing(s, kind, fitness[s], hyper[s]) for s, kind in enumerate(run.kinds)]


def evolve(run, members, time, seed=0):
    streams = Streams(np.random.default_rng(seed), [np.random.default_rng([seed, s]) for s in range(len(members))])
    memory, exploits = evolution.build(run).evolve({"time": time - 1}, members, streams)
    assert memory == {"time": time}
    return {(exploit.child.slot, exploit.parent.slot): exploit.hyperparameters for exploit in exploits}


def rate(members, slot):
    return members[slot].hyperparameters.actor_learning_rate


# Even slots are the fast sub-population, odd ones the slow one; in both the order is that of the slots.
FITNESS = [8.0, 80.0, 7.0, 70.0, 6.0, 60.0, 5.0, 50.0]


def test_a_fast_sub_population_replaces_its_worst_and_takes_all_from_a_slower_one():
    run, members = population(FITNESS)
    found = evolve(run, members, time=1)
    # The loser copies the winner, perturbed; the third one becomes the best outsider, hyperparameters included.
    assert set(found) == {(6, 0), (4, 1)}
    assert found[4, 1] == members[1].hyperparameters
    assert found[6, 0].actor_learning_rate == pytest.approx(rate(members, 0) * 0.8) or found[
        6, 0
    ].actor_learning_rate == pytest.approx(rate(members, 0) * 1.2)


def test_a_slow_sub_population_evolves_seldom_and_takes_weights_alone_from_a_faster_one():
    run, members = population([f * 100 if slot % 2 == 0 else f for slot, f in enumerate(FITNESS)])
    assert all(child % 2 == 0 for child, _ in evolve(run, members, time=1))
    found = evolve(run, members, time=3)
    # The third of the slow ones becomes the best fast one, and keeps its own hyperparameters.
    assert found[5, 0] == members[5].hyperparameters
    assert (7, 1) in found
    # Nobody outside is better than the third of the fast ones.
    assert {child for child, _ in found} == {5, 6, 7}


def test_an_outsider_of_another_kind_gives_no_hyperparameters():
    run, members = population(FITNESS, mix={"adam": 1, "kfac": 7})
    found = evolve(run, members, time=1)
    assert found[4, 1] == members[1].hyperparameters
    run, members = population([FITNESS[s ^ 1] for s in range(8)], mix={"adam": 7, "kfac": 1})
    # Slot 7, the slow sub-population's worst, is K-FAC and copies its winner, an Adam member.
    found = evolve(run, members, time=3)
    assert found[7, 1].actor_damping > 0
    assert found[7, 1].actor_learning_rate in [pytest.approx(rate(members, 7) * factor) for factor in (0.8, 1.2)]


def test_a_broken_member_is_replaced_in_a_sub_population_that_does_not_evolve():
    run, members = population([NAN if slot == 3 else fitness for slot, fitness in enumerate(FITNESS)])
    assert {(3, 1)} <= set(evolve(run, members, time=1))
    # Where a whole sub-population is broken, the best of all are copied.
    run, members = population([NAN if slot % 2 else fitness for slot, fitness in enumerate(FITNESS)])
    found = evolve(run, members, time=1)
    assert {child for child, _ in found} == {1, 3, 5, 7, 6}
    assert {parent for child, parent in found if child % 2} == {0}


def test_whoever_is_replaced_gives_nothing():
    for seed in range(50):
        run, members = population(list(np.random.default_rng(seed).standard_normal(16)), frequencies=(1, 2))
        found = evolve(run, members, time=2, seed=seed)
        assert not {child for child, _ in found} & {parent for _, parent in found}


def greedy(run, rounds=60, seed=0):
    """Members whose rate pays at once if it is large and in the end if it is small: a gain that eats what can still be gained."""
    strategy, rng = evolution.build(run), np.random.default_rng(seed)
    memory, count = strategy.init(), len(run.kinds)
    hyper = [
        run.initial_hyperparameters("adam")._replace(actor_learning_rate=float(10 ** rng.uniform(-3, -1))) for _ in range(count)
    ]
    value, room = np.zeros(count), np.ones(count)
    for number in range(rounds):
        for slot in range(count):
            rate = hyper[slot].actor_learning_rate
            # Fast learners waste what they could have learnt.
            value[slot] += room[slot] * min(1.0, 10 * rate) * 0.1
            room[slot] *= 1.0 - min(1.0, 10 * rate) * (0.1 + 9 * rate)
        members = [Standing(slot, "adam", float(value[slot]), hyper[slot]) for slot in range(count)]
        streams = Streams(
            np.random.default_rng([seed, number]), [np.random.default_rng([seed, number, slot]) for slot in range(count)]
        )
        memory, exploits = strategy.evolve(memory, members, streams)
        copies = [(e.child.slot, value[e.parent.slot], room[e.parent.slot], e.hyperparameters) for e in exploits]
        for slot, reached, left, hyperparameters in copies:
            value[slot], room[slot], hyper[slot] = reached, left, hyperparameters
    return value.max()


def test_a_slow_sub_population_finds_what_pays_late():
    settings = {"mix": {"adam": 16}, "perturb": ("actor_learning_rate",), "bounds": {"actor_learning_rate": (1e-3, 0.1)}}
    better = 0
    for seed in range(10):
        slow = greedy(Run("Hopper-v4", strategy="mfpbt", frequencies=(1, 20), **settings), seed=seed)
        better += slow > greedy(Run("Hopper-v4", strategy="pbt", **settings), seed=seed)
    assert better >= 8


@pytest.mark.parametrize("frequencies", [(1,), (2, 4), (1, 1), (1, 3, 2), ()])
def test_frequencies_rise_from_one(frequencies):
    with pytest.raises(UserError, match="two or more rising whole numbers, the first of which is 1"):
        Run("Hopper-v4", mix={"adam": 16}, strategy="mfpbt", frequencies=frequencies)


def test_members_divide_into_quarters_of_sub_populations():
    with pytest.raises(UserError, match="mix has 6 members; their number must be a multiple of 8, four times the frequencies"):
        Run("Hopper-v4", mix={"adam": 6}, strategy="mfpbt", frequencies=(1, 5))
