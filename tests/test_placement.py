"""Groups: mapped equals vmapped, hyperparameters are data, and a kind compiles a fixed number of programs."""

import dataclasses
import re

import jax
import numpy as np
import pytest

import evolute
from evolute import algorithms, engine
from evolute.algorithms import td3
from evolute.training import placement
from evolute.training.replay import Sample, row_width

OBS, ACT = 17, 6
pytestmark = pytest.mark.usefixtures("own_programs")


def inputs(members, seed=0, rows=32):
    """What an update takes: a sample, observations and exploration noise of every member."""
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((members, rows, row_width(OBS, ACT)), np.float32)
    data[..., -1] = 0.0
    noise = rng.standard_normal((members, rows, ACT), np.float32)
    sample = Sample(data, np.full((members, rows), 1 / rows, np.float32), noise)
    return sample, rng.standard_normal((members, OBS), np.float32), rng.standard_normal((members, ACT), np.float32)


RUN_OF = {
    kind: evolute.Run(
        "HalfCheetah-v4",
        mix={kind: 3},
        steps=2_000,
        learning_starts=10,
        actor_layers=(16, 16),
        critic_layers=(16, 16),
        batch_size=32,
    )
    for kind in ("adam", "diag_ggn", "kfac", "kfac_empirical", "adam/kfac")
}


def groups(kind, arrangement, precision="float32", steps_per_round=1, layers=(16, 16)):
    run = dataclasses.replace(RUN_OF[kind], actor_layers=layers, critic_layers=layers)
    algorithm = algorithms.build(run, kind, 17, 6)
    programs = placement.make_programs(algorithm, precision)
    made = []
    for slots in arrangement:
        learners = [algorithm.init(np.random.default_rng(slot)) for slot in slots]
        group = placement.Group(slots, kind, programs, jax.local_devices()[0], learners, steps_per_round)
        start = RUN_OF[kind].initial_hyperparameters(kind)
        group.begin_interval([start._replace(discount=0.9 + 0.01 * slot) for slot in slots])
        made.append(group)
    return made, programs


def compiled(programs):
    return [program for program in (*programs, *(one for _, one in programs.burn_in)) if hasattr(program, "_cache_size")]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in ("adam/kfac", "kfac_empirical") else []) for kind in RUN_OF]
)
def test_members_mapped_one_by_one_equal_members_as_a_batch_axis(kind):
    apart, _ = groups(kind, [[0], [1], [2]])
    (together,), _ = groups(kind, [[0, 1, 2]])
    for step in range(4):
        arguments = inputs(3, seed=step)
        together.learn(*arguments)
        for n, group in enumerate(apart):
            group.learn(*jax.tree.map(lambda x, n=n: x[n : n + 1], arguments))
    actions = np.concatenate([group.actions() for group in apart])
    assert np.allclose(together.actions(), actions, atol=1e-4)
    for n, group in enumerate(apart):
        a, b = group.take(n), together.take(n)
        for part in ("actor", "critics", "target_actor", "target_critics"):
            for x, y in zip(jax.tree.leaves(getattr(a, part)), jax.tree.leaves(getattr(b, part)), strict=True):
                assert np.allclose(x, y, atol=1e-4)


@pytest.mark.parametrize("kind", ["adam", "kfac"])
def test_no_hyperparameter_recompiles(kind):
    (group,), programs = groups(kind, [[0]])
    sample, obs, noise = inputs(1)
    group.learn(sample, obs, noise)
    group.act(obs, noise)
    start = RUN_OF[kind].initial_hyperparameters(kind)
    for name in start._fields:
        changed = start._replace(**{name: getattr(start, name) * 0.9})
        group.begin_interval([changed])
        group.learn(sample, obs, noise)
        group.act(obs, noise)
    assert programs.learn._cache_size() == 1
    assert programs.act._cache_size() == 1


def test_a_population_compiles_as_many_programs_however_large_it_is_and_however_it_evolves():
    found = []
    for members in (2, 5):
        run = dataclasses.replace(
            RUN_OF["adam"],
            mix={"adam": members, "kfac": members},
            steps=120,
            interval=30,
            perturb=("actor_learning_rate", "critic_learning_rate", "critic_damping"),
            factors=(0.5, 2.0),
            episodes=1,
            final_episodes=1,
        )
        states, [host] = engine.start([run])
        [result] = engine.go_on(states, [host], [None], None)
        assert result.lineage
        programs = {group.kind: group._programs for group in host.groups}
        found.append({kind: [program._cache_size() for program in compiled(own)] for kind, own in programs.items()})
        engine.close([host])
    assert found[0] == found[1]
    # Each once for a device.
    devices = len(jax.local_devices())
    assert all(count <= devices for kind in found[0].values() for count in kind)


def test_another_bucket_compiles_once_more():
    (group,), programs = groups("adam", [[0]])
    for size in (32, 32, 48, 32, 48):
        group.learn(*inputs(1, rows=size))
    assert programs.learn._cache_size() == 2


def test_in_a_round_actions_come_from_a_policy_that_no_update_in_it_has_changed():
    (together,), _ = groups("adam", [[0, 1]], steps_per_round=3)
    (reference,), _ = groups("adam", [[0, 1]])
    start = RUN_OF["adam"].initial_hyperparameters("adam")
    _, obs, noise = inputs(2)
    actors = [[reference.take(slot).actor for slot in (0, 1)]]
    together.act(obs, noise)
    found = [together.actions()]
    for step in range(6):
        arguments = inputs(2, seed=step)
        together.learn(arguments[0], obs, noise)
        found.append(together.actions())
        reference.learn(*arguments)
        actors.append([reference.take(slot).actor for slot in (0, 1)])
    expected = [np.stack([td3.explore(one, o, start, n) for one, o, n in zip(both, obs, noise, strict=True)]) for both in actors]
    # Copies are taken before updates 1, 3 and 6; the actor changes with updates 2, 4 and 6.
    for action, updates in zip(found, (0, 0, 0, 2, 2, 2, 5), strict=True):
        errors = [np.abs(action - one).max() for one in expected]
        assert errors[updates] < 1e-6
        assert all(error > 1e-4 for n, error in enumerate(errors) if n // 2 != updates // 2)
    # What is learnt from the same samples is the same.
    for slot in (0, 1):
        for x, y in zip(jax.tree.leaves(together.take(slot)), jax.tree.leaves(reference.take(slot)), strict=True):
            assert np.array_equal(x, y)


@pytest.mark.parametrize("kind", ["adam", "diag_ggn", "kfac", "adam/kfac"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_networks_products_are_as_narrow_as_asked_and_those_of_curvature_never(kind, precision):
    (group,), programs = groups(kind, [[0, 1]], precision)
    sample, obs, noise = inputs(2)
    arguments = (group._learners, group._sums, group._hyper, sample, obs, noise, np.int32(0))
    text = programs.learn.lower(*arguments).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    narrow = [line for line in products if "bf16" in line]
    if precision == "float32":
        assert not narrow
        return
    # 14 products of one critic's and the actor's forward and backward passes, at the very least.
    assert len(narrow) > 14
    curvature = [line for line in products if "HIGHEST" in line]
    assert bool(curvature) == (kind != "adam")
    assert not any("bf16" in line for line in curvature)


def test_a_program_keeps_real_branches_for_a_batch_of_members():
    # Under vmap a branch on a member's own counter would become a select that computes both sides for everybody.
    (group,), programs = groups("kfac", [[0, 1]])
    sample, obs, noise = inputs(2)
    arguments = (group._learners, group._sums, group._hyper, sample, obs, noise, np.int32(0))
    lowered = programs.learn.lower(*arguments)
    # In each of the three networks, statistics and inverses.
    assert lowered.compile().as_text().count(" conditional(") == 3 * 2
    # The delayed actor, a loop over a count that all members share; and for each factor of three layers a ladder of damping, with
    # a loop over the members in it and one after it, because their matrices are factorised one after the other on a CPU.
    assert lowered.as_text().count("stablehlo.while") == 1 + 3 * 3 * 2 * 3


@pytest.mark.parametrize("kind", ["adam", "kfac"])
def test_a_members_update_copies_none_of_its_large_arrays(kind):
    (group,), programs = groups(kind, [[0]], layers=(160, 144))
    sample, obs, noise = inputs(1)
    arguments = (group._learners, group._sums, group._hyper, sample, obs, noise, np.int32(0))
    text = programs.learn.lower(*arguments).compile().as_text()
    entry = text[text.index("\nENTRY") :]
    assert not re.findall(r"= f32\[(?:160,144|161,161|160,160|161,144)\]\S* copy\(", entry)


def test_deal_maps_members_over_devices_or_joins_a_kind():
    kinds = dict(enumerate(["adam", "adam", "kfac"]))
    device = jax.local_devices()[0]
    assert [(kind, slots) for kind, slots, _ in placement.deal(kinds, "map")] == [
        ("adam", [0]),
        ("adam", [1]),
        ("kfac", [2]),
    ]
    assert [(kind, slots) for kind, slots, _ in placement.deal(kinds, "vmap")] == [("adam", [0, 1]), ("kfac", [2])]
    assert placement.deal(kinds, "auto")[0][2] == device
