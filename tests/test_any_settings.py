"""Settings drawn at random, all together: a run that was stopped and resumed, or dealt over processes, is the run itself."""

import random

import pytest

from evolute import Run, resume, train
from faults import differences
from test_resume import SMALL, quiet, stopped

KINDS = (
    *("adam", "muon", "adam/kfac", "kfac", "kfac_empirical", "diag_ggn"),
    *("ddpg:adam", "ddpg:kfac", "sac:adam", "sac:kfac", "sac:kfac_empirical", "sac:diag_ggn"),
)
CHOICES = {
    "env": ("InvertedPendulum-v4", "Hopper-v4", "Reacher-v4", "InvertedDoublePendulum-v4"),
    "steps": (250, 260, 300),
    "interval": (50, 60, 100),
    "learning_starts": (30, 60, 110),
    "buffer_size": (45, 120, 1_000),
    "network": ("mlp", "mlp", "simba"),
    "activation": ("relu", "tanh", "elu"),
    "layer_norm": (False, True),
    "n_step": (1, 2, 5),
    "normalize_observations": (False, True),
    "reward_scale": (1.0, 0.1),
    "carry_episodes": ("auto", "always", "never"),
    "keep_environments": (False, True),
    "time_limit": (0.0, 0.0, 5.0),
    "strategy": ("pbt", "pbt", "pb2", "none", "blind"),
    "copy_optimizer_state": (True, False),
    "initial": ({}, {}, {"actor_learning_rate": (1e-4, 1e-2)}),
    "checkpoint_every": (1, 2),
    "steps_per_round": (1, 1, 3),
    "placement": ("auto", "auto", "vmap"),
    "precision": ("float32", "float32", "bfloat16"),
    "seed": (0, 1, 2),
}


def drawn(rng):
    """Return a run with a value of every setting, each drawn by itself."""
    kinds = rng.sample(KINDS, rng.choice((1, 2, 3)))
    settings = {name: rng.choice(values) for name, values in CHOICES.items()}
    if rng.random() < 0.3:
        settings |= {"steps_per_interval": {kinds[0]: settings["interval"] // 2}, "shrink": rng.choice(("both", "gradient"))}
    return Run(mix={kind: rng.choice((1, 1, 2)) for kind in kinds}, **settings, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(12))
def test_a_run_is_the_same_however_it_came_to_its_end(tmp_path, number):
    rng = random.Random(number)
    run = drawn(rng)
    train(run, tmp_path / "whole")
    intervals = -(-run.steps // run.interval)
    stopped(run, tmp_path / "resumed", rng.randint(1, intervals))
    resume(tmp_path / "resumed", note=quiet)
    assert differences(tmp_path / "resumed", tmp_path / "whole") == []
    # One batch axis for members of one process is another program.
    if run.placement != "vmap":
        train(run, tmp_path / "dealt", workers=2)
        assert differences(tmp_path / "dealt", tmp_path / "whole") == []
