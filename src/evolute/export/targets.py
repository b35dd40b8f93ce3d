"""What a policy can be exported to: one function each, which writes a file or a folder and says what there is to know of it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evolute.errors import Damaged, UserError
from evolute.files import VIDEO_FOLDER, write_whole

if TYPE_CHECKING:
    from gymnasium.spaces import Space

    from evolute.environments.gym import Environment
    from evolute.runs.folder import RunFolder
    from evolute.runs.policies import Source

# Of a run folder: where exports go unless told otherwise.
EXPORTS = "exports"
# What a model card plays.
CARD_VIDEO = "replay.mp4"


class Job(NamedTuple):
    """What is to be exported."""

    source: "Source"
    folder: "RunFolder"
    # Of the run, where the target needs it.
    environment: "Environment | None"
    # By the Hub's names.
    license: str


class Written(NamedTuple):
    """What was written."""

    said: str
    # What the target cannot express, one sentence each.
    notes: list[str]


class Target(NamedTuple):
    """A form of policies."""

    # Writes it to a path.
    write: Callable[[Job, Path], Written]
    # Ends the name that it gets unless another is given.
    suffix: str
    # The modules that it needs, and evolute's extra that has them.
    modules: tuple[str, ...] = ()
    extra: str = "export"
    needs_environment: bool = False


def onnx(job: Job, out: Path) -> Written:
    """Write an ONNX model."""
    from evolute.export import onnx_model
    from evolute.export.operations import difference

    content = onnx_model.model(job.source.policy)
    apart = difference(job.source.policy, lambda obs: onnx_model.actions(content, obs), "onnx")
    write_whole(out, content)
    return Written(f"observation [N, O] to action [N, A]; {_near(apart)}", [])


def sb3(job: Job, out: Path) -> Written:
    """Write a zip of Stable-Baselines3."""
    from evolute.export import sb3 as zips
    from evolute.export.operations import difference
    from evolute.kinds import of

    assert job.environment is not None, "the target needs it"
    algorithm, policy = of(job.source.kind).algorithm, job.source.policy
    if algorithm not in zips.CLASSES:
        raise UserError(f"--to sb3 has no class for the kind {job.source.kind!r}; choose another target.")
    spaces, notes = _spaces(job.environment)
    content = zips.archive(policy, algorithm, *spaces)
    model = zips.loaded(content, algorithm)
    apart = difference(policy, lambda obs: model.predict(obs)[0], "sb3")
    write_whole(out, content)
    notes.append("the critics in the zip are new, because a policy has none: it plays, and who trains on starts without them")
    if policy.scaling is not None:
        notes.append("its network has two layers more, which scale and clip observations: give it raw ones, without VecNormalize")
    if algorithm == "sac":
        notes.append("it plays the mean of SAC's actions: the standard deviation in the zip is as small as can be")
    return Written(f"{zips.CLASSES[algorithm].__name__}.load reads it; {_near(apart)}", notes)


def safetensors(job: Job, out: Path) -> Written:
    """Write evolute's own form: safetensors and a description in JSON."""
    source = job.source
    about = {name: getattr(source, name) for name in ("fitness", "member", "kind", "environment_steps")}
    source.policy.save(out, about)
    return Written("evolute.load_policy reads it", [])


def numpy(job: Job, out: Path) -> Written:
    """Write a policy beside a file of Python that computes it with NumPy alone."""
    from evolute.export import standalone
    from evolute.export.operations import difference

    safetensors(job, out)
    write_whole(out / "policy.py", Path(standalone.__file__).read_bytes())
    try:
        loaded = standalone.load(out)
    except (ValueError, KeyError):
        raise UserError("--to numpy and --to hub cannot express the policy's network; choose another target.") from None
    apart = difference(job.source.policy, loaded, "numpy")
    return Written(f"policy.py needs NumPy alone; {_near(apart)}", [])


def hub(job: Job, out: Path) -> Written:
    """Write a folder for the Hugging Face Hub."""
    from evolute.export.card import card
    from evolute.runs import forms

    source, folder = job.source, job.folder
    numpy(job, out)
    video = folder.path / VIDEO_FOLDER / f"{source.name}.mp4"
    if video.is_file():
        shutil.copyfile(video, out / CARD_VIDEO)
    evaluated = (folder.result() or {}).get("best") if source.name == "best" else None
    if forms.fault(evaluated, forms.EVALUATED) is not None:
        evaluated = None
    text = card(source, evaluated, folder.metadata()["versions"], job.license, CARD_VIDEO if video.is_file() else None)
    write_whole(out / "README.md", text.encode())
    notes = [] if video.is_file() else [f"there is no video: evolute video makes one at {str(video)!r}"]
    return Written("a model card, and a policy for NumPy alone", notes)


def minari(job: Job, out: Path) -> Written:
    """Write a member's replay as a Minari data set."""
    from evolute.export import dataset
    from evolute.runs import episodes
    from evolute.runs.policies import newest, run_of
    from evolute.training.host import carries

    dataset.check_name(out)
    environment, found = job.environment, newest(job.folder.path)
    assert environment is not None, "the target needs it"
    spaces, notes = _spaces(environment)
    members = found.manifest["members"]
    if job.source.member >= len(members):
        raise UserError(f"the checkpoint of {str(job.folder.path)!r} has no member {job.source.member}; choose another.")
    carried = carries(run_of(found), environment.facts)
    own = episodes.of_member(job.folder.path, members[job.source.member], environment.facts, carried)
    try:
        spec = environment.itself.spec
        count, steps = dataset.write(out, own, environment.facts, spaces, spec, job.source.kind)
    except Damaged as damage:
        raise UserError(f"the replay of member {job.source.member} is of no use: {damage}; choose another member.") from None
    notes += [
        "it is the whole replay of that member, with what it copied from others, not episodes of its policy",
        "episodes that the end of an interval cut count as truncated; observations and rewards are in single precision",
    ]
    return Written(f"{count:,} episodes with {steps:,} transitions; minari.MinariDataset reads its folder data", notes)


def _spaces(environment: "Environment") -> "tuple[tuple[Space, Space], list[str]]":
    """Return an environment's spaces, of flat observations and of actions, and what to do where they are flattened."""
    from gymnasium.spaces.utils import flatten_space

    own, flattened = environment.itself, environment.facts.flattened
    if not flattened:
        return (own.observation_space, own.action_space), []
    note = "observations are flattened: wrap the environment in gymnasium.wrappers.FlattenObservation"
    return (flatten_space(own.observation_space), own.action_space), [note]


def _near(apart: float) -> str:
    """Return in words how near an export's actions are to the policy's."""
    return f"its actions differ by {apart:.0e} of half their range at most" if apart else "its actions are the same"


TARGETS = {
    "onnx": Target(onnx, ".onnx", ("onnx", "onnxruntime")),
    "sb3": Target(sb3, "-sb3.zip", ("stable_baselines3",), "sb3", needs_environment=True),
    "numpy": Target(numpy, "-numpy"),
    "safetensors": Target(safetensors, "-safetensors"),
    "hub": Target(hub, "-hub", ("huggingface_hub",)),
    "minari": Target(minari, "-v0", ("minari", "h5py"), needs_environment=True),
}
