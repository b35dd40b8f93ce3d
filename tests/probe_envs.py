"""Toy environments with known answers, for `probe_envs:NAME-v0`; importing this module registers them."""

import asyncio
import atexit
import collections
import ctypes
import locale
import os
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Text, Tuple

LIMIT = 3
# What the bandit pays most for.
BEST_ACTION = 0.5


class Episodes(gymnasium.Env):
    """Observes (episode, step of the episode), so a transition that joins two episodes shows; each step pays 1."""

    # Whether an episode's last step truncates or terminates.
    ending: ClassVar[tuple[bool, bool]] = (False, True)
    action_space: gymnasium.Space = Box(-1.0, 1.0, (1,))
    observation_space: gymnasium.Space = Box(-np.inf, np.inf, (2,))

    def __init__(self) -> None:
        self.episode, self.count = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self.observed(), {}

    def step(self, action):
        self.count += 1
        terminated, truncated = self.ending if self.count == LIMIT else (False, False)
        return self.observed(), self.paid(np.asarray(action)), terminated, truncated, {}

    def observed(self) -> np.ndarray:
        return np.array([self.episode, self.count], np.float32)

    def paid(self, action: np.ndarray) -> float:
        return 1.0


class Wide(Episodes):
    """Observes a thousand numbers, so that a replay is more than a pipe holds."""

    observation_space = Box(-np.inf, np.inf, (1000,))

    def observed(self) -> np.ndarray:
        return np.full(1000, self.count, np.float32)


class Ends(Episodes):
    """Terminates after three steps."""

    ending = (True, False)


class Endless(Episodes):
    """Never ends."""

    ending = (False, False)


class NotANumber(Episodes):
    """Pays NaN."""

    def paid(self, action: np.ndarray) -> float:
        return float("nan")


class Noisy(Episodes):
    """Pays a random number that the seed of an episode decides."""

    def paid(self, action: np.ndarray) -> float:
        return float(self.np_random.uniform())


class Jackpot(Noisy):
    """Pays more than single precision can square in one step of a process, `AT`, which lies behind those of the fingerprint."""

    AT: ClassVar[int] = 440
    steps: ClassVar[int] = 0

    def paid(self, action: np.ndarray) -> float:
        type(self).steps += 1
        return 1e25 if self.steps == self.AT else super().paid(action)


class Bandit(Episodes):
    """One step, always the same observation; pays 1 - (action - BEST_ACTION)²."""

    def step(self, action):
        return self.observed(), 1.0 - float(np.sum((action - BEST_ACTION) ** 2)), True, False, {}

    def observed(self) -> np.ndarray:
        return np.zeros(2, np.float32)


class Distant(gymnasium.Env):
    """Observes 1000 ± 50, anew in every step, and a constant; pays 1 - (action - what it observed, in units of 50)²."""

    action_space = Box(-1.0, 1.0, (1,))
    observation_space = Box(-np.inf, np.inf, (2,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.count = 0
        return self.observed(), {}

    def observed(self) -> np.ndarray:
        self.wanted = float(self.np_random.uniform(-1.0, 1.0))
        return np.array([1000.0 + 50.0 * self.wanted, -3.0], np.float32)

    def step(self, action):
        paid = 1.0 - (float(action[0]) - self.wanted) ** 2
        self.count += 1
        return self.observed(), paid, False, self.count == 10, {}


class Bounds(Episodes):
    """Has asymmetric action bounds; refuses an action outside them and observes the last one."""

    action_space = Box(np.array([-1.0, 0.0, 5.0], np.float32), np.array([3.0, 0.5, 7.0], np.float32))
    observation_space = Box(-np.inf, np.inf, (3,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return np.zeros(3), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        _, reward, terminated, truncated, info = super().step(action)
        return action.astype(np.float64), reward, terminated, truncated, info


class Checking(Episodes):
    """Accepts what its action space contains and has the type of, and observes the last action."""

    def __init__(self, low: list[float], high: list[float], dtype: str):
        super().__init__()
        self.action_space = Box(np.array(low, dtype), np.array(high, dtype), dtype=np.dtype(dtype).type)
        self.observation_space = Box(-np.inf, np.inf, (len(low),), np.float64)

    def observed(self) -> np.ndarray:
        return np.zeros(len(self.action_space.low)) if not self.count else np.tanh(self.action.astype(np.float64))

    def step(self, action):
        assert self.action_space.contains(action), action
        assert action.dtype == self.action_space.dtype, action.dtype
        self.action = action
        return super().step(action)


STRICT: dict[str, tuple[list[float], list[float], str]] = {
    # -2 + 2 · 0.5 · 2.12 is 0.1200000000000001.
    "Narrow": ([-2.0], [0.12], "float64"),
    "Half": ([-0.1, 1e-7], [0.3, 6e4], "float16"),
    "Widest": ([-1.7e308, 0.0], [1.7e308, 5e-324], "float64"),
    "Fixed": ([0.1, -1.0], [0.1, 1.0], "float32"),
}


class Spaces(Episodes):
    """Has any spaces."""

    def __init__(self, actions: Any = Episodes.action_space, observations: Any = Episodes.observation_space):
        super().__init__()
        self.action_space, self.observation_space = actions, observations

    def observed(self) -> np.ndarray:
        return self.observation_space.sample()


class Raising(Episodes):
    """Cannot say what it observes."""

    @property
    def observation_space(self) -> gymnasium.Space:  # type: ignore[override]
        raise KeyError("the simulator has not started")


class Changing(Episodes):
    """Has another action space every time it is asked."""

    asked: ClassVar[int] = 0

    @property
    def action_space(self) -> gymnasium.Space:  # type: ignore[override]
        type(self).asked += 1
        return Box(-1.0, float(self.asked), (1,))


class Growing(Episodes):
    """Observes more numbers with every instance."""

    made: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1
        self.observation_space = Box(-1.0, 1.0, (1 + self.made,))


def _in_itself() -> Dict:
    space = Dict({"position": Box(-1.0, 1.0, (2,))})
    space.spaces["again"] = space
    return space


def _turned() -> Box:
    space = Box(-1.0, 1.0, (2,))
    space.low, space.high = space.high, space.low
    return space


def _not_a_number() -> Box:
    space = Box(-1.0, 1.0, (2,))
    space.low[0] = np.nan
    return space


SPACES: dict[str, dict[str, Any]] = {
    "Whole": {"actions": Box(0, 4, (2,), np.int64)},
    "Bytes": {"actions": Box(0, 255, (2,), np.uint8)},
    "Switches": {"actions": Box(0, 1, (2,), np.bool_)},
    "LongActions": {"actions": Box(-1.0, 1.0, (1,), np.longdouble)},
    "NoActions": {"actions": Box(-1.0, 1.0, (0,))},
    "SeveralActions": {"actions": Tuple([Box(-1.0, 1.0, (2,)), Box(-1.0, 1.0, (2,))])},
    "UnboundedSquare": {"actions": Box(-np.inf, np.inf, (2, 3), np.float64)},
    "OneNumber": {"actions": Box(-1.0, 1.0, ())},
    "Turned": {"actions": _turned()},
    "NaNBound": {"actions": _not_a_number()},
    "ActionsInThemselves": {"actions": _in_itself()},
    "NoSpace": {"actions": None},
    "NoNumbers": {"observations": Box(-1.0, 1.0, (0,))},
    "Words": {"observations": Text(8)},
    "Pair": {"observations": Tuple([Box(-1.0, 1.0, (2,)), Discrete(3)])},
    "Levels": {"observations": Discrete(4)},
    "Number": {"observations": Box(-1.0, 1.0, ())},
    "Nested": {
        "observations": Dict(
            {
                "sensors": Dict({"torques": Box(-1.0, 1.0, (2, 2)), "angles": Box(-1.0, 1.0, (2,), np.float64)}),
                "switches": MultiBinary(3),
                "levels": MultiDiscrete([2, 3]),
                "mode": Tuple([Discrete(3, start=-1), Box(0, 9, (1,), np.int64)]),
            }
        )
    },
    "AnyLength": {"observations": Sequence(Box(-1.0, 1.0, (2,)))},
    "InItself": {"observations": _in_itself()},
    "NoObservationSpace": {"observations": None},
}


class Unseeded(Episodes):
    """Observes a number of its own generator, which no reset seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng()

    def observed(self) -> np.ndarray:
        return np.array([self.rng.uniform(), self.count], np.float32)


class Shared(Episodes):
    """Observes a number of a generator that all instances share and that every process begins alike."""

    rng: ClassVar[np.random.Generator] = np.random.default_rng(0)

    def observed(self) -> np.ndarray:
        return np.array([self.rng.uniform(), self.count], np.float32)


class Scale(Noisy):
    """Observes and pays numbers of any size."""

    def __init__(self, observation: float = 1.0, reward: float = 1.0):
        super().__init__()
        self.sizes = observation, reward

    def observed(self) -> np.ndarray:
        return np.array([self.sizes[0], self.count], np.float32)

    def paid(self, action: np.ndarray) -> float:
        return self.sizes[1] * super().paid(action)


class Broken(Episodes):
    """Cannot be created."""

    def __init__(self) -> None:
        raise RuntimeError("the licence of the simulator\n  has expired.")


class Unbounded(Episodes):
    """Has actions without a bound above."""

    action_space = Box(0.0, np.inf, (1,))


class Square(Episodes):
    """Has actions that are no vector."""

    action_space = Box(-1.0, 1.0, (2, 2))


class Image(Episodes):
    """Observes an image."""

    observation_space = Box(0, 255, (8, 8, 3), np.uint8)


class Parts(Episodes):
    """Observes a dictionary."""

    observation_space = Dict({"position": Box(-1.0, 1.0, (2,))})


class OddError(Exception):
    """Cannot be made from its message, nor pickled."""

    def __init__(self, first: int, second: int):
        super().__init__(f"{first} and\n{second}")
        self.unpicklable = lambda: None


class SilentError(Exception):
    """Says nothing, and cannot even say that."""

    def __str__(self) -> str:
        raise RuntimeError


class NoException(BaseException):
    """Slips through whoever expects an Exception."""


def _spin() -> None:
    """Ignore a polite request to end, and never return."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def _sleep() -> None:
    """Say so, and never return."""
    print("sleeping", flush=True)
    time.sleep(1e6)


def _raise(error: BaseException) -> Any:
    raise error


# What a faulty step does or returns: (observation, reward, terminated, truncated, info), or anything else.
FAULTS: dict[str, Any] = {
    "Raises": lambda obs: _raise(ValueError("the joint\x1b[31m has come off")),
    "RaisesOddly": lambda obs: _raise(OddError(1, 2)),
    "RaisesSilently": lambda obs: _raise(SilentError()),
    "NaNObservation": lambda obs: (np.array([0.0, np.nan]), 1.0, False, False, {}),
    "InfiniteObservation": lambda obs: (np.array([np.inf, 0.0]), 1.0, False, False, {}),
    "WrongShape": lambda obs: (obs[None], 1.0, False, False, {}),
    "OneTooMany": lambda obs: (np.zeros(3), 1.0, False, False, {}),
    "NoObservation": lambda obs: (None, 1.0, False, False, {}),
    "TextObservation": lambda obs: ("up", 1.0, False, False, {}),
    "NumbersAsText": lambda obs: (np.array(["0", "1"]), 1.0, False, False, {}),
    "ComplexObservation": lambda obs: (obs + 1j, 1.0, False, False, {}),
    "TextInObservation": lambda obs: (np.array([0.0, "1"], object), 1.0, False, False, {}),
    "HugeObservation": lambda obs: (np.array([0.0, 1e39]), 1.0, False, False, {}),
    "TextTerminated": lambda obs: (obs, 1.0, "False", False, {}),
    "TextTruncated": lambda obs: (obs, 1.0, False, "False", {}),
    "NoTerminated": lambda obs: (obs, 1.0, None, False, {}),
    "NoTruncated": lambda obs: (obs, 1.0, False, None, {}),
    "ArrayTerminated": lambda obs: (obs, 1.0, np.zeros(2, bool), False, {}),
    "EmptyTruncated": lambda obs: (obs, 1.0, False, [], {}),
    "TwiceTerminated": lambda obs: (obs, 1.0, 2, False, {}),
    "NaNTruncated": lambda obs: (obs, 1.0, False, float("nan"), {}),
    "TextReward": lambda obs: (obs, "1.0", False, False, {}),
    "ComplexReward": lambda obs: (obs, 1 + 0j, False, False, {}),
    "ObjectReward": lambda obs: (obs, object(), False, False, {}),
    "NaNReward": lambda obs: (obs, float("nan"), False, False, {}),
    "InfiniteReward": lambda obs: (obs, np.float32(-np.inf), False, False, {}),
    "HugeReward": lambda obs: (obs, 1e39, False, False, {}),
    "ArrayReward": lambda obs: (obs, np.ones(1), False, False, {}),
    "NoReward": lambda obs: (obs, None, False, False, {}),
    "FourValues": lambda obs: (obs, 1.0, False, {}),
    "Quits": lambda obs: _raise(SystemExit(0)),
    "Interrupts": lambda obs: _raise(KeyboardInterrupt("no key was pressed")),
    "EndsGenerator": lambda obs: _raise(GeneratorExit()),
    "Cancels": lambda obs: _raise(asyncio.CancelledError("the task is off")),
    "RaisesNoException": lambda obs: _raise(NoException("base")),
    "Sleeps": lambda obs: _sleep(),
    "Spins": lambda obs: _spin(),
    "Exits": lambda obs: os._exit(7),
    "Crashes": lambda obs: os.kill(os.getpid(), signal.SIGSEGV),
}


class Faulty(Noisy):
    """Its third step since it was made has a fault, or its first reset. Each instance begins anew."""

    def __init__(self, fault: str = "Raises", in_reset: bool = False):
        super().__init__()
        self.fault, self.in_reset, self.steps = fault, in_reset, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        obs, info = super().reset(seed=seed)
        return FAULTS[self.fault](obs)[:2] if self.in_reset else (obs, info)

    def step(self, action):
        self.steps += 1
        returned = super().step(action)
        return FAULTS[self.fault](returned[0]) if self.steps == 3 and not self.in_reset else returned


class Sporadic(Noisy):
    """Every 50th step of a process has a fault, or every 20th reset, whichever instance takes it."""

    calls: ClassVar[collections.Counter[str]] = collections.Counter()

    def __init__(self, fault: str = "Raises", in_reset: bool = False):
        super().__init__()
        self.fault, self.in_reset = fault, in_reset

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.calls["reset"] += 1
        obs, info = super().reset(seed=seed)
        return FAULTS[self.fault](obs)[:2] if self.in_reset and self.calls["reset"] % 20 == 0 else (obs, info)

    def step(self, action):
        self.calls["step"] += 1
        returned = super().step(action)
        return FAULTS[self.fault](returned[0]) if not self.in_reset and self.calls["step"] % 50 == 0 else returned


class Planned(Noisy):
    """Fails in the calls that `plan` numbers, over all instances, and keeps a log of the sound transitions."""

    plan: ClassVar[dict[str, set[int]]] = {}
    calls: ClassVar[collections.Counter[str]] = collections.Counter()
    log: ClassVar[list[tuple[Any, ...]]] = []
    made: ClassVar[int] = 0

    @classmethod
    def start(cls, **plan: set[int]) -> None:
        """Forget everything and follow a new plan."""
        cls.plan, cls.made = plan, 0
        cls.calls.clear()
        cls.log.clear()

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1
        # No two episodes of a run look alike.
        self.episode = 1_000 * self.made
        self.fail("make")

    def fail(self, call: str) -> None:
        self.calls[call] += 1
        if self.calls[call] in self.plan.get(call, ()):
            raise RuntimeError(f"{call} {self.calls[call]} of the plan")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.fail("reset")
        return super().reset(seed=seed)

    def step(self, action):
        before = self.observed()
        self.fail("step")
        obs, reward, terminated, truncated, info = super().step(action)
        self.log.append((before, np.array(action), reward, obs, terminated))
        return obs, reward, terminated, truncated, info


class Reuses(Episodes):
    """Hands out the same array every time."""

    def __init__(self) -> None:
        super().__init__()
        self.array = np.zeros(2, np.float32)

    def observed(self) -> np.ndarray:
        self.array[:] = self.episode, self.count
        return self.array


class Remembers(Episodes):
    """Keeps a count through resets, seeded or not."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def observed(self) -> np.ndarray:
        self.total += 1
        return np.array([self.total, self.count], np.float32)


class Starts(Episodes):
    """Starts a process, observes its number, and hangs in its first step."""

    observation_space = Box(-np.inf, np.inf, (2,))

    def observed(self) -> np.ndarray:
        if self.count:
            _spin()
        # Thousands apart: a process number need not fit a float32.
        number = subprocess.Popen(["sleep", "1000"]).pid
        return np.array(divmod(number, 1000), np.float32)


class Locks(Starts):
    """Hangs in native code, which holds the interpreter's lock."""

    def observed(self) -> np.ndarray:
        if self.count:
            # No time is left to a thread.
            ctypes.PyDLL(None).sleep(1000)
        return super().observed()


class Part(Noisy):
    """Fails in one part of it that is not a step, and in none of its siblings."""

    def __init__(self, part: str, fault: str):
        super().__init__()
        self.part, self.fault = part, fault
        self.fails("make")

    def fails(self, part: str) -> None:
        if part == self.part:
            FAULTS[self.fault](None)

    @property
    def action_space(self) -> gymnasium.Space:
        self.fails("spaces")
        return Box(-1.0, 1.0, (1,))

    def close(self) -> None:
        self.fails("close")


class Slow(Endless):
    """From its 250th step on, which no short interval reaches, it is slow, and leaves a file that says so."""

    def observed(self) -> np.ndarray:
        if self.count > 250:
            open("slow", "w").close()
            time.sleep(0.1)
        return super().observed()


class Sluggish(Endless):
    """Takes a second for a step."""

    def paid(self, action: np.ndarray) -> float:
        time.sleep(1)
        return 1.0


STOPPING = (signal.SIGINT, signal.SIGTERM)


class Ignores(Noisy):
    """Wants no signal to stop anything, and says so at every step."""

    def paid(self, action: np.ndarray) -> float:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        return super().paid(action)


class IgnoresNatively(Noisy):
    """Wants no signal to stop anything, and asks the system for that: when it is made, and at its first step."""

    def __init__(self) -> None:
        super().__init__()
        self.ignore()

    def ignore(self) -> None:
        native = ctypes.CDLL(None).signal
        native.argtypes, native.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        for number in STOPPING:
            native(number, int(signal.SIG_IGN))

    def paid(self, action: np.ndarray) -> float:
        if self.episode == 0 and self.count == 1:
            self.ignore()
        return super().paid(action)


class Lingers(Noisy):
    """Leaves a thread and an exit handler behind, neither of which ends."""

    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=time.sleep, args=(1000,)).start()
        atexit.register(time.sleep, 1000)


class Forks(Noisy):
    """Is in two processes from its first step on."""

    def paid(self, action: np.ndarray) -> float:
        if self.episode == 0 and self.count == 1:
            with warnings.catch_warnings(action="ignore"):
                os.fork()
        return super().paid(action)


class Moves(Noisy):
    """Goes to another folder when it is made, and at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.move()

    def move(self) -> None:
        # To and fro: no folder is the last one.
        os.chdir("/" if os.getcwd() != "/" else tempfile.gettempdir())

    def paid(self, action: np.ndarray) -> float:
        self.move()
        return super().paid(action)


class Strict(Noisy):
    """Changes settings of the whole process, when it is made and at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.change()

    def change(self) -> None:
        np.seterr(all="raise")
        warnings.simplefilter("error")
        os.umask(0o777)
        locale.setlocale(locale.LC_ALL, "C")

    def paid(self, action: np.ndarray) -> float:
        self.change()
        return super().paid(action)


class Process(Episodes):
    """Observes the process that it runs in."""

    def observed(self) -> np.ndarray:
        return np.array(divmod(os.getpid(), 1000), np.float32)


for name in FAULTS:
    gymnasium.register(f"{name}-v0", entry_point=Faulty, kwargs={"fault": name})
    gymnasium.register(f"{name}InReset-v0", entry_point=Faulty, kwargs={"fault": name, "in_reset": True})
    gymnasium.register(f"Sometimes{name}-v0", entry_point=Sporadic, kwargs={"fault": name})
    gymnasium.register(f"Sometimes{name}InReset-v0", entry_point=Sporadic, kwargs={"fault": name, "in_reset": True})
    for part in ("make", "spaces", "close"):
        gymnasium.register(f"{name}In{part.title()}-v0", entry_point=Part, kwargs={"part": part, "fault": name})

for name, bounds in STRICT.items():
    gymnasium.register(f"{name}-v0", entry_point=Checking, kwargs=dict(zip(("low", "high", "dtype"), bounds, strict=True)))
for name, spaces in SPACES.items():
    gymnasium.register(f"{name}-v0", entry_point=lambda spaces=spaces: Spaces(**spaces))

for name, made in {
    "Unseeded": Unseeded,
    "Shared": Shared,
    "Raising": Raising,
    "Changing": Changing,
    "Growing": Growing,
    "Locks": Locks,
    "Slow": Slow,
    "Sluggish": Sluggish,
    "Ignores": Ignores,
    "IgnoresNatively": IgnoresNatively,
    "Lingers": Lingers,
    "Forks": Forks,
    "Moves": Moves,
    "Strict": Strict,
    "Planned": Planned,
    "Reuses": Reuses,
    "Remembers": Remembers,
    "Starts": Starts,
    "Process": Process,
    "Limit": Episodes,
    "Ends": Ends,
    "Wide": Wide,
    "Endless": Endless,
    "NaN": NotANumber,
    "Noisy": Noisy,
    "Jackpot": Jackpot,
    "Bandit": Bandit,
    "Distant": Distant,
    "Bounds": Bounds,
    "Broken": Broken,
    "Unbounded": Unbounded,
    "Square": Square,
    "Image": Image,
    "Parts": Parts,
}.items():
    gymnasium.register(f"{name}-v0", entry_point=made)
