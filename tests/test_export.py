"""Exported policies act as the policy does, each in its own runtime; and what cannot be written is one sentence."""

import importlib
import io
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

import evolute
from evolute import Run, UserError, networks, train
from evolute.commands import cli
from evolute.environments.gym import Environment
from evolute.export import operations, standalone
from evolute.export.operations import difference, operations_of
from evolute.policy import Policy, Scaling
from evolute.structure import Structure, sizes

SIZES = {
    **{"actor_layers": (16, 8), "critic_layers": (8,), "batch_size": 32, "learning_starts": 20, "episodes": 1},
    **{"final_episodes": 2, "steps": 60, "interval": 60},
}
MIX = {"adam": 1, "sac:adam": 1, "ddpg:adam": 1}
# By type of the actions: bounds that are no unit, no mirror of each other, and of several orders of magnitude.
LOW, HIGH = np.array([[-3.0, 0.0, -100.0], [-0.01, 2.0, 5.0]]), np.array([[3.0, 0.5, 7.0], [0.02, 2.0, 6.0]])


STRUCTURES = [
    Structure(),
    Structure(activation="tanh"),
    Structure(activation="elu"),
    Structure(activation="elu", layer_norm=True),
    Structure("simba"),
    Structure("simba", "tanh"),
]
of_every_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=str)


def made(dtype="float32", scaled=False, structure=STRUCTURES[0]):
    rng = np.random.default_rng(0)
    # A mean far from zero and a deviation of next to nothing, as an observation has that hardly changes.
    scaling = Scaling(np.array([300.0, 5.0, 0, -2, 0.1]), np.array([1.0, 1e4, 1, 0.1, 3])) if scaled else None
    mlp = networks.init(rng, sizes(5, (16, 16), 6, structure))
    weights = [(np.asarray(w), np.asarray(b)) for w, b in mlp]
    return Policy(weights, LOW.ravel().astype(dtype), HIGH.ravel().astype(dtype), "any-v0", scaling, structure)


CASES = [(dtype, scaled) for dtype in ("float16", "float32", "float64") for scaled in (False, True)]
of_all = pytest.mark.parametrize(("dtype", "scaled"), CASES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of every algorithm with scaled observations, on bounds that are no unit."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(Run("InvertedPendulum-v4", mix=MIX, normalize_observations=True, **SIZES), folder, note=lambda _: None)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def export(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", *map(str, words)])
    return ended.value.code, *capsys.readouterr()


def exported(capsys, *words):
    code, out, err = export(capsys, *words)
    assert (code, err) == (0, "")
    return out


# --------------------------------------------------------------------------------------------------------- operations


@of_all
def test_operations_of_a_policy_are_those_it_computes(dtype, scaled):
    def act(obs):
        x = obs
        for operation in operations_of(made(dtype, scaled)):
            match operation:
                case operations.Scale(mean, factor, limit):
                    x = np.clip((x - mean) * factor, -limit, limit)
                case operations.Affine(w, b):
                    x = x @ w + b
                case operations.Relu():
                    x = np.maximum(x, 0)
                case operations.Tanh():
                    x = np.tanh(x)
                case operations.Units(low, high):
                    x = low + 0.5 * (x + 1.0) * (high.astype(np.float64) - low)
        return x

    assert difference(made(dtype, scaled), act, "numpy") < (1e-2 if dtype == "float16" else 1e-5)


def test_an_export_that_acts_otherwise_is_refused():
    policy = made(scaled=True)
    without = Policy(policy.weights, policy.low, policy.high, policy.env)
    with pytest.raises(UserError, match="--to numpy gives other actions than the policy"):
        difference(policy, without, "numpy")
    with pytest.raises(UserError, match="other actions"):
        difference(policy, lambda obs: policy(obs) * np.nan, "numpy")
    with pytest.raises(UserError, match="--to onnx cannot express a network with tuple"):
        operations.refuse((), "onnx")


# --------------------------------------------------------------------------------------------------- ONNX and NumPy


@of_all
def test_onnx_acts_as_the_policy(dtype, scaled):
    onnx_model = pytest.importorskip("evolute.export.onnx_model", exc_type=ImportError)
    policy = made(dtype, scaled)
    content = onnx_model.model(policy)
    obs = operations.observations_for(policy)
    actions = onnx_model.actions(content, obs)
    assert actions.dtype == policy.low.dtype
    assert ((policy.low <= actions) & (actions <= policy.high)).all()
    assert difference(policy, lambda obs: onnx_model.actions(content, obs), "onnx") < (1e-2 if dtype == "float16" else 1e-5)


def test_onnx_has_the_largest_bounds_there_are():
    onnx_model = pytest.importorskip("evolute.export.onnx_model", exc_type=ImportError)
    largest = np.finfo(np.float64).max
    policy = Policy(made().weights, np.full(6, -largest), np.full(6, largest), "any-v0")
    content = onnx_model.model(policy)
    assert difference(policy, lambda obs: onnx_model.actions(content, obs), "onnx") < 1e-5


@of_all
def test_the_file_for_numpy_acts_as_the_policy(tmp_path, dtype, scaled):
    policy = made(dtype, scaled)
    policy.save(tmp_path)
    loaded = standalone.load(tmp_path)
    obs = operations.observations_for(policy)
    assert difference(policy, loaded, "numpy") < (1e-2 if dtype == "float16" else 1e-5)
    assert loaded(obs).dtype == policy.low.dtype
    assert loaded(obs[0]).shape == (6,)


def test_the_file_for_numpy_is_short_and_refuses_what_it_does_not_know(tmp_path):
    assert len(Path(standalone.__file__).read_text().splitlines()) < 60
    made().save(tmp_path, {"format": "evolute policy 9"})
    with pytest.raises(ValueError, match="cannot compute"):
        standalone.load(tmp_path)
    made().save(tmp_path, {"hidden_activation": "sine"})
    with pytest.raises(ValueError, match="cannot compute"):
        standalone.load(tmp_path)


def test_a_network_that_the_file_for_numpy_does_not_know_is_refused(run, capsys, monkeypatch):
    save = Policy.save
    monkeypatch.setattr(Policy, "save", lambda self, folder, about: save(self, folder, {**about, "format": "evolute policy 9"}))
    code, _, err = export(capsys, run, "--to", "numpy")
    assert (code, err) == (2, "evolute: --to numpy and --to hub cannot express the policy's network; choose another target.\n")
    assert list((run / "exports").iterdir()) == []


def test_the_file_for_numpy_runs_without_evolute(run, capsys, tmp_path):
    out = exported(capsys, run, "--to", "numpy", "--out", tmp_path / "away")
    assert "policy.py needs NumPy alone; its actions are the same" in out
    code = (
        "import sys; sys.modules['evolute'] = sys.modules['safetensors'] = None\n"
        "from policy import load; import numpy as np; print(load()(np.full(4, 0.1)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "away", capture_output=True, text=True, check=False)
    expected = evolute.load_policy(run)(np.full(4, 0.1))
    assert json.loads(done.stdout or "null") == pytest.approx(expected.tolist(), rel=1e-6), done.stderr


@of_every_structure
@pytest.mark.parametrize("scaled", [False, True])
def test_every_structure_acts_the_same_in_onnx_and_numpy(tmp_path, structure, scaled):
    policy = made(scaled=scaled, structure=structure)
    policy.save(tmp_path)
    assert difference(policy, standalone.load(tmp_path), "numpy") < 1e-5
    onnx_model = pytest.importorskip("evolute.export.onnx_model", exc_type=ImportError)
    content = onnx_model.model(policy)
    assert difference(policy, lambda obs: onnx_model.actions(content, obs), "onnx") < 1e-5


# -------------------------------------------------------------------------------------------------------------- SB3


def zips():
    return pytest.importorskip(
        "evolute.export.sb3", reason="torch and Stable-Baselines3 are no part of the tests' dependencies", exc_type=ImportError
    )


@pytest.mark.parametrize("algorithm", ["td3", "ddpg", "sac"])
@of_all
def test_a_zip_acts_as_the_policy(algorithm, dtype, scaled):
    sb3, policy = zips(), made(dtype, scaled)
    content = sb3.archive(policy, algorithm, Box(-np.inf, np.inf, (5,)), Box(LOW.astype(dtype), HIGH.astype(dtype), dtype=dtype))
    model = sb3.loaded(content, algorithm)
    for deterministic in (True, False):
        apart = difference(policy, lambda obs, how=deterministic: model.predict(obs, deterministic=how)[0], "sb3")
        assert apart < (1e-2 if dtype == "float16" else 1e-5)
    action, _ = model.predict(np.zeros(5, np.float32))
    assert action.shape == (2, 3)


@of_every_structure
def test_a_zip_acts_as_the_policy_of_any_structure_or_is_refused(structure):
    sb3, spaces = zips(), (Box(-np.inf, np.inf, (5,)), Box(LOW.astype(np.float32), HIGH.astype(np.float32)))
    policy = made(structure=structure)
    if structure.layer_norm or structure.network == "simba":
        with pytest.raises(UserError, match=r"--to sb3 cannot express a network with (Normalise|Residual)"):
            sb3.archive(policy, "sac", *spaces)
        return
    for algorithm in ("td3", "sac"):
        model = sb3.loaded(sb3.archive(policy, algorithm, *spaces), algorithm)
        assert difference(policy, lambda obs, model=model: model.predict(obs)[0], "sb3") < 1e-5
    if structure.activation != "relu":
        with pytest.raises(UserError, match=f"by rectified units alone, and the network's are {structure.activation}"):
            sb3.archive(made(scaled=True, structure=structure), "td3", *spaces)


def test_layers_that_scale_and_clip_are_exact_within_the_limit_and_near_beyond_it():
    """Without torch: the rectified network by NumPy."""
    layers_of = zips().layers_of
    policy = made(scaled=True)
    obs = operations.observations_for(policy)
    x = obs
    for w, b in layers_of(operations_of(policy))[:2]:
        x = np.maximum(x @ w + b, 0.0)
    p, n, over, under = np.split(x, 4, axis=1)
    expected = policy.scaling.apply(obs)
    inside = abs(expected) < 10.0
    assert inside.any()
    assert not inside.all()
    np.testing.assert_array_equal((p - n)[inside], expected[inside])
    np.testing.assert_allclose(p - n - over + under, expected, atol=1e-5)


# ----------------------------------------------------------------------------------------------------- whole episodes


def played(env, act, seed=3):
    """Return observations, actions and the return of an episode in Gymnasium's own environment."""
    obs, _ = env.reset(seed=seed)
    seen, actions, total, ended = [], [], 0.0, False
    while not ended:
        seen.append(obs)
        actions.append(act(obs))
        obs, reward, terminated, truncated, _ = env.step(actions[-1])
        total, ended = total + float(reward), terminated or truncated
    return np.array(seen), np.array(actions), total


@pytest.mark.parametrize("member", [0, 1, 2])
@pytest.mark.parametrize("target", ["onnx", "numpy", "sb3"])
def test_whole_episodes_are_the_same(run, capsys, tmp_path, member, target):
    policy, out = evolute.load_policy(run, member), tmp_path / "exported"
    if target == "sb3":
        zips()
    elif target == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
    said = exported(capsys, run, "--to", target, "--member", member, "--out", out)
    assert f"the latest policy of member {member} ({list(MIX)[member]})" in said
    if target == "onnx":
        session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])

        def act(obs):
            return session.run(None, {"observation": obs[None].astype(np.float32)})[0][0]
    elif target == "numpy":
        act = standalone.load(out)
    else:
        algorithm = ("TD3", "SAC", "DDPG")[member]
        env = gymnasium.make("InvertedPendulum-v4")
        # With an environment, whose spaces must be those in the zip.
        model = getattr(importlib.import_module("stable_baselines3"), algorithm).load(io.BytesIO(out.read_bytes()), env=env)

        def act(obs):
            return model.predict(obs)[0]

    env = gymnasium.make("InvertedPendulum-v4")
    seen, actions, total = played(env, policy)
    assert len(seen) > 3
    np.testing.assert_allclose([act(obs) for obs in seen], actions, atol=1e-5)
    own_seen, _, own_total = played(env, act)
    assert own_total == pytest.approx(total, abs=1e-4)
    np.testing.assert_allclose(own_seen, seen, atol=1e-4)


# ------------------------------------------------------------------------------------------------------ other targets


def test_weights_are_a_policy_of_any_member(run, capsys, tmp_path):
    exported(capsys, run, "--to", "safetensors", "--member", "2", "--out", tmp_path / "weights")
    own, there = evolute.load_policy(run, 2), evolute.load_policy(tmp_path / "weights")
    assert all(np.array_equal(a, b) for x, y in zip(own.pairs, there.pairs, strict=True) for a, b in zip(x, y, strict=True))
    assert json.loads((tmp_path / "weights" / "policy.json").read_text())["kind"] == "ddpg:adam"


def test_a_model_card_is_read_by_the_hub(run, capsys, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    (run / "videos").mkdir()
    (run / "videos" / "best.mp4").write_bytes(b"a video")
    exported(capsys, run, "--to", "hub", "--license", "mit", "--out", tmp_path / "hub")
    card = hub.ModelCard.load(tmp_path / "hub" / "README.md")
    best = json.loads((run / "result.json").read_text())["best"]
    assert (card.data.license, card.data.library_name) == ("mit", "evolute")
    [result] = card.data.eval_results
    assert result.dataset_name == "InvertedPendulum-v4"
    assert result.metric_value == f"{best['return_mean']:.2f} +/- {best['return_std']:.2f}"
    assert "2 deterministic episodes" in card.text
    assert (tmp_path / "hub" / "replay.mp4").read_bytes() == b"a video"
    assert standalone.load(tmp_path / "hub")(np.zeros(4)).shape == (1,)


def test_a_model_card_of_a_member_says_that_its_figure_flatters(run, capsys):
    pytest.importorskip("huggingface_hub")
    assert "note: there is no video" in exported(capsys, run, "--to", "hub", "--member", "0")
    text = (run / "exports" / "member-0-hub" / "README.md").read_text()
    assert "which flatters it" in text
    assert "replay.mp4" not in text


def test_text_of_a_run_folder_is_code_in_a_model_card(run, capsys):
    hub = pytest.importorskip("huggingface_hub")
    about = json.loads((run / "best" / "policy.json").read_text())
    about |= {"env": "<script>`x`</script>", "kind": "a`\n---\nlicense: gpl\n# b"}
    (run / "best" / "policy.json").write_text(json.dumps(about))
    exported(capsys, run, "--to", "hub")
    text = (run / "exports" / "best-hub" / "README.md").read_text()
    card = hub.ModelCard(text)
    assert card.data.license == "apache-2.0"
    assert "<script>" not in card.text.replace("`<script>?x?</script>`", "")


# ----------------------------------------------------------------------------------------------------------- mistakes


def test_what_exists_is_not_written_over(run, capsys, tmp_path):
    out = tmp_path / "mine"
    out.write_text("mine")
    code, _, err = export(capsys, run, "--to", "numpy", "--out", out)
    assert (code, err) == (2, f"evolute: --out is {str(out)!r}, which exists; remove it, or name another.\n")
    assert out.read_text() == "mine"
    exported(capsys, run, "--to", "numpy")
    assert export(capsys, run, "--to", "numpy")[0] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--to is not given; choose from onnx, sb3, numpy, safetensors, hub, minari."),
        (("--to", "onxx"), "--to is 'onxx' (did you mean 'onnx'?); choose from"),
        (("--to", "numpy", "--member", "last"), "--member is last; it must be best, or the number of a member, such as 0."),
        (("--to", "numpy", "--member", "best0"), "--member is best0 (did you mean 'best'?); it must be best, or the number"),
        (("--to", "numpy", "--member", "-1"), "--member is -1; it must be best, or the number of a member"),
        (("--to", "numpy", "--member", "7"), "has the members 0 to 2"),
        (("--to", "hub", "--license", "a: b"), "--license is 'a: b'; it must be a name of the Hugging Face Hub"),
    ],
)
def test_a_mistake_is_one_sentence(run, capsys, words, said):
    code, out, err = export(capsys, run, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not (run / "exports").exists()


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [
        ("onnx", "onnx", "export"),
        ("sb3", "stable_baselines3", "sb3"),
        ("hub", "huggingface_hub", "export"),
        ("minari", "minari", "export"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(run, capsys, monkeypatch, target, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = export(capsys, run, "--to", target)
    assert code == 2
    assert (
        f"--to {target} needs the package '{module}', which is not installed; install it with: pip install 'evolute[{extra}]'."
        in err
    )
    assert not (run / "exports").exists()


def test_a_full_disk_leaves_nothing_behind(run, capsys, tmp_path):
    # Files may have so many bytes, which is how a test fills a disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        code, _, err = export(capsys, run, "--to", "numpy", "--out", tmp_path / "there" / "away")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert "cannot be written: File too large" in err
    assert list((tmp_path / "there").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(run, capsys, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = export(capsys, run, "--to", "numpy", "--out", tmp_path / "file" / "away")
    assert code == 2
    assert "away' cannot be written: " in err
    code, _, err = export(capsys, run, "--to", "numpy", "--out", tmp_path / ("x" * 300))
    assert code == 2
    assert "cannot be written: File name too long" in err


def test_a_link_in_a_run_folder_is_not_followed(run, capsys, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run / "exports").symlink_to(tmp_path / "elsewhere")
    code, _, err = export(capsys, run, "--to", "numpy")
    assert code == 2
    assert "is a symbolic link" in err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_kind_that_a_file_invents_has_no_zip(run, capsys):
    zips()
    about = json.loads((run / "best" / "policy.json").read_text())
    (run / "best" / "policy.json").write_text(json.dumps(about | {"kind": "os:system"}))
    code, _, err = export(capsys, run, "--to", "sb3")
    assert (code, err) == (2, "evolute: --to sb3 has no class for the kind 'os:system'; choose another target.\n")


def test_modules_that_a_file_names_are_not_imported(run, capsys):
    zips()
    about = json.loads((run / "best" / "policy.json").read_text())
    (run / "best" / "policy.json").write_text(json.dumps(about | {"env": "antigravity:Env-v0"}))
    code, _, err = export(capsys, run, "--to", "sb3")
    assert code == 2
    assert "--allow-import antigravity" in err
    assert "antigravity" not in sys.modules


def test_a_policy_is_loaded_from_a_run_and_from_its_folder(run):
    best = Policy.load(run / "best")
    for path in (run, str(run), run / "best"):
        assert np.array_equal(evolute.load_policy(path).weights[0][0], best.weights[0][0])
    assert evolute.load_policy(run, 1)(np.zeros(4)) != evolute.load_policy(run, member=2)(np.zeros(4))
    assert Environment("InvertedPendulum-v4").shape.observations == 4
    for path, member in ((run, 3), (run, -1), (run / "best", 0), (run / "nowhere", None), (run / "checkpoints", None)):
        with pytest.raises(UserError):
            evolute.load_policy(path, member)
