"""Networks of every structure: tape and curvature against automatic differentiation, policies, health, and what is refused."""

import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import oracles
from evolute import Run, UserError, networks, train
from evolute.algorithms import sac, td3
from evolute.algorithms.base import Batch
from evolute.commands import cli
from evolute.networks import MLP, Layer
from evolute.optimizers import curvature
from evolute.optimizers.kfac import KFACOptions, kfac, kfac_empirical
from evolute.policy import DESCRIPTION_FILE, WEIGHTS_FILE, Policy, Scaling
from evolute.runs import policies
from evolute.structure import PLAIN, Structure, sizes
from evolute.training import health, starting
from evolute.training.host import Host
from faults import differences

STRUCTURES = {
    "tanh": Structure("mlp", "tanh"),
    "layer norm": Structure("mlp", "relu", True),
    "elu, layer norm": Structure("mlp", "elu", True),
    "simba": Structure("simba", "relu"),
}
every_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
IN, ROWS = 4, 7


def reference(mlp: MLP, x: jax.Array, structure: Structure, taps: tuple[jax.Array, ...] | None = None):
    """The output, and what each linear layer sees, written apart from the code under test; `taps` enter pre-activations."""
    seen = []

    def linear(n, a):
        seen.append(a)
        return jnp.einsum("bi,io->bo", a, mlp[n].w) + mlp[n].b + (0.0 if taps is None else taps[n])

    def normed(z):
        centred = z @ (jnp.eye(z.shape[1]) - 1.0 / z.shape[1])
        return centred / jnp.sqrt(jnp.sum(centred * centred, axis=1) / z.shape[1] + 1e-6)[:, None]

    def active(z):
        if structure.activation == "tanh":
            return 1.0 - 2.0 / (jnp.exp(2.0 * z) + 1.0)
        return jnp.where(z > 0, z, jnp.exp(jnp.minimum(z, 0.0)) - 1.0 if structure.activation == "elu" else 0.0)

    if structure.network == "simba":
        stream = linear(0, x)
        for n in range((len(mlp) - 2) // 2):
            stream = stream + linear(2 * n + 2, active(linear(2 * n + 1, normed(stream))))
        return linear(len(mlp) - 1, normed(stream)), seen
    for n in range(len(mlp) - 1):
        z = linear(n, x)
        x = active(normed(z) if structure.layer_norm else z)
    return linear(len(mlp) - 1, x), seen


def problem(structure: Structure, outputs: int, dtype: type = np.float64):
    rng = np.random.default_rng(0)
    mlp = oracles.random_mlp(rng, sizes(IN, (3, 3) if structure.network == "simba" else (5, 4), outputs, structure), dtype)
    x, target = jnp.asarray(rng.normal(size=(ROWS, IN)), dtype), jnp.asarray(rng.normal(size=(ROWS, outputs)), dtype)
    return mlp, x, target, oracles.random_weights(rng, ROWS)


# --------------------------------------------------------------------------------------------------- tape and curvature


# Each test computes all that it compares in one compiled program: a hundred small ones take longer.


@pytest.mark.usefixtures("x64")
@every_structure
def test_output_inputs_and_pull_backs_are_those_of_a_network_that_is_written_out(structure):
    mlp, x, cotangent, _ = problem(structure, 2)

    @jax.jit
    def both(mlp: MLP, x: jax.Array, cotangent: jax.Array):
        output, inputs, pull_back = networks.taped(mlp, x, structure)
        pulled = pull_back(cotangent)
        expected, seen = reference(mlp, x, structure)
        taps = tuple(jnp.zeros((ROWS, len(layer.b))) for layer in mlp)
        to_taps, to_input = jax.vjp(lambda t, x: reference(mlp, x, structure, t)[0], taps, x)[1](cotangent)
        ours = (output, networks.apply(mlp, x, structure), inputs, pulled, networks.to_input(mlp, pulled))
        return ours, (expected, expected, tuple(seen), to_taps, to_input)

    oracles.assert_close(*both(mlp, x, cotangent), rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("x64")
@every_structure
def test_a_critics_gradient_diagonal_and_change_are_those_of_dense_matrices(structure):
    mlp, x, target, weight = problem(structure, 1)
    step = oracles.random_mlp(np.random.default_rng(5), [len(mlp[0].w), *(len(layer.b) for layer in mlp)])

    @jax.jit
    def ours(mlp: MLP, step: MLP):
        gradient, tape = oracles.critic_problem(mlp, x, target[:, 0], weight, structure)
        return gradient, oracles.flat(curvature.diagonal(tape)), curvature.output_change(step, tape)

    def q(mlp: MLP, x: jax.Array) -> jax.Array:
        return reference(mlp, x, structure)[0]

    gradient, diagonal, change = ours(mlp, step)
    expected = jax.jit(jax.grad(lambda mlp: jnp.sum(weight * (q(mlp, x) - target)[:, 0] ** 2)))(mlp)
    oracles.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)
    dense = oracles.dense_gauss_newton(q, mlp, x, weight, 2 * np.eye(1))
    np.testing.assert_allclose(diagonal, np.diag(dense), rtol=1e-9, atol=1e-11)
    v = np.concatenate([np.vstack([layer.w, layer.b]).ravel() for layer in step])
    np.testing.assert_allclose(change, v @ dense @ v, rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["elu, layer norm", "simba"])
def test_an_actors_gradient_and_diagonal_are_those_of_the_dense_metric_of_its_actions(name):
    structure = STRUCTURES[name]
    actor, obs, _, weight = problem(structure, 2)
    critic = oracles.random_mlp(np.random.default_rng(1), sizes(IN + 2, (3,), 1, structure))
    batch = Batch(obs, jnp.zeros((ROWS, 2)), jnp.zeros(ROWS), obs, jnp.zeros(ROWS), weight)

    def action(actor: MLP, obs: jax.Array) -> jax.Array:
        return jnp.tanh(reference(actor, obs, structure)[0])

    def loss(actor: MLP) -> jax.Array:
        seen = jnp.concatenate([obs, action(actor, obs)], 1)
        return -jnp.sum(weight * reference(critic, seen, structure)[0][:, 0])

    @jax.jit
    def both(actor: MLP):
        gradient, tape, value = td3.actor_tape(actor, critic, batch, jnp.zeros((ROWS, 2)), True, structure)
        return (value, gradient), jax.value_and_grad(loss)(actor), oracles.flat(curvature.diagonal(tape))

    ours, expected, diagonal = both(actor)
    oracles.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
    dense = oracles.dense_gauss_newton(action, actor, obs, weight, np.eye(2))
    np.testing.assert_allclose(diagonal, np.diag(dense), rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_sacs_actor_has_the_gradient_and_the_fisher_matrix_of_its_policy():
    structure = STRUCTURES["simba"]
    actor, obs, noise, weight = problem(structure, 2)
    critic = oracles.random_mlp(np.random.default_rng(1), sizes(IN + 1, (3,), 1, structure))
    batch = Batch(obs, jnp.zeros((ROWS, 1)), jnp.zeros(ROWS), obs, jnp.zeros(ROWS), weight)

    def loss(actor: MLP) -> jax.Array:
        z = reference(actor, obs, structure)[0]
        log_std = jnp.clip(z[:, 1:], -20, 2)
        action = jnp.tanh(z[:, :1] + jnp.exp(log_std) * noise[:, :1])
        q = reference(critic, jnp.concatenate([obs, action], 1), structure)[0]
        density = -0.5 * noise[:, :1] ** 2 - log_std - 0.5 * np.log(2 * np.pi)
        return jnp.sum(weight * (0.3 * (density - jnp.log(1 - action**2 + 1e-6)) - q)[:, 0])

    def rooted(actor: MLP, obs: jax.Array) -> jax.Array:
        """Outputs whose Gauss-Newton matrix with the identity as Hessian is the Fisher matrix: its root is held fixed."""
        z = reference(actor, obs, structure)[0]
        inside = (z[:, 1:] >= -20) & (z[:, 1:] <= 2)
        root = jnp.concatenate([jnp.exp(-jnp.clip(z[:, 1:], -20, 2)), jnp.where(inside, 2.0**0.5, 0.0)], axis=1)
        return z * jax.lax.stop_gradient(root)

    @jax.jit
    def both(actor: MLP):
        given = (jnp.asarray(0.3), noise[:, :1], noise, True, structure)
        gradient, tape, value = sac.actor_tape(actor, (critic,), batch, *given)
        return (value, gradient), jax.value_and_grad(loss)(actor), oracles.flat(curvature.diagonal(tape))

    ours, expected, diagonal = both(actor)
    oracles.assert_close(ours, expected, rtol=1e-8, atol=1e-10)
    dense = oracles.dense_gauss_newton(rooted, actor, obs, weight, np.eye(2))
    np.testing.assert_allclose(diagonal, np.diag(dense), rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", [kfac, kfac_empirical])
@pytest.mark.parametrize("name", ["layer norm", "simba"])
def test_kfacs_factors_are_those_of_dense_matrices(name, kind):
    structure = STRUCTURES[name]
    mlp, x, target, weight = problem(structure, 1)
    plain = {"clip": np.inf, "momentum": 0.0, "average": 0.0, "statistics_every": 1, "inverse_every": 1}
    optimizer, rates = kind(KFACOptions(0.0, 0.0, **plain)), oracles.rates(0.1, 0.1, np.float64)

    @jax.jit
    def measured(mlp: MLP):
        gradient, tape = oracles.critic_problem(mlp, x, target[:, 0], weight, structure)
        state = optimizer.update(gradient, optimizer.init(mlp), mlp, rates, tape, jnp.int32(0))[1]
        return (state.A, state.B), reference(mlp, x, structure)

    (As, Bs), (output, seen) = measured(mlp)
    # The empirical Fisher matrix is that of squared slopes, 4 δ², where the Gauss-Newton matrix has 2.
    factor = 2 * np.ones(ROWS) if kind is kfac else 4 * np.asarray(output - target)[:, 0] ** 2
    dense = oracles.dense_gauss_newton(lambda m, x: reference(m, x, structure)[0], mlp, x, factor * weight, np.eye(1))
    for A, B, a, block in zip(As, Bs, seen, oracles.blocks(mlp), strict=True):
        homogeneous = np.concatenate([a, np.ones((ROWS, 1))], axis=1)
        np.testing.assert_allclose(A, homogeneous.T @ (np.asarray(weight)[:, None] * homogeneous), rtol=1e-9, atol=1e-11)
        # A bias moves its pre-activation alone, whatever comes after: B is the dense block of the biases.
        biases = slice(block.stop - len(B), block.stop)
        np.testing.assert_allclose(B, dense[biases, biases], rtol=1e-9, atol=1e-11)
    if kind is kfac:
        last = oracles.blocks(mlp)[-1]
        np.testing.assert_allclose(np.kron(As[-1], Bs[-1]), dense[last, last], rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_a_scale_and_an_offset_before_a_linear_layer_are_absorbed_by_it():
    """Lee et al.'s LayerNorm has both: a simba network without them is the same functions (maths.md E5d)."""
    structure = STRUCTURES["simba"]
    mlp, x, _, _ = problem(structure, 2)
    rng = np.random.default_rng(3)
    affine = {n: (rng.normal(size=3), rng.normal(size=3)) for n in (1, 3, 5)}  # before each block, and before the output
    absorbed = tuple(
        Layer(affine[n][0][:, None] * w, b + affine[n][1] @ w) if n in affine else Layer(w, b) for n, (w, b) in enumerate(mlp)
    )

    def normed(z: np.ndarray, n: int) -> np.ndarray:
        return (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-6) * affine[n][0] + affine[n][1]

    w, b = zip(*((np.asarray(layer.w), np.asarray(layer.b)) for layer in mlp), strict=True)
    stream = np.asarray(x) @ w[0] + b[0]
    for n in (1, 3):
        stream = stream + np.maximum(normed(stream, n) @ w[n] + b[n], 0) @ w[n + 1] + b[n + 1]
    np.testing.assert_allclose(networks.apply(absorbed, x, structure), normed(stream, 5) @ w[5] + b[5], rtol=1e-9)


def test_a_pull_back_is_as_narrow_as_the_forward_pass():
    structure = STRUCTURES["simba"]
    mlp, x, cotangent, _ = problem(structure, 2, np.float32)
    with jax.default_matmul_precision("bfloat16"):
        text = jax.jit(lambda mlp, x, c: networks.taped(mlp, x, structure)[2](c)).lower(mlp, x, cotangent).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) >= 10
    assert all(line.count("xbf16>") == 2 for line in products)


def test_a_simba_network_starts_as_lee_et_als():
    structure = STRUCTURES["simba"]
    chain = sizes(11, (48, 48), 3, structure)
    assert chain == [11, 48, 192, 48, 192, 48, 3]
    mlp = networks.init(np.random.default_rng(0), chain, structure)
    assert [layer.w.shape for layer in mlp] == [*pairwise(chain)]
    assert not any(np.any(layer.b) for layer in mlp)
    np.testing.assert_allclose(mlp[0].w @ mlp[0].w.T, np.eye(11), atol=1e-6)
    np.testing.assert_allclose(mlp[-1].w.T @ mlp[-1].w, np.eye(3), atol=1e-6)
    for layer in mlp[1:-1]:  # within five standard errors
        w = np.asarray(layer.w)
        assert abs(np.mean(w**2) * len(w) / 2 - 1) < 5 * np.sqrt(2 / w.size)


# -------------------------------------------------------------------------------------------------------------- policies


def made(structure: Structure, scaling: Scaling | None = None) -> tuple[Policy, MLP]:
    mlp = problem(structure, 2, np.float32)[0]
    return Policy(list(mlp), -np.ones(2), np.ones(2), "any", scaling, structure), mlp


@every_structure
def test_a_policy_in_numpy_is_the_actor_and_comes_back_from_its_file(structure, tmp_path):
    policy, mlp = made(structure)
    obs = np.random.default_rng(1).normal(size=(50, IN)).astype(np.float32)
    expected = np.asarray(jax.jit(td3.act, static_argnums=2)(mlp, jnp.asarray(obs), structure))
    np.testing.assert_allclose(policy.unit_action(obs), expected, atol=1e-6)
    np.testing.assert_allclose(policy.unit_action(obs[0]), expected[0], atol=1e-6)
    assert policy.unit_action(obs).dtype == np.float32
    scaled = made(structure, Scaling(np.ones(IN), np.full(IN, 0.5)))[0]
    for one in (policy, scaled):
        one.save(tmp_path)
        assert json.loads((tmp_path / DESCRIPTION_FILE).read_text())["format"] == "evolute policy 3"
        loaded = Policy.load(tmp_path)
        assert loaded.structure == structure
        np.testing.assert_array_equal(loaded.unit_action(obs), one.unit_action(obs))
    assert not np.allclose(policy.unit_action(obs), scaled.unit_action(obs), atol=1e-3)


def test_a_plain_policys_file_is_as_before(tmp_path):
    made(PLAIN)[0].save(tmp_path)
    description = json.loads((tmp_path / DESCRIPTION_FILE).read_text())
    assert description["format"] == "evolute policy 1"
    assert description["hidden_activation"] == "relu"
    assert not description.keys() & {"network", "layer_norm", "scaled_observations"}
    # The oldest files name no format.
    (tmp_path / DESCRIPTION_FILE).write_text(json.dumps({k: v for k, v in description.items() if k != "format"}))
    assert Policy.load(tmp_path).structure == PLAIN


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "evolute policy 4"}, "its format is none that this version knows"),
        ({"format": 3}, "its format is none"),
        ({"network": "resnet"}, "network and hidden_activation must be of mlp, simba and of relu, tanh, elu"),
        ({"network": ["simba"]}, "network and hidden_activation must be"),
        ({"hidden_activation": "__import__"}, "network and hidden_activation must be"),
        ({"layer_norm": 1}, "layer_norm and scaled_observations must be true or false"),
        ({"scaled_observations": "no"}, "layer_norm and scaled_observations must be true or false"),
        ({"layers": [4, 3, 12, 3, 2]}, "do not match the layers"),
        ({"layers": [4, 3, 12, 4, 12, 3, 2]}, "do not match a network of simba"),
        ({"layers": [4, 3, 2]}, "do not match a network of simba"),
        ({"layers": [4, 2]}, "do not match a network of simba"),
        ({"layers": [4, *[3, 12] * 17, 3, 2]}, "do not match the rule: 2 to 35"),
    ],
)
def test_a_structure_that_is_no_structure_is_refused_in_a_sentence(tmp_path, changes, said):
    made(STRUCTURES["simba"])[0].save(tmp_path)
    file = tmp_path / DESCRIPTION_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=said):
        Policy.load(tmp_path)


def test_a_policy_that_lacks_what_its_description_says_is_refused(tmp_path):
    made(STRUCTURES["simba"])[0].save(tmp_path)
    tensors = safetensors.numpy.load((tmp_path / WEIGHTS_FILE).read_bytes())
    (tmp_path / WEIGHTS_FILE).write_bytes(safetensors.numpy.save({k: v for k, v in tensors.items() if k != "3.w"}))
    with pytest.raises(UserError, match=r"'3\.w' is missing"):
        Policy.load(tmp_path)


# ---------------------------------------------------------------------------------------------------------------- health


def test_a_dead_unit_has_no_slope_for_any_input():
    inputs, w = np.linspace(-1, 1, 9, dtype=np.float32)[:, None], np.ones((1, 4), np.float32)
    head = Layer(np.ones((4, 1), np.float32), np.zeros(1, np.float32))
    # Per activation: biases of units, and how many of the four are dead.
    cases = {"relu": ([-2, -1.01, -0.5, 2], 2), "tanh": ([-9, -4, 0.5, 9], 2), "elu": ([-9, -7, -5, 9], 1)}
    for activation, (biases, dead) in cases.items():
        mlp = (Layer(w, np.float32(biases)), head)
        assert health.dead_share(mlp, inputs, Structure("mlp", activation)) == dead / 4, activation
    assert np.isnan(health.dead_share((Layer(w, np.zeros(4, np.float32)), head), inputs[:0], PLAIN))
    simba = problem(STRUCTURES["simba"], 1, np.float32)[0]
    block = Layer(simba[3].w, jnp.where(jnp.arange(12) < 9, -1e3, simba[3].b))
    seen = np.random.default_rng(0).normal(size=(200, IN)).astype(np.float32)
    assert health.dead_share((*simba[:3], block, *simba[4:]), seen, STRUCTURES["simba"]) >= 9 / 12


# ------------------------------------------------------------------------------------------------- runs, and what is refused


TINY = {"steps": 90, "interval": 45, "learning_starts": 20, "episodes": 1, "final_episodes": 1, "batch_size": 32}
TINY |= {"actor_layers": (6,), "critic_layers": (6,)}


def silent(_):
    pass


@pytest.mark.slow
def test_two_processes_are_as_one(tmp_path):
    run = Run("InvertedPendulum-v4", mix={"adam": 1, "sac:kfac": 1}, network="simba", **TINY)
    for workers in (1, 2):
        train(run, tmp_path / str(workers), note=silent, workers=workers)
    assert differences(tmp_path / "1", tmp_path / "2") == []


def test_a_run_keeps_its_structure_in_policies_and_starts(tmp_path):
    run = Run("InvertedPendulum-v4", mix={"sac:adam": 1}, network="simba", normalize_observations=True, **TINY)
    result = train(run, tmp_path / "run", note=silent)
    host = Host([run], [0])
    facts, obs = host.facts, np.random.default_rng(0).normal(size=(5, 4))
    best, latest = Policy.load(tmp_path / "run" / "best"), policies.of_member(tmp_path / "run", 0, facts)
    for policy in (result.policy, best, latest):
        assert policy.structure == Structure("simba")
        assert [len(b) for _, b in policy.weights] == [6, 24, 6, 1]
    np.testing.assert_array_equal(best.unit_action(obs), result.policy.unit_action(obs))
    learner = host.group_of(0).learner(0)
    begun = starting.with_policy(learner, best, "sac:adam", 1, Structure("simba"))
    assert oracles.same(begun.actor[:-1], tuple(Layer(*pair) for pair in best.weights[:-1]))
    host.close()
    for changes, said in (
        (
            {"network": "mlp"},
            "the actor of init_from is simba with relu, and that of members of the kind sac:adam is mlp with relu; ",
        ),
        ({"activation": "tanh"}, "and that of members of the kind sac:adam is simba with tanh; set activation to relu, or start"),
        ({"actor_layers": (7,)}, "has an actor of 4-6-24-6-1, and members of the kind sac:adam have 4-7-28-7-1"),
    ):
        settings = TINY | {"network": "simba"} | changes
        other = Run(
            "InvertedPendulum-v4", mix={"sac:adam": 1}, init_from=str(tmp_path / "run"), normalize_observations=True, **settings
        )
        with pytest.raises(UserError, match=said):
            train(other, tmp_path / "other", note=silent)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("same", [True, False])
def test_networks_of_other_structures_have_nothing_in_common_whatever_their_sizes(same):
    """An MLP of 6-24-6 has the sizes of a simba network of one block."""
    own = {} if same else {"sac": {"network": "mlp", "actor_layers": (6, 24, 6), "critic_layers": (6, 24, 6)}}
    run = Run("InvertedPendulum-v4", mix={"adam": 1, "sac:adam": 1}, network="simba", algorithms=own, **TINY)
    host = Host([run], [0, 1])
    host.take(0, host.give(1), reset=True, interval=1)
    mine, theirs = (host.group_of(lane).learner(lane) for lane in (0, 1))
    assert [layer.w.shape for layer in mine.critics[0]] == [layer.w.shape for layer in theirs.critics[0]]
    assert oracles.same(mine.critics, theirs.critics) == same
    assert oracles.same(mine.actor[:-1], theirs.actor[:-1]) == same
    host.close()


def test_settings_are_common_or_an_algorithms_own():
    run = Run("Hopper-v4", mix={"adam": 1, "sac:adam": 1}, activation="elu", algorithms={"sac": {"layer_norm": True}})
    assert [Structure.of(run.settings_of(kind)) for kind in run.mix] == [Structure("mlp", "elu"), Structure("mlp", "elu", True)]
    assert Structure.of(Run("Hopper-v4").settings_of("adam")) == PLAIN


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation": "bogus"}, "activation is 'bogus'; it must be 'relu', 'tanh' or 'elu', such as 'tanh'"),
        ({"network": "resnet"}, "network is 'resnet'; it must be 'mlp' or 'simba'"),
        ({"layer_norm": "yes"}, "layer_norm is 'yes'; it must be true or false"),
        (
            {"network": "simba"},
            "actor_layers is 400 300, and network is 'simba'; it must be one width for each residual block, all equal",
        ),
        ({"network": "simba", "actor_layers": (8, 8), "critic_layers": (8, 4)}, "critic_layers is 8 4, and network is 'simba'"),
        (
            {"network": "simba", "actor_layers": (8,), "critic_layers": (8,), "layer_norm": True},
            "layer_norm is true, which changes",
        ),
        ({"layer_norm": True, "actor_layers": (8, 1)}, "actor_layers is 8 1; a normalised layer must have at least 2 units"),
        ({"network": "simba", "actor_layers": (1,), "critic_layers": (8,)}, "actor_layers is 1; a normalised layer must have"),
        (
            {"network": "simba", "actor_layers": (8,), "critic_layers": (8192,)},
            "which makes 536,870,912 weights of it; it must be at",
        ),
        (
            {"algorithms": {"td3": {"activation": "swish"}}},
            "algorithms.td3.activation is 'swish'; it must be 'relu', 'tanh' or 'elu'",
        ),
    ],
)
def test_a_mistake_is_one_sentence(settings, said):
    with pytest.raises(UserError, match=said):
        Run("Hopper-v4", **settings)


def test_the_command_line_says_it_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "Hopper-v4", "--activation", "bogus", "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "activation is 'bogus'; it must be 'relu', 'tanh' or 'elu'" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
