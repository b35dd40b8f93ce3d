"""Selection, exploit and explore, with a test for each defect found in other implementations."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from evolute import evolution
from evolute.config import Run
from evolute.evolution import pbt
from evolute.evolution.base import Standing, Streams, ranked
from evolute.evolution.pbt import replaced_count, select
from evolute.hyperparameters import Hyperparameters

HYPER = oracles.hyperparameters(batch_size=256, actor_learning_rate=1e-3, critic_learning_rate=2e-3)
# Bounds that no factor below reaches in one mutation, also where a setting's own rule is narrower.
WIDE = {name: (1e-9, 1e9) for name in Hyperparameters._fields if name != "batch_size"} | {"batch_size": (1, 100_000)}


def wide(mix, **settings):
    run = Run("Hopper-v4", mix=mix, **settings)
    run.bounds.update(WIDE)
    return run


ALL = Hyperparameters._fields
RUN = wide({"kfac": 2})
BROKEN = (math.nan, math.inf, -math.inf)


def standings(fitnesses, kinds=None):
    kinds = kinds or ["kfac"] * len(fitnesses)
    return [
        Standing(slot, kind, fitness, HYPER._replace(discount=0.9 + slot / 1000, batch_size=100 + slot))
        for slot, (fitness, kind) in enumerate(zip(fitnesses, kinds, strict=True))
    ]


def evolve(population, run, streams):
    """The exploits; population-based training remembers nothing."""
    strategy = evolution.build(run)
    memory, exploits = strategy.evolve(strategy.init(), population, streams)
    assert memory == strategy.init() == {}
    return exploits


def explore(start, names, run, rng):
    return pbt.explore(start, names, run.factors, evolution.space_of(run).bounds, rng)


def decided(population, run=RUN, seed=0):
    streams = [np.random.default_rng([seed, slot]) for slot in range(len(population))]
    return evolve(population, run, Streams(np.random.default_rng(seed), streams))


def pairs(population, truncation=0.2, seed=0):
    return [(c.slot, p.slot) for c, p in select(population, truncation, np.random.default_rng(seed))]


# ---------------------------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("members", "count"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 2), (9, 2), (10, 2), (20, 4)]
)
def test_a_fifth_is_replaced_rounded_half_up(members, count):
    assert replaced_count(members, 0.2) == count
    assert len(pairs(standings([float(n) for n in range(members)]))) == count


@pytest.mark.parametrize(
    ("members", "truncation", "count"),
    # 2.5 rounds up: rounding to even would give 2.
    [(10, 0.25, 3), (2, 0.25, 1), (3, 0.5, 1), (4, 0.5, 2), (5, 0.5, 2), (9, 0.5, 4), (8, 0.01, 1)],
)
def test_at_least_one_and_at_most_half_are_replaced(members, truncation, count):
    assert replaced_count(members, truncation) == count


any_fitness = st.one_of(st.sampled_from([0.0, 1.0, *BROKEN]), st.floats(-1e6, 1e6))


@given(st.lists(any_fitness, min_size=1, max_size=10), st.floats(0.01, 0.5), st.integers(0, 100))
def test_whatever_the_fitness_only_sound_members_of_the_top_are_copied_by_the_bottom(fitnesses, truncation, seed):
    population = standings(fitnesses)
    count = replaced_count(len(population), truncation)
    chosen = pairs(population, truncation, seed)
    children, parents = {c for c, _ in chosen}, {p for _, p in chosen}
    broken = {slot for slot, f in enumerate(fitnesses) if not math.isfinite(f)}
    # The oracle ranks by counting who is better, not by sorting.
    better = {
        a: sum((fitnesses[b], -b) > (fitnesses[a], -a) for b in range(len(fitnesses)) if b not in broken and b != a)
        for a in range(len(fitnesses))
        if a not in broken
    }
    assert not children & parents
    assert not broken & parents
    assert len(children) == len(chosen)
    if len(broken) == len(fitnesses) or len(fitnesses) == 1:
        assert not chosen
        return
    assert broken <= children
    assert all(better[p] < count for p in parents)
    worst = {a for a in better if len(better) - better[a] <= count - len(broken)}
    assert children == broken | (worst - {a for a in better if better[a] < count})
    assert len(children) >= count


@pytest.mark.parametrize("strategy", ["pbt", "pb2", "mfpbt", "blind", "none"])
@given(st.lists(st.tuples(any_fitness, st.booleans()), min_size=16, max_size=16), st.integers(0, 100))
def test_who_missed_the_interval_copies_nobody_and_is_copied_by_nobody(strategy, members, seed):
    run = wide({"kfac": 16}, strategy=strategy, frequencies=(1, 2))
    made, rng = evolution.build(run), np.random.default_rng(seed)
    everybody = standings([fitness for fitness, _ in members])
    there = [standing for standing, (_, present) in zip(everybody, members, strict=True) if present]
    memory = made.init()
    for standing in (everybody, there, everybody):
        memory, exploits = made.evolve(
            memory, standing, Streams(rng, [np.random.default_rng([seed, slot]) for slot in range(16)])
        )
        children, parents = ([getattr(exploit, name) for exploit in exploits] for name in ("child", "parent"))
        assert set(children) | set(parents) <= set(standing)
        assert len(set(children)) == len(children)
        assert not set(children) & set(parents)
        assert all(math.isfinite(parent.fitness) for parent in parents)
        assert made.sound(json.loads(json.dumps(memory)))


def test_a_group_of_which_few_are_there_is_not_replaced_whole():
    """A quarter of fewer than four is nobody, and Python's [-0:] is everybody."""
    run = wide({"kfac": 8}, strategy="mfpbt", frequencies=(1, 2))
    made = evolution.build(run)
    few = [standing for standing in standings([float(fitness) for fitness in range(8)]) if standing.slot in (0, 1, 2, 3, 4)]
    assert made.evolve(made.init(), few, Streams(np.random.default_rng(0), [np.random.default_rng(0)] * 8))[1] == []


@pytest.mark.parametrize("bad", BROKEN)
@pytest.mark.parametrize("slot", range(4))
def test_a_broken_member_is_replaced_and_never_a_parent(bad, slot):
    fitnesses = [10.0, 20.0, 30.0, 40.0]
    fitnesses[slot] = bad
    best = max((f, s) for s, f in enumerate(fitnesses) if math.isfinite(f))[1]
    assert pairs(standings(fitnesses)) == [(slot, best)]
    assert [s.slot for s in ranked(standings(fitnesses))][-1] == slot


def test_broken_members_are_replaced_even_beyond_the_truncation():
    population = standings([math.nan, 3.0, math.inf, 1.0, -math.inf])
    assert sorted(pairs(population)) == [(0, 1), (2, 1), (4, 1)]


def test_where_all_are_broken_nobody_is_copied():
    assert decided(standings([math.nan, math.inf, -math.inf, math.nan])) == []


@pytest.mark.parametrize("members", range(2, 11))
def test_ties_are_broken_by_slot_and_never_stop_selection(members):
    count = replaced_count(members, 0.2)
    chosen = pairs(standings([5.0] * members))
    assert sorted(c for c, _ in chosen) == list(range(members - count, members))
    assert {p for _, p in chosen} <= set(range(count))


def test_every_parent_of_the_top_is_drawn_equally_often():
    population = standings([float(n) for n in range(10)])
    drawn = [p for seed in range(500) for _, p in pairs(population, 0.3, seed)]
    counts = np.bincount(drawn, minlength=10)
    assert counts[:7].sum() == 0
    assert counts[7:] == pytest.approx(500, abs=75)


def test_a_population_of_one_never_evolves():
    assert decided(standings([1.0])) == []
    assert decided(standings([math.nan])) == []


# ------------------------------------------------------------------------------------------------------------ explore


def test_factors_are_independent_of_each_other():
    names, run = ALL, RUN
    rng = np.random.default_rng(0)
    # A large batch, so that rounding does not hide the factor.
    start = HYPER._replace(batch_size=50_000)
    logs = np.array([np.log(np.divide(explore(start, names, run, rng), start)) for _ in range(1_000)])
    correlations = np.corrcoef(logs.T)[~np.eye(len(names), dtype=bool)]
    assert np.abs(correlations).max() < 0.13  # four standard errors of 1 / sqrt(1000)
    assert np.abs((logs > 0).mean(axis=0) - 0.5).max() < 0.065


@pytest.mark.parametrize("factors", [(0.8, 1.2), (0.5, 1.0, 2.0), (1.25,)])
def test_every_factor_is_from_the_given_set(factors):
    run, rng = wide({"kfac": 2}, factors=factors), np.random.default_rng(1)
    start = HYPER._replace(batch_size=1000)
    seen = [np.divide(explore(start, ALL, run, rng), start) for _ in range(60)]
    for column in np.transpose(seen):
        assert np.unique(column.round(9)).tolist() == list(factors)


def test_bounds_hold_after_ten_thousand_mutations_and_both_are_reached():
    bounds = {"batch_size": (32, 64), "actor_learning_rate": (1e-4, 3e-3), "discount": (0.9, 0.999)}
    run, rng, hyper = Run("Hopper-v4", bounds=bounds), np.random.default_rng(2), HYPER
    seen = {name: [] for name in bounds}
    for _ in range(10_000):
        hyper = explore(hyper, tuple(bounds), run, rng)
        for name in bounds:
            seen[name].append(getattr(hyper, name))
    for name, (low, high) in bounds.items():
        assert (min(seen[name]), max(seen[name])) == (low, high)
    assert {type(value) for value in seen["batch_size"]} == {int}


@pytest.mark.parametrize(("before", "down", "up"), [(2, 1, 3), (3, 2, 4), (4, 3, 5), (5, 4, 6), (8, 6, 10), (256, 205, 307)])
def test_a_small_batch_size_can_move_both_ways(before, down, up):
    rng = np.random.default_rng(3)
    seen = {explore(HYPER._replace(batch_size=before), ("batch_size",), RUN, rng).batch_size for _ in range(50)}
    assert seen == {down, up}


@given(st.integers(1, 2000), st.integers(1, 100), st.integers(0, 2000), st.integers(0, 9))
def test_a_batch_size_is_a_whole_number_within_its_bounds(before, low, span, seed):
    run = Run("Hopper-v4", mix={"kfac": 1}, bounds={"batch_size": (low, low + span)})
    after = explore(HYPER._replace(batch_size=before), ("batch_size",), run, np.random.default_rng(seed)).batch_size
    assert type(after) is int
    assert low <= after <= low + span
    if low < before < low + span:
        assert after != before


@pytest.mark.parametrize("name", ALL)
def test_each_hyperparameter_can_be_perturbed_alone(name):
    after = explore(HYPER, (name,), RUN, np.random.default_rng(4))
    assert {field for field in ALL if getattr(after, field) != getattr(HYPER, field)} == {name}


def test_the_order_in_which_names_are_given_changes_nothing():
    names = ("critic_damping", "batch_size", "actor_learning_rate")
    explored = {explore(HYPER, order, RUN, np.random.default_rng(5)) for order in itertools.permutations(names)}
    assert len(explored) == 1


# ------------------------------------------------------------------------------------------------------------- evolve


def test_siblings_of_one_parent_differ():
    # Three broken members, one parent: five independent factors of two make twins rare, one stream makes them sure.
    population = standings([1.0, math.nan, math.nan, math.nan])
    alike = 0
    for seed in range(100):
        exploits = decided(population, seed=seed)
        assert {e.parent.slot for e in exploits} == {0}
        alike += sum(a.hyperparameters == b.hyperparameters for a, b in itertools.combinations(exploits, 2))
    assert alike / 300 < 0.1  # expected 1 / 32


def test_within_a_kind_the_parents_hyperparameters_are_perturbed_across_kinds_ones_own():
    run = wide({"adam": 2, "kfac": 1})
    for kinds, source in ((["kfac", "kfac", "adam"], 1), (["kfac", "adam", "adam"], 0)):
        (exploit,) = decided(standings([0.0, 2.0, 1.0], kinds), run)
        assert (exploit.child.slot, exploit.parent.slot) == (0, 1)
        assert exploit.same_kind == (kinds[0] == kinds[1])
        # Discount is not perturbed, so it tells whose hyperparameters these were; the batch was 100 + slot.
        assert exploit.hyperparameters.discount == 0.9 + source / 1000
        start = standings([0.0, 2.0, 1.0], kinds)[source].hyperparameters
        factors = np.divide(exploit.hyperparameters, start)
        assert factors[1:5].round(9).tolist() == [f for f in factors[1:5].round(9) if f in (0.8, 1.2)]
        assert exploit.hyperparameters.batch_size in (round(0.8 * (100 + source)), round(1.2 * (100 + source)))


def test_an_optimizer_without_damping_keeps_zero_and_a_mixed_kind_perturbs_its_own_half():
    run = wide({"adam/kfac": 2})
    population = [
        s._replace(hyperparameters=s.hyperparameters._replace(actor_damping=0.0))
        for s in standings([0.0, 1.0], ["adam/kfac"] * 2)
    ]
    (exploit,) = decided(population, run)
    assert exploit.hyperparameters.actor_damping == 0.0
    assert exploit.hyperparameters.critic_damping != HYPER.critic_damping


def test_the_same_seed_gives_the_same_lineage_and_another_seed_another():
    population = standings([3.0, 1.0, 2.0, math.nan, 5.0, 4.0])
    assert decided(population, seed=1) == decided(population, seed=1)
    lineages = {tuple((e.parent.slot, e.hyperparameters) for e in decided(population, seed=seed)) for seed in range(8)}
    assert len(lineages) > 5


def test_a_childs_draws_come_from_its_own_slots_stream_alone():
    population = standings([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    streams = [np.random.default_rng(slot) for slot in range(6)]
    exploits = evolve(population, RUN, Streams(np.random.default_rng(0), streams))
    used = [s for s in range(6) if streams[s].integers(2**60) != np.random.default_rng(s).integers(2**60)]
    assert used == sorted(e.child.slot for e in exploits) == [5]


def test_members_that_are_not_replaced_are_left_alone():
    population = standings([float(n) for n in range(10)])
    before = [Standing(*s) for s in population]
    exploits = decided(population)
    assert sorted(e.child.slot for e in exploits) == [0, 1]
    assert population == before


# ------------------------------------------------------------------------------------------------- of every strategy

STRATEGIES = ("pbt", "pb2", "mfpbt", "blind")


def rounds(name, count, fitness, seed=0, own=0):
    """Evolve a mixed population so many times; yields the members, the exploits and the memory of each.

    Children draw from streams of `own`, everybody else from those of `seed`.
    """
    run = Run("Hopper-v4", mix={"kfac": 4, "adam": 4}, strategy=name, frequencies=(1, 2))
    strategy, rng = evolution.build(run), np.random.default_rng(seed)
    hyper, memory = [run.initial_hyperparameters(kind) for kind in run.kinds], strategy.init()
    for number in range(count):
        members = [Standing(s, kind, fitness(rng, s), hyper[s]) for s, kind in enumerate(run.kinds)]
        streams = Streams(
            np.random.default_rng([seed, number]), [np.random.default_rng([seed, number, own, s]) for s in range(8)]
        )
        memory, exploits = strategy.evolve(memory, members, streams)
        for exploit in exploits:
            hyper[exploit.child.slot] = exploit.hyperparameters
        yield run, members, exploits, memory, strategy


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("broken", [0.0, 0.3, 1.0])
def test_whatever_the_strategy_parents_are_sound_children_differ_and_bounds_hold(name, broken):
    def fitness(rng, slot):
        return rng.choice(BROKEN) if rng.uniform() < broken else float(rng.normal() + slot)

    for run, members, exploits, memory, strategy in rounds(name, 8, fitness):
        children, parents = [e.child.slot for e in exploits], {e.parent.slot for e in exploits}
        assert len(set(children)) == len(children)
        assert not parents & set(children)
        for exploit in exploits:
            assert math.isfinite(exploit.parent.fitness)
            assert (exploit.child, exploit.parent) == (members[exploit.child.slot], members[exploit.parent.slot])
            start = (exploit.parent if exploit.same_kind else exploit.child).hyperparameters
            perturbed = run.perturbed(exploit.child.kind)
            for field in ALL:
                before, after = getattr(start, field), getattr(exploit.hyperparameters, field)
                low, high = run.bounds_of(field)
                # What the kind does not have, or is not to be perturbed, stays.
                assert low <= after <= high if field in perturbed else after == before
            assert type(exploit.hyperparameters.batch_size) is int
        if broken < 1.0 and any(not math.isfinite(m.fitness) for m in members) and parents:
            assert {m.slot for m in members if not math.isfinite(m.fitness)} <= set(children)
        read = json.loads(json.dumps(memory))
        assert read == memory
        assert strategy.sound(read)


@pytest.mark.parametrize("name", STRATEGIES)
def test_whatever_the_strategy_what_is_not_its_memory_is_refused_and_raises_nothing(name):
    *_, (_, _, _, memory, strategy) = rounds(name, 3, lambda rng, slot: float(rng.normal()))
    strange = [None, True, 3, math.nan, "text", [], [memory], {**memory, "no such": 1}]
    for key in memory:
        strange.append({other: value for other, value in memory.items() if other != key})
        strange += [{**memory, key: value} for value in (None, "text", math.nan, [["text"]], {"no such": ["text"]})]
    assert strategy.sound(memory)
    assert [one for one in strange if strategy.sound(one)] == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_whatever_the_strategy_the_childrens_streams_decide_their_hyperparameters_and_not_who_copies_whom(name):
    decided = [[exploits for _, _, exploits, _, _ in rounds(name, 4, lambda rng, slot: float(slot), own=n)] for n in range(2)]
    pairs = [[(e.child.slot, e.parent.slot) for exploits in one for e in exploits] for one in decided]
    assert pairs[0] == pairs[1] != []
    assert decided[0][0] != decided[1][0]


@pytest.mark.parametrize("name", STRATEGIES)
def test_whatever_the_strategy_the_same_seed_decides_the_same_and_nothing_is_changed_in_place(name):
    first = [(m, e, json.dumps(memory)) for _, m, e, memory, _ in rounds(name, 6, lambda rng, slot: float(rng.normal()))]
    again = [(m, e, json.dumps(memory)) for _, m, e, memory, _ in rounds(name, 6, lambda rng, slot: float(rng.normal()))]
    assert first == again
    other = [e for _, _, e, _, _ in rounds(name, 6, lambda rng, slot: float(rng.normal()), seed=1)]
    assert [e for _, e, _ in first] != other
    # A memory that was handed over is not written to.
    memories = [memory for _, _, _, memory, _ in rounds(name, 6, lambda rng, slot: float(rng.normal()))]
    assert [json.dumps(memory) for memory in memories] == [text for _, _, text in first]


# ------------------------------------------------------------------------------------------------------------ controls


def test_without_a_strategy_nobody_copies_anybody():
    run = Run("Hopper-v4", mix={"adam": 4}, strategy="none")
    strategy = evolution.build(run)
    members = [
        Standing(s, "adam", fitness, run.initial_hyperparameters("adam")) for s, fitness in enumerate((1.0, math.nan, 2.0, 0.0))
    ]
    streams = Streams(np.random.default_rng(0), [np.random.default_rng(s) for s in range(4)])
    assert strategy.evolve(strategy.init(), members, streams) == ({}, [])


def test_a_blind_strategy_replaces_good_members_as_often_as_bad_ones():
    """Two of eight are replaced in each of 400 evolutions: 100 times each, and a slot's count has a deviation of 8.7."""
    replaced, copied = np.zeros(8), np.zeros(8)
    for _, _, exploits, _, _ in rounds("blind", 400, lambda rng, slot: float(slot)):
        for exploit in exploits:
            replaced[exploit.child.slot] += 1
            copied[exploit.parent.slot] += 1
    assert replaced.sum() == 800
    assert (abs(replaced - 100) < 4 * 8.7).all()
    # A parent is one of two at random, twice: its count scatters more.
    assert (abs(copied - 100) < 4 * 11).all()
