"""Videos of episodes, drawn without a display; and a window, where there is one."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from PIL import Image, ImageSequence

from evolute import Run
from evolute.commands import cli
from evolute.policy import Policy
from evolute.report import graphics
from evolute.runs.folder import RunFolder

ABOUT = {"fitness": 1.0, "member": 0, "kind": "adam", "environment_steps": 10}


class Painted(gymnasium.Env):
    """Draws the number of its step as a grey, four steps a second; an episode has ten steps."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode=None, draws="rgb_array", shape=(6, 8, 3)):
        self.metadata = {"render_modes": [draws] if draws else [], "render_fps": 4}
        self.render_mode, self.shape = render_mode, shape

    def reset(self, *, seed=None, options=None):
        self.n = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.n += 1
        return np.full(2, self.n / 10, np.float32), 1.0, self.n == 10, False, {}

    def render(self):
        if self.shape is None:
            raise RuntimeError("no brush")
        return np.full(self.shape, 20 * self.n, np.uint8)


@pytest.fixture(autouse=True)
def no_way_is_chosen(monkeypatch):
    """What a test chooses must not reach the processes of later ones; first set, so that it is taken back afterwards."""
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delenv("MUJOCO_GL")


def folder_of(path, env, observations, actions=1, **settings):
    """Return the folder of a run of an environment with a best policy that nobody trained."""
    path.mkdir()
    rng = np.random.default_rng(0)
    weights = [(rng.normal(size=(observations, actions)), np.zeros(actions))]
    Policy(weights, -np.ones(actions, np.float32), np.ones(actions, np.float32), env).save(path / "best", ABOUT)
    RunFolder(path).write_config(Run(env, mix={"adam": 1}, **settings))
    return path


def evolute(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(map(str, words)))
    return ended.value.code, *capsys.readouterr()


@pytest.fixture
def painted(tmp_path, monkeypatch):
    """A run of an environment that draws by itself: MuJoCo needs no way to draw, and none works."""
    monkeypatch.setattr(graphics, "works", lambda way: False)
    return folder_of(tmp_path / "run", "test_video:Painted()", 2)


def read(path):
    """Return the pictures of a .gif [height, width, 3], and for how many milliseconds each is shown."""
    with Image.open(path) as animated:
        frames = [(np.array(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(animated)]
    return [pixels for pixels, _ in frames], [duration for _, duration in frames]


@pytest.mark.parametrize(
    ("words", "expected", "pace"),
    [
        ((), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "11 pictures, 4 a second"),
        # The end belongs to it.
        (("--fps", "1.3"), [0, 3, 6, 9, 10], "5 pictures, 1.33 a second"),
        (("--fps", "2", "--episodes", "2"), [0, 2, 4, 6, 8, 10] * 2, "12 pictures, 2 a second"),
    ],
)
def test_a_video_runs_in_real_time(painted, capsys, tmp_path, words, expected, pace):
    out = tmp_path / "a.gif"
    code, said, err = evolute(capsys, "video", painted, "--allow-import", "test_video", "--out", out, *words)
    assert code == 0, err
    assert f"{out}: the best policy, of member 0 (adam); return" in said
    assert pace in said
    assert "drawn with" not in said
    pixels, durations = read(out)
    assert [round(float(picture.mean()) / 20) for picture in pixels] == expected
    seconds = {"4": 0.25, "1.33": 0.75, "2": 0.5}[pace.split()[2]]
    assert durations == [1000 * seconds] * len(expected)


# imageio-ffmpeg's reader leaves its pipes to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_video_in_mp4(painted, capsys):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    assert evolute(capsys, "video", painted, "--allow-import", "test_video", "--fps", "2")[0] == 0
    about, *pictures = ffmpeg.read_frames(str(painted / "videos" / "best.mp4"))
    assert (about["codec"], about["fps"], about["source_size"]) == ("h264", 2.0, (8, 6))
    assert [round(float(np.frombuffer(picture, np.uint8).mean()) / 20) for picture in pictures] == [0, 2, 4, 6, 8, 10]
    code, _, err = evolute(capsys, "video", painted, "--allow-import", "test_video")
    assert code == 2
    assert "best.mp4', which exists" in err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_full_disk_leaves_nothing_behind(painted, capsys, tmp_path, name):
    pytest.importorskip("imageio_ffmpeg")
    # Files may have so many bytes, which is how a test fills a disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        code, _, err = evolute(capsys, "video", painted, "--allow-import", "test_video", "--out", tmp_path / "there" / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert f"{name}' cannot be written: " in err
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        ({}, (), "--allow-import test_video"),
        ({}, ("--width", "64"), "--width, --height and --camera are MuJoCo's"),
        ({"draws": ""}, (), "the environment 'test_video:Painted()' draws nothing, and rgb_array is needed"),
        ({"draws": "ansi"}, (), "has the render modes ansi, and rgb_array is needed"),
        ({"shape": [4, 4]}, (), "drew no picture of uint8 [height, width, 3]"),
        ({"shape": None}, (), "cannot draw; it says 'no brush'"),
    ],
)
def test_an_environment_that_does_not_draw_is_one_sentence(tmp_path, capsys, monkeypatch, settings, words, said):
    monkeypatch.setattr(graphics, "works", lambda way: False)
    monkeypatch.setattr(
        Painted.__init__, "__defaults__", (None, *({"draws": "rgb_array", "shape": (6, 8, 3)} | settings).values())
    )
    run = folder_of(tmp_path / "run", "test_video:Painted()", 2)
    allow = ("--allow-import", "test_video") if "--allow-import" not in said else ()
    code, _, err = evolute(capsys, "video", run, *allow, "--out", tmp_path / "a.gif", *words)
    assert code == 2
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "a.avi"), "--out is 'a.avi'; its name must end with .mp4 or .gif."),
        (("--fps", "0"), "--fps is 0; it must be a number of pictures a second above 0 and at most 1000, such as 25."),
        (("--width", "65"), "--width is 65; it must be an even number of pixels from 16 to 4096, such as 480."),
        (("--height", "2"), "--height is 2; it must be a whole number, at least 16"),
        (("--episodes", "0"), "--episodes is 0; it must be a whole number, at least 1"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, capsys, words, said):
    code, out, err = evolute(capsys, "video", tmp_path, *words)
    assert (code, out) == (2, "")
    assert said in err


def test_a_missing_package_is_named(painted, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    code, _, err = evolute(capsys, "video", painted, "--allow-import", "test_video")
    assert (code, err) == (
        2,
        "evolute: a video .mp4 needs the package 'imageio_ffmpeg', which is not installed; install it with: "
        "pip install 'evolute[video]'.\n",
    )


# ------------------------------------------------------------------------------------------------------ ways to draw


def test_the_first_way_that_works_is_taken(monkeypatch):
    tried = []
    monkeypatch.setattr(graphics, "works", lambda way: tried.append(way) or way == "osmesa")
    assert graphics.choose() == "OSMesa"
    assert (tried, os.environ["MUJOCO_GL"]) == (["egl", "osmesa"], "osmesa")
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setattr(graphics, "works", lambda way: True)
    assert graphics.choose() == "a hidden window"


def test_a_way_that_fails_is_found_out_in_a_process_of_its_own():
    assert not graphics.works("nonsense")


def test_a_machine_on_which_nothing_draws_is_one_sentence(tmp_path, capsys, monkeypatch):
    run = folder_of(tmp_path / "run", "InvertedPendulum-v4", 4)
    monkeypatch.setattr(graphics, "works", lambda way: False)
    code, _, err = evolute(capsys, "video", run, "--out", tmp_path / "a.gif")
    assert code == 2
    assert "install one of them, such as with `apt install libegl1 libegl-mesa0` or `apt install libosmesa6`" in err
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    code, _, err = evolute(capsys, "video", run, "--out", tmp_path / "a.gif")
    assert (code, "MUJOCO_GL is 'osmesa', by which MuJoCo cannot draw here" in err) == (2, True)


def test_mujoco_draws_without_a_display(tmp_path, capsys, monkeypatch):
    if not graphics.works("egl"):
        pytest.skip("EGL does not draw here")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    run, out = folder_of(tmp_path / "run", "Hopper-v4", 11, 3, max_episode_steps=8), tmp_path / "a.gif"
    words = ("video", run, "--out", out, "--width", "64", "--height", "48")
    code, said, err = evolute(capsys, *words, "--camera", "track")
    assert code == 0, err
    # Hopper-v4 has 125 steps a second: every fourth is drawn, and the last.
    assert "3 pictures, 31.2 a second, drawn with EGL" in said
    pictures, durations = read(out)
    assert set(durations) == {30}  # hundredths of a second are all that a .gif has
    assert all(picture.shape[:2] == (48, 64) for picture in pictures)
    assert all(picture.std() > 10 for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[-1])
    code, _, err = evolute(capsys, *words[:-6], "--out", tmp_path / "b.gif", "--camera", "trak")
    assert (code, err) == (2, "evolute: --camera is 'trak' (did you mean 'track'?); choose from track.\n")


# ------------------------------------------------------------------------------------------------------------ a window


def test_without_a_display_no_window_opens(painted, capsys, monkeypatch):
    for name, value in (("DISPLAY", ":5999"), ("DISPLAY", ""), ("WAYLAND_DISPLAY", "")):
        monkeypatch.setenv(name, value)
        assert not graphics.has_display()
    code, _, err = evolute(capsys, "play", painted)
    assert code == 2
    assert err == f"evolute: no window can be opened here: there is no display; make a video: evolute video {painted}.\n"
    monkeypatch.setattr(graphics, "has_display", lambda: True)
    monkeypatch.setenv("MUJOCO_GL", "")
    code, _, err = evolute(capsys, "play", painted, "--allow-import", "test_video")
    assert code == 2
    assert "has the render modes rgb_array, and human is needed" in err


@pytest.mark.slow
def test_a_window_opens_where_there_is_a_display(tmp_path):
    server = shutil.which("xvfb-run")
    if server is None:
        pytest.skip("there is no X server for tests (apt install xvfb)")
    run = folder_of(tmp_path / "run", "InvertedPendulum-v4", 4)
    command = [server, "-a", sys.executable, "-m", "evolute", "play", str(run), "--episodes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["episode 1", "episode 2"]
