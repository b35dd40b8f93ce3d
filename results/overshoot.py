"""Does K-FAC overshoot? A fitted critic goes on with each optimizer: fixed replay, fixed targets, five widths.

python results/overshoot.py             prints the table of overshoot.md (half an hour on two cores)
python results/overshoot.py '`kfac`'    prints the rows that are named

An Adam agent plays 20,000 steps of HalfCheetah-v4; its targets (E1, without target noise) are kept as they are. Critics of each
width are fitted to them by Adam in 4,000 updates and then go on for 160 updates of 256 transitions. A figure is the squared error
on 4,000 transitions that no update sees, as a share of the targets' variance: the worst on the way, and at the end.
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np

from evolute import Run, engine, networks, optimizers
from evolute.algorithms import actor_critic, td3
from evolute.hyperparameters import Hyperparameters
from evolute.networks import MLP
from evolute.optimizers import Rates, factors
from evolute.optimizers.kfac import KFACOptions, KFACState
from evolute.training.replay import batch_of

WIDTHS = ((64, 64), (128, 128), (256, 256), (400, 300), (800, 600))
HELD_OUT, FITTED, UPDATES, BATCH = 4_000, 4_000, 160, 256
INF = float("inf")
NO_MOMENTUM = {"momentum": 0.0}

# Name: kind, its options, and what is done to its rates: nothing, the rate divided by L, or the damping times tr(A) tr(B).
TRIED = {
    "Adam goes on": ("adam", {}, ""),
    "`kfac`": ("kfac", {}, ""),
    "`kfac`, no momentum": ("kfac", NO_MOMENTUM, ""),
    "`kfac`, no bound": ("kfac", {"clip": INF}, ""),
    "no bound, no momentum": ("kfac", {"clip": INF} | NO_MOMENTUM, ""),
    "no bound, rate / L": ("kfac", {"clip": INF}, "rate"),
    "no bound, rate / L, no momentum": ("kfac", {"clip": INF} | NO_MOMENTUM, "rate"),
    "no bound, relative damping": ("kfac", {"clip": INF, "damping": 1e-3}, "damping"),
    "no bound, relative damping, no momentum": ("kfac", {"clip": INF, "damping": 1e-3} | NO_MOMENTUM, "damping"),
    "bound, rate / L": ("kfac", {}, "rate"),
    "bound, relative damping": ("kfac", {"damping": 1e-3}, "damping"),
    "bound, rate / L, relative damping": ("kfac", {"damping": 1e-3}, "rate and damping"),
    "`kfac_empirical`": ("kfac_empirical", {}, ""),
    "`kfac_empirical`, no bound": ("kfac_empirical", {"clip": INF}, ""),
    "`diag_ggn`": ("diag_ggn", {}, ""),
}


class Data:
    """Transitions with fixed targets, the last of them held out."""

    def __init__(self):
        layers = (128, 128)
        run = Run(
            "HalfCheetah-v4",
            steps=20_000,
            interval=5_000,
            actor_layers=layers,
            critic_layers=layers,
            learning_starts=2_000,
            episodes=1,
            final_episodes=1,
        )
        [state], [host] = engine.start([run])
        engine.go_on([state], [host], [None], None)
        [member] = host.members.values()
        self.shape = member.environment.shape
        rows = member.replay.transitions()
        everything = batch_of(jnp.asarray(rows), jnp.ones(len(rows)), *self.shape)
        hyper = Hyperparameters(*map(jnp.float32, member.hyperparameters))._replace(target_noise=jnp.float32(0))
        learner = host.group_of(member.lane).take(member.lane)
        y = td3.targets(learner, everything, hyper, jnp.zeros((len(rows), self.shape.actions)))
        order = np.random.default_rng(0).permutation(len(rows))
        self.rows, self.y = rows[order], np.asarray(y)[order]
        self.variance = float(np.var(self.y[-HELD_OUT:]))
        self.held_out = self.batch(np.arange(len(rows) - HELD_OUT, len(rows)))

    def batch(self, chosen):
        weight = jnp.full(len(chosen), 1 / len(chosen), jnp.float32)
        return batch_of(jnp.asarray(self.rows[chosen]), weight, *self.shape), jnp.asarray(self.y[chosen])

    def draw(self, rng):
        return self.batch(rng.integers(len(self.y) - HELD_OUT, size=BATCH))


def relative(state: KFACState, damping):
    """Return the mean over layers of damping tr(A) tr(B), as the one damping of the network."""
    products = [jnp.trace(A) * jnp.trace(B) / state.weight**2 for A, B in zip(state.A, state.B, strict=True)]
    return damping * sum(products) / len(products)


def overshoot_factor(state: KFACState, damping):
    """Return L = Σ_l d_A d_B / N with d_M = tr(M_λ⁻¹ M): how often a full step removes the batch's residual."""
    total = 0.0
    for A, B, root in zip(state.A, state.B, state.roots, strict=True):
        A, B = A / state.weight, B / state.weight
        inverse, _ = factors.invert(A, B, damping, root, False)
        total += jnp.vdot(inverse.A, A) * jnp.vdot(inverse.B, B)
    return jnp.maximum(total / BATCH, 1.0)


def go_on(data: Data, critic: MLP, kind: str, given: dict, adjusted: str, updates: int = UPDATES, seed: int = 1):
    """Return the held-out errors after each update, and the critic."""
    options = optimizers.resolve_options(kind, "critic", given, 1e-3)
    optimizer, rng = optimizers.build(kind, options), np.random.default_rng(seed)
    rates = Rates(jnp.float32(options["learning_rate"]), jnp.float32(options.get("damping", 0)))

    @jax.jit
    def update(critic, state, batch, y, step, rates):
        gradient, tape, _, _ = actor_critic.critic_tape(critic, batch, y)
        if isinstance(state, KFACState):
            # The factors as they are; before the first measurement nothing moves.
            known = state.weight > 0
            damping = jnp.where(known, relative(state, rates.damping), 1.0) if "damping" in adjusted else rates.damping
            over = jnp.where(known, overshoot_factor(state, damping), 1.0) if "rate" in adjusted else 1.0
            rates = Rates(rates.learning_rate / over, damping)
        critic, state, _ = optimizer.update(gradient, state, critic, rates, tape, step)
        return critic, state, error(critic)

    def error(critic):
        batch, y = data.held_out
        return jnp.mean((actor_critic.q_values(critic, batch.obs, batch.action) - y) ** 2) / data.variance

    state, errors = optimizer.init(critic), [float(error(critic))]
    for _ in range(optimizer.burn_in):
        _, state, _ = update(critic, state, *data.draw(rng), jnp.int32(0), rates._replace(learning_rate=jnp.float32(0)))
    for step in range(updates):
        critic, state, after = update(critic, state, *data.draw(rng), jnp.int32(step), rates)
        errors.append(float(after))
    return errors, critic


def main():
    data = Data()
    sizes = data.shape.observations + data.shape.actions
    fitted = {}
    for layers in WIDTHS:
        critic = jax.tree.map(jnp.asarray, networks.init(np.random.default_rng(3), [sizes, *layers, 1]))
        errors, fitted[layers] = go_on(data, critic, "adam", {}, "", FITTED)
        print("fitted", layers, f"{errors[-1]:.4f}", flush=True)
    defaults = {f.name: f.default for f in dataclasses.fields(KFACOptions) if f.default is not dataclasses.MISSING}
    print(defaults, optimizers.resolve_options("kfac", "critic", {}, 1e-3))
    print("| worst on the way; at the end | " + " | ".join("-".join(map(str, layers)) for layers in WIDTHS) + " |")
    print("| --- |" + " --- |" * len(WIDTHS))
    starts = [go_on(data, fitted[layers], "adam", {}, "", 0)[0][0] for layers in WIDTHS]
    print("| start | " + " | ".join(f"{start:.4f}" for start in starts) + " |", flush=True)
    for name, (kind, given, adjusted) in TRIED.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        cells = []
        for layers in WIDTHS:
            errors, _ = go_on(data, fitted[layers], kind, given, adjusted)
            cells.append(f"{max(errors):.3g}; {errors[-1]:.3g}" if np.isfinite(errors).all() else "not finite")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
