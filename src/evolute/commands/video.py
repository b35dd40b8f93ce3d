"""evolute video: episodes of a policy as a video, without a display."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from evolute.commands.flags import AllowImportFlag, MemberFlag, RunArgument, SeedFlag, value_of, whole_number
from evolute.commands.policies import chosen, environment_of, making_for
from evolute.errors import UserError, closest, printable
from evolute.files import VIDEO_FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from evolute.report.video import Drawing

SUFFIXES = (".mp4", ".gif")
USUAL_SIZE = (480, 360)
# Pixels of a side, and pictures a second.
LEAST, LARGEST, MOST_FPS = 16, 4096, 1000


@dataclass(frozen=True)
class Flags:
    """Record deterministic episodes of a run's best policy as a video; no display is needed."""

    run: RunArgument = None
    member: MemberFlag = "best"
    episodes: Annotated[str, tyro.conf.arg(metavar="INT")] = "1"
    """Episodes to record, one after the other."""
    seed: SeedFlag = "0"
    """Seed of the first episode."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=f"(default: in RUN/{VIDEO_FOLDER})")] = None
    """Video to write, .mp4 or .gif; it must not be there yet."""
    width: Annotated[str | None, tyro.conf.arg(metavar="INT", help_behavior_hint=f"(default: {USUAL_SIZE[0]})")] = None
    """Pixels of a picture's width, where MuJoCo draws."""
    height: Annotated[str | None, tyro.conf.arg(metavar="INT", help_behavior_hint=f"(default: {USUAL_SIZE[1]})")] = None
    """Pixels of a picture's height, where MuJoCo draws."""
    fps: Annotated[str | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: about 30)")] = None
    """Pictures a second at most; the video always runs in real time."""
    camera: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the environment's view)")] = None
    """Camera of the MuJoCo model, by name."""
    shadows: tyro.conf.FlagCreatePairsOff[
        Annotated[bool, tyro.conf.arg(help="Draw shadows and reflections: six times slower without a graphics card.")]
    ] = False
    allow_import: AllowImportFlag = None


def run(flags: Flags) -> None:
    """Record it, and say what is in it."""
    from evolute.export import writing
    from evolute.interruption import stopping_gently
    from evolute.report import graphics

    if flags.out is not None and flags.out.suffix not in SUFFIXES:
        raise UserError(f"--out is {str(flags.out)!r}; its name must end with .mp4 or .gif.")
    episodes, seed = whole_number("--episodes", flags.episodes, least=1), whole_number("--seed", flags.seed, least=0)
    size, fps = size_of(flags), None if flags.fps is None else rate("--fps", flags.fps)
    folder, source = chosen(flags.run, flags.member)
    policy, allowed = source.policy, flags.allow_import or ()
    out = flags.out or folder.path / VIDEO_FOLDER / f"{source.name}.mp4"
    writing.refuse_existing(out)
    writing.require(f"a video {out.suffix}", "video", ("PIL" if out.suffix == ".gif" else "imageio_ffmpeg",))
    # Before the environment is made, which imports MuJoCo.
    way = graphics.choose()
    from evolute.report import video

    drawing = video.drawing_of(environment_of(policy, making_for(folder, policy, allowed)), "rgb_array")
    if drawing.mujoco and way is None:
        raise graphics.nothing_draws()
    making = making_for(folder, policy, allowed, render_mode="rgb_array", **view(flags, size, drawing))
    environment = environment_of(policy, making)
    every = max(1, round(drawing.rate / (fps or video.USUAL_FPS)))
    played: list[video.Picture] = []
    pictures = 0

    def shown(tell: "Callable[[int, int], None]") -> Iterator[np.ndarray]:
        nonlocal pictures
        for n in range(episodes):
            for picture in video.pictures(environment, policy.unit_action, seed + n, every):
                if picture.steps == 0 and drawing.mujoco and not flags.shadows:
                    # There is something to turn off only once a picture has been drawn.
                    video.without_shadows(environment.itself)
                    picture = picture._replace(pixels=video.drawn(environment))
                played[n:] = [picture]
                pictures += 1
                tell(n, picture.steps)
                yield picture.pixels

    with stopping_gently(), writing.fresh(out) as partial, progress(episodes, environment.facts.longest_episode) as tell:
        video.write(partial, shown(tell), drawing.rate / every)
    environment.close()
    returns = ", ".join(f"{one.total:.1f}" for one in played)
    whose = f"{'the best policy, of' if source.name == 'best' else 'the latest policy of'} member {source.member} ({source.kind})"
    print(
        printable(
            f"{out}: {whose}; return{'s' if episodes > 1 else ''} {returns} in {sum(one.steps for one in played):,} steps; "
            f"{pictures:,} pictures, {drawing.rate / every:.3g} a second" + (f", drawn with {way}" if drawing.mujoco else "")
        )
    )


def size_of(flags: Flags) -> tuple[int, int] | None:
    """Return the width and height that were asked for, None where none were; raises UserError where they are of no use."""
    if flags.width is None and flags.height is None:
        return None
    sizes = []
    for name, given, usual in (("--width", flags.width, USUAL_SIZE[0]), ("--height", flags.height, USUAL_SIZE[1])):
        value = whole_number(name, given or str(usual), least=LEAST)
        if value > LARGEST or value % 2:
            raise UserError(f"{name} is {given}; it must be an even number of pixels from {LEAST} to {LARGEST}, such as {usual}.")
        sizes.append(value)
    return sizes[0], sizes[1]


def rate(flag: str, text: str) -> float:
    """Return an option's number of pictures a second; raises UserError where it is none."""
    value = value_of(text)
    if type(value) not in (int, float) or not 0 < value <= MOST_FPS:
        raise UserError(f"{flag} is {text}; it must be a number of pictures a second above 0 and at most {MOST_FPS}, such as 25.")
    return float(value)


def view(flags: Flags, size: tuple[int, int] | None, drawing: "Drawing") -> dict[str, Any]:
    """Return what an environment that draws is made with besides; raises UserError where it does not take that."""
    if not drawing.mujoco:
        if size is not None or flags.camera is not None:
            raise UserError("--width, --height and --camera are MuJoCo's, and this environment draws by itself; leave them out.")
        return {}
    if flags.camera is not None and flags.camera not in drawing.cameras:
        has = f"choose from {', '.join(drawing.cameras)}" if drawing.cameras else "this environment has none; leave it out"
        raise UserError(f"--camera is {flags.camera!r}{closest(flags.camera, drawing.cameras)}; {has}.")
    width, height = size or USUAL_SIZE
    return {"width": width, "height": height} | ({} if flags.camera is None else {"camera_name": flags.camera})


@contextmanager
def progress(episodes: int, longest: int | None) -> "Iterator[Callable[[int, int], None]]":
    """Show how far the drawing is, a bar on a terminal and a line now and then elsewhere; yield what is told of it.

    Args:
        episodes: to be drawn.
        longest: steps of an episode at most, if that is known.
    """
    import logging

    from rich.console import Console
    from rich.progress import Progress

    from evolute.report.live import listening, signs_on_error

    console, log = Console(stderr=True), logging.getLogger("evolute")
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with listening() as doing, nullcontext() if console.is_terminal else signs_on_error(doing), bar:
        task = bar.add_task("drawing", total=longest and episodes * longest)

        def tell(episode: int, steps: int) -> None:
            bar.update(task, completed=episode * (longest or 0) + steps)
            if not steps:
                log.info("drawing episode %d of %d", episode + 1, episodes)

        yield tell
