"""Any member's latest policy, from a run's newest checkpoint."""

import json

import numpy as np
import pytest

from evolute import Run, UserError, train
from evolute.commands import cli
from evolute.environments.gym import Environment
from evolute.policy import Policy
from evolute.runs.policies import of_member

SIZES = {
    "actor_layers": (8,),
    "critic_layers": (8,),
    "batch_size": 32,
    "learning_starts": 20,
    "episodes": 1,
    "final_episodes": 1,
    "steps": 60,
    "interval": 60,
}


def run_in(folder, normalize=False):
    mix = {"adam": 1, "kfac": 1, "sac:adam": 1, "ddpg:adam": 1}
    train(Run("InvertedPendulum-v4", mix=mix, normalize_observations=normalize, **SIZES), folder, note=lambda _: None)
    return folder


@pytest.mark.parametrize("normalize", [False, True])
def test_the_best_of_the_last_interval_is_a_members_policy(tmp_path, normalize):
    folder, facts = run_in(tmp_path / "run", normalize), Environment("InvertedPendulum-v4").facts
    best, slot = Policy.load(folder / "best"), json.loads((folder / "best" / "policy.json").read_text())["member"]
    policies = [of_member(folder, n, facts) for n in range(4)]
    for own, kept in zip(policies[slot].pairs, best.pairs, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(own, kept, strict=True))
    obs = np.ones(4, np.float32)
    assert len({float(policy.unit_action(obs)[0]) for policy in policies}) == 4


def evaluate(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", *map(str, words)])
    return ended.value.code, *capsys.readouterr()


def test_evaluate_plays_a_member(tmp_path, capsys):
    folder = run_in(tmp_path / "run")
    code, out, err = evaluate(capsys, folder, "--member", "2", "--episodes", "2")
    assert (code, err) == (0, "")
    assert "over 2 completed episodes" in out


def test_a_member_that_is_not_there_is_refused(tmp_path, capsys):
    folder = run_in(tmp_path / "run")
    code, _, err = evaluate(capsys, folder, "--member", "4")
    assert (code, err) == (2, f"evolute: --member is 4; the run in {str(folder)!r} has the members 0 to 3.\n")
    for path in (folder / "checkpoints").glob("*.json"):
        path.unlink()
    code, _, err = evaluate(capsys, folder, "--member", "0")
    assert code == 2
    assert "there is no checkpoint in" in err
    assert evaluate(capsys, folder, "--member", "-1")[0] == 2


def test_a_checkpoint_of_another_environment_is_refused(tmp_path):
    folder = run_in(tmp_path / "run")
    with pytest.raises(UserError, match="does not fit the environment 'InvertedPendulum-v4' as it is installed here"):
        of_member(folder, 0, Environment("Hopper-v4").facts)
