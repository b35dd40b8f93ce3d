"""Episodes as pictures, and pictures as a video."""

# Of an extra, and of a module without types.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from evolute.environments.gym import Environment
from evolute.errors import EnvironmentFault, UserError
from evolute.training.evaluate import LONGEST_EPISODE

# Pictures a second at most, unless told otherwise; and those of an environment that does not say how many steps make a second.
USUAL_FPS, UNKNOWN_FPS = 30, 30


class Picture(NamedTuple):
    """What is seen of an episode, and what it has come to."""

    pixels: np.ndarray  # [height, width, 3] uint8
    total: float
    steps: int


class Drawing(NamedTuple):
    """What an environment says of how it draws."""

    # The steps that make a second.
    rate: float
    # Whether MuJoCo draws, which takes a size and a camera; and the cameras that it has.
    mujoco: bool
    cameras: list[str]


def drawing_of(environment: Environment, mode: str) -> Drawing:
    """Return how an environment draws; raises UserError where it does not draw in a mode, rgb_array or human."""
    env = environment.itself
    modes = [str(one) for one in env.metadata.get("render_modes") or ()]
    if mode not in modes:
        has = f"has the render modes {', '.join(modes)}" if modes else "draws nothing"
        raise UserError(f"the environment {environment.id!r} {has}, and {mode} is needed; choose a run of another environment.")
    rate = env.metadata.get("render_fps") or UNKNOWN_FPS
    model = getattr(env.unwrapped, "model", None)
    mujoco = hasattr(env.unwrapped, "mujoco_renderer")
    cameras = [model.camera(n).name for n in range(model.ncam)] if mujoco and model is not None else []
    return Drawing(float(rate), mujoco, cameras)


def pictures(environment: Environment, act: Callable[[np.ndarray], np.ndarray], seed: int, every: int) -> Iterator[Picture]:
    """Play an episode and yield a picture of its start, of every so many steps and of its end.

    Args:
        environment: made to draw.
        act: observation [O] to action [A] in [-1, 1].
        seed: of the episode.
        every: steps from picture to picture.

    Raises:
        UserError: the environment failed, or drew no picture.
    """
    try:
        obs, total = environment.reset(seed), 0.0
        yield Picture(drawn(environment), total, 0)
        for steps in itertools.count(1):
            step = environment.step(act(obs))
            obs, total = step.obs, total + step.reward
            ended = step.terminated or step.truncated or steps == LONGEST_EPISODE
            if ended or steps % every == 0:
                yield Picture(drawn(environment), total, steps)
            if ended:
                return
    except EnvironmentFault as fault:
        raise UserError(f"the environment {environment.id!r} failed {fault}; fix it.") from None


def drawn(environment: Environment) -> np.ndarray:
    """Return a picture [height, width, 3] of where an environment stands; raises UserError where it draws none."""
    try:
        pixels: Any = environment.itself.render()
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"the environment {environment.id!r} cannot draw; it says {said!r}; fix that first.") from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UserError(f"the environment {environment.id!r} drew no picture of uint8 [height, width, 3]; fix it.")
    return pixels


def without_shadows(env: gymnasium.Env) -> None:
    """Let MuJoCo draw neither shadows nor reflections, which take most of the time without a graphics card."""
    import mujoco

    # Gymnasium's own; whoever draws otherwise is slower, and nothing is wrong.
    with contextlib.suppress(AttributeError):
        flags = env.unwrapped.mujoco_renderer.viewer.scn.flags  # type: ignore[attr-defined]
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0


def write(path: Path, pictures: Iterator[np.ndarray], fps: float) -> None:
    """Write pictures [height, width, 3], at least one, as a video, .mp4 or .gif; raises OSError where it cannot be written."""
    first = next(pictures)
    if path.suffix == ".gif":
        from PIL import Image

        rest = map(Image.fromarray, pictures)
        Image.fromarray(first).save(path, "GIF", save_all=True, append_images=rest, duration=round(1000.0 / fps), loop=0)
        return
    import imageio_ffmpeg

    height, width = first.shape[:2]
    # A side of H.264 has an even number of pixels. ffmpeg takes any rate, whatever its wrapper declares.
    rate: Any = fps
    made = imageio_ffmpeg.write_frames(str(path), (width, height), fps=rate, macro_block_size=2, ffmpeg_log_level="error")
    count = 0
    with contextlib.closing(made):
        made.send(None)
        for picture in itertools.chain([first], pictures):
            made.send(np.ascontiguousarray(picture))
            count += 1
    # It does not say whether ffmpeg could write the end.
    try:
        found, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError:
        found = 0
    if found != count:
        raise OSError(f"ffmpeg wrote {found} of {count} pictures")
