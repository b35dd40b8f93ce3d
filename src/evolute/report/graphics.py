"""What draws here: MuJoCo needs a way to draw, chosen by a variable before it is imported."""

import os
import subprocess
import sys

from evolute.errors import UserError

VARIABLE = "MUJOCO_GL"
# Ways to draw, best first, and how they are called.
WAYS = {"egl": "EGL", "osmesa": "OSMesa", "glfw": "a hidden window"}
# Draws one picture; and looks for a display.
DRAW = "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8).render()"
LOOK = "import glfw, sys; sys.exit(not glfw.init())"
# Seconds for either: the first imports MuJoCo.
TRIAL_LIMIT = 60.0


def choose() -> str | None:
    """Choose a way in which MuJoCo draws without a display, and return its name; None where none works.

    To be called before MuJoCo is imported. Raises UserError where the user chose one by MUJOCO_GL that does not work.
    """
    given = os.environ.get(VARIABLE)
    for way in [given] if given else WAYS:
        if works(way):
            os.environ[VARIABLE] = way
            return WAYS.get(way, way)
    if given:
        raise UserError(f"MUJOCO_GL is {given!r}, by which MuJoCo cannot draw here; leave it unset, and evolute chooses.")
    return None


def works(way: str) -> bool:
    """Return whether MuJoCo draws in this way."""
    return _succeeds(DRAW, {VARIABLE: way})


def has_display() -> bool:
    """Return whether a window can be opened here."""
    named = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(named) and _succeeds(LOOK, {})


def _succeeds(code: str, variables: dict[str, str]) -> bool:
    """Return whether code works in a process of its own, which it may take along where it fails."""
    # -P: nothing in the working folder stands in for what is imported.
    command = [sys.executable, "-P", "-c", code]
    try:
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, timeout=TRIAL_LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def nothing_draws() -> UserError:
    """Return the mistake of a machine on which nothing draws."""
    return UserError(
        "MuJoCo cannot draw here: EGL, OSMesa and a hidden window were tried; install one of them, such as with "
        "`apt install libegl1 libegl-mesa0` or `apt install libosmesa6`."
    )
