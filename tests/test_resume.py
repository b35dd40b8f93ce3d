"""A run that was stopped anywhere and resumed equals one that was not; and what a resume refuses."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from evolute import Run, UserError, engine, optimizers, resume, resumption, train
from evolute.environments import gym
from evolute.errors import Damaged
from evolute.evolution.base import Exploit, Strategy, ranked
from evolute.networks import Layer
from evolute.runs import checkpoint
from evolute.runs.folder import RunFolder
from evolute.runs.lock import locked
from evolute.training import arrays, rollout, storage
from evolute.training.replay import ReplayBuffer, Segment, Steps, fits
from faults import contents, differences

SMALL = {"actor_layers": (16,), "critic_layers": (16,), "batch_size": 16, "episodes": 1, "final_episodes": 1}
PLAIN = Run(
    "InvertedPendulum-v4",
    mix={"adam": 2, "diag_ggn": 1},
    steps=250,
    interval=50,
    learning_starts=60,
    buffer_size=120,
    perturb=("actor_learning_rate", "critic_damping"),
    **SMALL,
)
VARIANTS = {
    "plain": {},
    "curvature with a memory": {"mix": {"kfac": 1, "kfac_empirical": 1}},
    "one batch axis per kind": {"placement": "vmap"},
    "fewer steps for some": {"steps_per_interval": {"diag_ggn": 30}},
    "fewer gradient steps for some": {"steps_per_interval": {"diag_ggn": 30}, "shrink": "gradient"},
    "a checkpoint every other interval": {"checkpoint_every": 2},
    "an interval longer than the buffer": {"interval": 125, "buffer_size": 100},
    "several steps with one policy": {"steps_per_round": 4},
    "narrow products": {"precision": "bfloat16"},
    "one agent": {"mix": {"diag_ggn": 1}},
    "different starts": {"initial": {"actor_learning_rate": (1e-4, 1e-2), "batch_size": (8, 16, 32)}},
    "a strategy with a memory": {"strategy": "pb2", "steps": 600, "episodes": 1},
    "a control that selects by chance": {"strategy": "blind"},
    "optimizers of optax": {"mix": {"adam/sgd": 1, "muon": 1}},
    "residual blocks, and other networks": {
        "mix": {"adam": 1, "ddpg:kfac": 1, "sac:adam": 1},
        "network": "simba",
        "algorithms": {"sac": {"network": "mlp", "activation": "tanh", "layer_norm": True}},
        "perturb": ("tau",),
    },
    "several steps joined, over the ends of intervals": {"n_step": 3, "carry_episodes": "always"},
    "several algorithms": {"mix": {"adam": 1, "ddpg:adam": 1, "sac:adam": 1, "sac:kfac": 1}, "perturb": ("tau", "target_noise")},
}


class Stop(Exception):
    """Stands for whatever ends a process."""


def stop_after(intervals):
    def observe(progress):
        if progress.rows and progress.state.interval == intervals:
            raise Stop

    return observe


def quiet(_):
    pass


def stopped(run, out, intervals):
    with pytest.raises(Stop):
        train(run, out, stop_after(intervals))
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(PLAIN, folder)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return stopped(PLAIN, tmp_path_factory.mktemp("half") / "run", 3)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_resumed_run_equals_one_that_was_not_stopped(tmp_path, name):
    run = dataclasses.replace(PLAIN, **VARIANTS[name])
    train(run, tmp_path / "whole")
    intervals = -(-run.steps // run.interval)
    # After the last interval only the final evaluation is missing.
    for stop in range(1, intervals + 1) if name == "plain" else [intervals - 1]:
        resume(stopped(run, tmp_path / str(stop), stop), note=quiet)
        assert differences(tmp_path / str(stop), tmp_path / "whole") == []


def test_a_run_stopped_within_an_interval_goes_on_from_the_last_checkpoint(tmp_path, whole):
    steps = []

    def observe(progress):
        steps.append(progress.steps)
        if progress.steps > 130:
            raise Stop

    rollout.PROGRESS_PERIOD, period = 0.0, rollout.PROGRESS_PERIOD
    try:
        with pytest.raises(Stop):
            train(PLAIN, tmp_path / "run", observe)
    finally:
        rollout.PROGRESS_PERIOD = period
    notes = []
    resume(tmp_path / "run", note=notes.append)
    assert notes == ["going on after 100 of 250 steps."]
    assert differences(tmp_path / "run", whole) == []


def remembering(run):
    """A strategy whose decisions depend on all evolutions before: the n-th copies the best one at n times its rate."""

    def evolve(memory, standings, streams):
        memory = {"fitnesses": [*memory["fitnesses"], [standing.fitness for standing in standings]]}
        best, *_, worst = ranked(standings)
        rate = best.hyperparameters.actor_learning_rate * len(memory["fitnesses"])
        return memory, [Exploit(worst, best, worst.hyperparameters._replace(actor_learning_rate=rate))]

    return Strategy(lambda: {"fitnesses": []}, evolve, lambda memory: memory.keys() == {"fitnesses"})


def test_what_a_strategy_remembers_outlives_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.evolution, "build", remembering)
    train(PLAIN, tmp_path / "whole")
    # Nobody has learnt after the first interval, and the last has no evolution.
    rates = [event["new_hyperparameters"]["actor_learning_rate"] for event in RunFolder.open(tmp_path / "whole").events()]
    assert len(rates) == 3
    assert rates[2] > rates[1] > rates[0]
    for stop in (1, 3):
        resume(stopped(PLAIN, tmp_path / str(stop), stop), note=quiet)
        assert differences(tmp_path / str(stop), tmp_path / "whole") == []


def test_a_checkpoint_of_before_strategies_remembered_can_be_gone_on_from(tmp_path, half, whole):
    shutil.copytree(half, tmp_path / "run")
    for path in checkpoint.manifests(tmp_path / "run"):
        manifest = json.loads(path.read_bytes().partition(b"\n")[2])
        assert manifest.pop("memory") == {}
        body = json.dumps(manifest).encode()
        path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    resume(tmp_path / "run", note=quiet)
    assert differences(tmp_path / "run", whole) == []


def test_what_a_kill_behind_the_last_manifest_left_is_deleted(tmp_path, whole, monkeypatch):
    real = checkpoint.delete_unneeded

    def stop_at_the_end(run, newest):
        if newest == 5:
            raise Stop
        real(run, newest)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "delete_unneeded", stop_at_the_end)
        with pytest.raises(Stop):
            train(PLAIN, tmp_path / "run")
    assert len(checkpoint.manifests(tmp_path / "run")) == 3
    resume(tmp_path / "run", note=quiet)
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.parametrize("first", [100, 130, 30])
def test_an_extended_run_equals_one_that_was_asked_for_its_length(tmp_path, whole, first):
    train(dataclasses.replace(PLAIN, steps=first, learning_starts=60 if first > 60 else 20), tmp_path / "run")
    if first < 60:
        # Not the same run: learning would start elsewhere. It only has to go on.
        assert resume(tmp_path / "run", steps=250, note=quiet).summary["steps_per_member"] == 250
        return
    resume(tmp_path / "run", steps=250, note=quiet)
    assert differences(tmp_path / "run", whole) == []


def test_rows_are_neither_doubled_nor_lost(tmp_path, half, whole):
    shutil.copytree(half, tmp_path / "run")
    # What a process wrote after its last checkpoint, before it was killed.
    for name in ("metrics.jsonl", "events.jsonl"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write('{"interval": 4, "mem')
    resume(tmp_path / "run", note=quiet)
    assert contents(tmp_path / "run")["metrics.jsonl"] == contents(whole)["metrics.jsonl"]
    assert (tmp_path / "run" / "events.jsonl").read_text() == (whole / "events.jsonl").read_text()


def test_the_result_counts_what_happened_before(tmp_path, half, whole):
    shutil.copytree(half, tmp_path / "run")
    result = resume(tmp_path / "run", note=quiet)
    there = json.loads((whole / "result.json").read_text())
    assert there["exploits"] >= 2
    assert len(result.lineage) == result.summary["exploits"] == there["exploits"]
    assert (
        result.summary["wall_seconds"]
        > json.loads((half / "checkpoints" / "000003.json").read_text().partition("\n")[2])["seconds"]
    )


# ------------------------------------------------------------------------------------------------------------- storage


def manifest(run, interval):
    return json.loads((run / "checkpoints" / f"{interval:06}.json").read_bytes().partition(b"\n")[2])


def test_replay_is_written_once(whole):
    files = {path.name: path.stat().st_size for path in (whole / "replay").iterdir()}
    named = {segment["file"] for i in (4, 5) for member in manifest(whole, i)["members"] for segment in member["segments"]}
    assert files.keys() == named
    # Each observation once, with half as many to spare for those that end an episode; and the file's own header.
    width = 4 * (4 + 1 + 2) + 4 * 4 // 2
    assert all(size <= PLAIN.interval * width + 300 for size in files.values())


def test_an_exploit_shares_its_parents_segments(whole):
    events = [json.loads(line) for line in (whole / "events.jsonl").read_text().splitlines()]
    last = [event for event in events if event["interval"] == 4]
    assert last
    members = manifest(whole, 4)["members"]
    for event in last:
        assert members[event["member"]]["segments"] == members[event["parent"]]["segments"]


def test_two_checkpoints_are_kept_and_nothing_else(whole):
    names = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert names == [
        f"{i:06}{end}"
        for i in (4, 5)
        for end in ("-000.safetensors", "-001.safetensors", "-002.safetensors", "-best.safetensors", ".json")
    ]


@given(st.lists(st.sampled_from(["insert", "insert", "insert", "save", "copy", "end"]), max_size=60), st.integers(1, 9))
def test_a_restored_buffer_holds_the_rows_of_the_one_that_was_saved(actions, capacity):
    buffers, disk, place = [ReplayBuffer(capacity, 1, 1) for _ in range(2)], {}, 0
    for number, action in enumerate([*actions, "save"]):
        if action == "insert":
            for slot, buffer in enumerate(buffers):
                buffer.insert(np.float32([place]), np.float32([slot]), number, np.float32([place + 1]), False)
            place += 1
        elif action == "copy":
            buffers[0].copy_from(buffers[1])
        elif action == "end":  # without it an episode goes on over a save
            place += 1
        if action in ("copy", "save"):  # segments are written before every evolution
            for slot, buffer in enumerate(buffers):
                new = buffer.unsaved()
                if len(new.steps):
                    disk[f"{number}-{slot}"] = safetensors.numpy.save(new._asdict())
                    assert fits(new, len(new.steps), 1, 1)
                    buffer.segments.append(Segment(f"{number}-{slot}", len(new.steps), "", 0))
                buffer.saved = buffer.inserted
                storage.forget_overwritten(buffer)
    for buffer in buffers:
        restored = ReplayBuffer(capacity, 1, 1)
        parts = [Steps(**safetensors.numpy.load(disk[segment.file])) for segment in buffer.segments]
        restored.restore(parts, buffer.inserted, buffer.segments)
        for number in range(2 * capacity + 1):
            # They go on alike, too.
            assert restored.inserted == buffer.inserted
            np.testing.assert_array_equal(restored.transitions(), buffer.transitions())
            joined = [one.sample(np.random.default_rng(number), 8, 8, 3, 0.9)[0] for one in (restored, buffer)]
            np.testing.assert_array_equal(*joined)
            for one in (restored, buffer):
                one.insert(np.float32([number]), np.float32([0]), number, np.float32([number + number % 2]), False)


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizers_state_can_be_stored(name):
    options = {"kfac": {"exact_damping": True}} if name == "kfac" else {}
    try:
        run = Run("InvertedPendulum-v4", mix={name: 1}, optimizers=options, **SMALL)
    except UserError:
        pytest.skip("optax cannot make it from a learning rate alone")
    optimizer = optimizers.build(name, run.optimizers[name]["critic"])
    layers = [(np.ones((3, 4), np.float32), np.ones(4, np.float32)), (np.ones((4, 1), np.float32), np.ones(1, np.float32))]
    parameters = tuple(Layer(w, b) for w, b in layers)
    state = jax.device_get(jax.jit(optimizer.init)(parameters))
    stored = safetensors.numpy.load(safetensors.numpy.save(arrays.storable(state)))
    restored = arrays.like(state, stored)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(old, new)
        assert np.asarray(old).dtype == new.dtype


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from([0.0, -0.0, np.nan, np.inf, 1.0]), st.booleans())
def test_a_symmetric_matrix_is_stored_by_half_and_any_other_in_full(size, seed, special, broken):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((size, size), np.float32)
    matrix += matrix.T
    row, column = rng.integers(size, size=2)
    matrix[row, column] = matrix[column, row] = special
    if broken:
        # The least that can be wrong: one bit of one number.
        matrix.view(np.uint32)[row, column] ^= 1
    [(name, stored)] = arrays.storable({"M": matrix}).items()
    half = not broken or row == column
    assert stored.shape == ((size * (size + 1) // 2,) if half else (size, size))
    restored = arrays.like({"M": np.zeros_like(matrix)}, {name: stored})["M"]
    np.testing.assert_array_equal(restored.view(np.uint32), matrix.view(np.uint32))


@pytest.mark.parametrize("shape", [(3, 4), (4, 4), (6,), (2, 3)])
def test_half_a_matrix_is_refused_where_another_array_belongs(shape):
    stored = arrays.storable({"M": np.eye(3, dtype=np.float32)})
    with pytest.raises(Damaged, match="M"):
        arrays.like({"M": np.zeros(shape, np.float32)}, stored)


def test_factors_and_inverses_are_symmetric_to_the_last_bit_and_stored_by_half(tmp_path):
    # A batch size that needs padding, and layers of several sizes.
    layers = {"actor_layers": (40, 33), "critic_layers": (70,), "batch_size": 50}
    run = dataclasses.replace(PLAIN, mix={"kfac": 1, "kfac_empirical": 1}, steps=100, **layers)
    train(run, tmp_path / "run")
    for path in sorted((tmp_path / "run" / "checkpoints").glob("000002-00*.safetensors")):
        names = [name for name in safetensors.numpy.load_file(path) if ".A" in name or ".B" in name]
        # Two inverses and two factors for each of the critics' 2 x 2 and the actor's 3 layers.
        assert len(names) == 4 * (2 * 2 + 3)
        assert all(name.endswith(arrays.TRIANGLE) for name in names)


def test_another_number_of_cores_is_told(tmp_path, monkeypatch):
    train(dataclasses.replace(PLAIN, steps=100), tmp_path / "run")
    here = resumption.circumstances
    monkeypatch.setattr(resumption, "circumstances", lambda run: here(run) | {"cores": 77})
    notes = []
    resume(tmp_path / "run", steps=150, note=notes.append)
    cores = len(os.sched_getaffinity(0))
    assert [note for note in notes if note.startswith(f"the run had {cores} cores and has 77 now: large matrix products")]
    # The same number is no news, and a run from the start has nothing to compare with.
    notes.clear()
    resume(tmp_path / "run", steps=200, note=notes.append)
    assert not [note for note in notes if "cores" in note]


# -------------------------------------------------------------------------------------------------------------- damage


def newest_files(run):
    """Return the files that the newest checkpoint alone needs."""
    wanted = [run / "checkpoints" / "000003.json"]
    wanted += sorted((run / "checkpoints").glob("000003-*.safetensors"))
    return wanted + sorted((run / "replay").glob("000003-*.safetensors"))


@pytest.mark.parametrize("how", ["flipped", "truncated", "missing", "empty"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, half, how):
    count = len(newest_files(half))
    assert count >= 6
    for number in range(count):
        run = tmp_path / f"{number}"
        shutil.copytree(half, run)
        path = newest_files(run)[number]
        data = bytearray(path.read_bytes())
        data[(number * 7919) % len(data)] ^= 1 << (number % 8)
        path.write_bytes(data if how == "flipped" else data[:-1] if how == "truncated" else b"")
        if how == "missing":
            path.unlink()
        found, damages = checkpoint.newest(run)
        assert found is not None
        assert found.interval == 2
        if how == "missing" and path.suffix == ".json":
            assert damages == []  # as if it had never been written
        else:
            assert len(damages) == 1
            assert path.name in damages[0]


def test_the_run_goes_on_from_the_checkpoint_before(tmp_path, half, whole):
    shutil.copytree(half, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "000003-002.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    notes = []
    resume(tmp_path / "run", note=notes.append)
    assert "000003.json is damaged: 000003-002.safetensors has" in notes[0]
    assert "going on from the one before it" in notes[0]
    assert notes[1] == "going on after 100 of 250 steps."
    assert differences(tmp_path / "run", whole) == []
    [resumed] = RunFolder.open(tmp_path / "run").metadata()["resumed"]
    assert resumed["interval"] == 2
    assert resumed["notes"] == notes


def test_damage_everywhere_is_told_and_nothing_is_touched(tmp_path, half):
    shutil.copytree(half, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*.json"):
        path.write_bytes(b"{}")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(UserError, match=r"000003\.json is damaged: .*000002\.json is damaged: .*no older one.*train --config"):
        resume(tmp_path / "run", note=quiet)
    assert all(path.read_bytes() == data for path, data in before.items())


def test_a_checkpoint_of_a_hostile_form_is_damaged(tmp_path, half):
    for number, (key, value) in enumerate(
        [
            ("members", [{}]),
            ("members", "x"),
            ("interval", -1),
            ("interval", 10**30),
            ("best", {"policy": {"file": "../../etc/passwd", "bytes": 1, "sha256": ""}}),
            ("records", [1]),
            ("seconds", "soon"),
            ("format", 3),
        ]
    ):
        run = tmp_path / f"{number}"
        shutil.copytree(half, run)
        body = json.dumps({**manifest(run, 3), key: value}).encode()
        signed = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        (run / "checkpoints" / "000003.json").write_bytes(signed)
        found, damages = checkpoint.newest(run)
        assert found is not None
        assert found.interval == 2
        assert "is not of the form" in damages[0]


def test_what_was_damaged_is_not_trained_on(half, tmp_path):
    """Arrays that are whole but of another shape than the configuration's are refused, too."""
    shutil.copytree(half, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "000003-000.safetensors"
    arrays = {name: array[..., :1] if array.ndim else array for name, array in safetensors.numpy.load(path.read_bytes()).items()}
    data = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    path.write_bytes(data)
    changed = manifest(tmp_path / "run", 3)
    changed["members"][0]["learner"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    body = json.dumps(changed).encode()
    (tmp_path / "run" / "checkpoints" / "000003.json").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(UserError, match=r"does not fit the run's configuration: the array .* is missing or of another shape"):
        resume(tmp_path / "run", note=quiet)


# ------------------------------------------------------------------------------------------------------------- refusals


def test_a_run_that_has_ended_says_how_to_go_on(whole):
    with pytest.raises(UserError, match=r"has ended after 250 steps; .*--steps 500"):
        resume(whole, note=quiet)


def test_a_run_is_not_made_shorter(half):
    with pytest.raises(UserError, match=r"--steps is 100, and the run was asked for 250; it can only be made longer"):
        resume(half, steps=100, note=quiet)


def test_a_folder_in_use_is_refused_and_its_holder_named(half):
    with locked(half), pytest.raises(UserError, match=f"is in use by process {os.getpid()} on "):
        resume(half, note=quiet)


def test_another_version_is_refused_unless_allowed(tmp_path, half, monkeypatch):
    shutil.copytree(half, tmp_path / "run")
    real = gym.versions()
    monkeypatch.setattr(gym, "versions", lambda: {**real, "mujoco": "9.9.9"})
    with pytest.raises(UserError, match=rf"mujoco was {real['mujoco']} and is 9\.9\.9; .*--allow-version-change"):
        resume(tmp_path / "run", note=quiet)
    resume(tmp_path / "run", allow_version_change=True, note=quiet)
    [resumed] = RunFolder.open(tmp_path / "run").metadata()["resumed"]
    assert resumed["changes"] == {"mujoco": [real["mujoco"], "9.9.9"]}


def test_another_physics_is_refused(tmp_path, half, monkeypatch):
    monkeypatch.setattr(gym, "physics_fingerprint", lambda *_: "0123456789abcdef")
    with pytest.raises(UserError, match=r"physics fingerprint was [0-9a-f]{16} and is 0123456789abcdef"):
        resume(half, note=quiet)


def test_arithmetic_that_rounds_otherwise_is_refused(half):
    # OpenBLAS reads the variable when NumPy loads it. An x86 processor that has AVX2 can use either; others ignore it.
    rounded = {}
    for kernels in ("Nehalem", "Haswell"):
        command = [
            sys.executable,
            "-c",
            "from evolute.runs.circumstances import arithmetic_fingerprint; print(arithmetic_fingerprint())",
        ]
        done = subprocess.run(
            command, env={**os.environ, "OPENBLAS_CORETYPE": kernels}, capture_output=True, text=True, check=True
        )
        rounded[kernels] = done.stdout.strip()
    ours = RunFolder.open(half).metadata()["arithmetic_fingerprint"]
    other = next((kernels for kernels, hashed in rounded.items() if hashed != ours), None)
    if other is None:
        pytest.skip("this build of NumPy has no kernels to choose from")
    command = [sys.executable, "-m", "evolute.commands.cli", "resume", str(half)]
    done = subprocess.run(command, env={**os.environ, "OPENBLAS_CORETYPE": other}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"arithmetic fingerprint was {ours} and is {rounded[other]}" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_changed_configuration_is_refused(tmp_path, half):
    shutil.copytree(half, tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text().replace("tau = 0.005", "tau = 0.006"))
    with pytest.raises(UserError, match="was changed since the run was checkpointed"):
        resume(tmp_path / "run", note=quiet)


@pytest.mark.parametrize("damage", [None, b"\x00tau = [", b"taus = 1\n"])
def test_a_lost_configuration_comes_from_the_checkpoint(tmp_path, half, whole, damage):
    shutil.copytree(half, tmp_path / "run")
    (tmp_path / "run" / "config.toml").unlink()
    if damage is not None:
        (tmp_path / "run" / "config.toml").write_bytes(damage)
    (tmp_path / "run" / "metadata.json").unlink()
    notes = []
    resume(tmp_path / "run", note=notes.append)
    assert "The checkpoint's copy replaces it." in notes[0]
    assert differences(tmp_path / "run", whole) == []


def test_a_run_without_a_checkpoint_begins_anew(tmp_path, half, whole):
    (tmp_path / "run").mkdir()
    for name in ("config.toml", "metadata.json"):
        shutil.copy(half / name, tmp_path / "run" / name)
    notes = []
    resume(tmp_path / "run", note=notes.append)
    assert notes == ["going on after 0 of 250 steps."]
    assert differences(tmp_path / "run", whole) == []


def test_resuming_where_there_is_no_run(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        resume(tmp_path / "nowhere", note=quiet)
    with pytest.raises(UserError, match="holds no run"):
        resume(tmp_path, note=quiet)
    assert list(tmp_path.iterdir()) == []


def test_the_order_in_which_records_are_brought_back_survives_a_kill_anywhere(tmp_path, half, whole):
    """A process that is killed while it resumes leaves a run that can be resumed."""
    for number, place in enumerate(("write_metadata", "write_config", "forget_result", "restore_records")):
        run = tmp_path / f"{number}"
        shutil.copytree(half, run)

        def killed(*_):
            raise Stop

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunFolder, place, killed)
            with pytest.raises(Stop):
                resume(run, note=quiet)
        resume(run, note=quiet)
        assert differences(run, whole) == []
