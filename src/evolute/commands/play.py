"""evolute play: a policy in a window."""

import itertools
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from evolute.commands.flags import AllowImportFlag, MemberFlag, RunArgument, SeedFlag, whole_number
from evolute.commands.policies import chosen, environment_of, making_for
from evolute.errors import EnvironmentFault, UserError

if TYPE_CHECKING:
    import gymnasium

    from evolute.environments.gym import Environment
    from evolute.policy import Policy


@dataclass(frozen=True)
class Flags:
    """Play deterministic episodes of a run's best policy in a window; close it, or press Ctrl-C, to end."""

    run: RunArgument = None
    member: MemberFlag = "best"
    episodes: Annotated[str, tyro.conf.arg(metavar="INT")] = "1"
    """Episodes to play, one after the other."""
    seed: SeedFlag = "0"
    """Seed of the first episode."""
    allow_import: AllowImportFlag = None


def run(flags: Flags) -> None:
    """Open a window and play in it."""
    from evolute.commands.hints import command
    from evolute.report import graphics

    episodes, seed = whole_number("--episodes", flags.episodes, least=1), whole_number("--seed", flags.seed, least=0)
    folder, source = chosen(flags.run, flags.member)
    if not graphics.has_display():
        raise UserError(f"no window can be opened here: there is no display; make a video: {command('video', folder.path)}.")
    # Before the environment is made, which imports MuJoCo: the others draw without a window.
    os.environ[graphics.VARIABLE] = "glfw"
    from evolute.report.video import drawing_of

    policy, allowed = source.policy, flags.allow_import or ()
    drawing = drawing_of(environment_of(policy, making_for(folder, policy, allowed)), "human")
    environment = environment_of(policy, making_for(folder, policy, allowed, render_mode="human"))
    try:
        for n in range(episodes):
            total, steps = play(environment, policy, seed + n, drawing.rate)
            print(f"episode {n + 1}: return {total:.1f} in {steps:,} steps")
            if closed(environment.itself):
                break
    except EnvironmentFault as fault:
        raise UserError(f"the environment {environment.id!r} failed {fault}; fix it.") from None
    finally:
        environment.close()


def play(environment: "Environment", policy: "Policy", seed: int, rate: float) -> tuple[float, int]:
    """Play an episode, so many steps a second, until it ends or its window is closed; return what it has come to.

    Args:
        environment: made to show itself at every step.
        policy: that acts.
        seed: of the episode.
        rate: steps a second, at most.
    """
    from evolute.training.evaluate import LONGEST_EPISODE

    obs, total, due = environment.reset(seed), 0.0, time.monotonic()
    steps = 0
    for steps in itertools.count(1):
        step = environment.step(policy.unit_action(obs))
        obs, total = step.obs, total + step.reward
        if step.terminated or step.truncated or steps == LONGEST_EPISODE or closed(environment.itself):
            break
        due += 1.0 / rate
        time.sleep(max(0.0, due - time.monotonic()))
    return total, steps


def closed(env: "gymnasium.Env") -> bool:
    """Return whether somebody has closed MuJoCo's window, in which another step would draw and fail."""
    window = getattr(getattr(getattr(env.unwrapped, "mujoco_renderer", None), "viewer", None), "window", None)
    if window is None:
        return False
    import glfw

    return bool(glfw.window_should_close(window))
