"""Environments that fail, in this process and in one of their own."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest

import probe_envs
from evolute.environments import isolation
from evolute.environments.gym import Environment, EnvironmentFault, physics_fingerprint
from evolute.errors import UserError
from evolute.interruption import interruptible

STILL = np.zeros(1, np.float32)
SAID = {
    "Raises": "ValueError: the joint\\x1b[31m has come off",
    "RaisesOddly": "OddError: 1 and 2",
    "RaisesSilently": "SilentError: an error that cannot be shown",
    "NaNObservation": "its observation is not finite in single precision: [ 0. nan]",
    "InfiniteObservation": "its observation is not finite in single precision: [inf 0.]",
    "WrongShape": "its observation has the shape (1, 2), not (2,)",
    "OneTooMany": "its observation has the shape (3,), not (2,)",
    "NoObservation": "its observation is None, which is no array of numbers",
    "TextObservation": "its observation is 'up', which is no array of numbers",
    "NaNReward": "its reward is nan, which is not finite in single precision",
    "InfiniteReward": "its reward is -inf, which is not finite in single precision",
    "HugeReward": "its reward is 1e+39, which is not finite in single precision",
    "ArrayReward": "its reward is array([1.]), which is no number",
    "NoReward": "its reward is None, which is no number",
    "FourValues": "ValueError: not enough values to unpack (expected 5, got 4)",
    "Quits": "SystemExit: 0",
    "EndsGenerator": "GeneratorExit",
    "Cancels": "CancelledError: the task is off",
    "RaisesNoException": "NoException: base",
}
ENDS_ITS_PROCESS = {
    "Sleeps": "it did not return within 1 seconds, so its process was killed",
    "Spins": "it did not return within 1 seconds, so its process was killed",
    "Exits": "its process ended with exit code 7 before it answered",
    "Crashes": "its process was ended by signal 11 before it answered",
}
FAULTY_RESETS = ("Raises", "NaNObservation", "WrongShape", "NoObservation", "Quits", "RaisesNoException")


@contextlib.contextmanager
def made(name, time_limit=0.0):
    environment = Environment(f"probe_envs:{name}-v0", time_limit)
    try:
        yield environment
    finally:
        environment.close()


def process(environment):
    return environment._env._child.pid


def is_running(number):
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def fails_at_the_third_step(environment, said):
    environment.reset(0)
    first = [environment.step(STILL), environment.step(STILL)]
    with pytest.raises(EnvironmentFault) as fault:
        environment.step(STILL)
    assert (fault.value.call, fault.value.message) == ("step", said)
    return first


@pytest.mark.parametrize("name", SAID)
def test_a_fault_in_a_step_says_what_is_wrong_and_a_rebuilt_environment_works(name):
    with made(name) as environment:
        once = fails_at_the_third_step(environment, SAID[name])
        environment.rebuild()
        again = fails_at_the_third_step(environment, SAID[name])
        # The seed decides the noisy rewards, before and after.
        assert [step.reward for step in once] == [step.reward for step in again]


@pytest.mark.parametrize("name", FAULTY_RESETS)
def test_a_fault_in_a_reset_says_what_is_wrong(name):
    with made(f"{name}InReset") as environment, pytest.raises(EnvironmentFault) as fault:
        environment.reset(0)
    assert (fault.value.call, fault.value.message) == ("reset", SAID[name])


@pytest.mark.parametrize(
    ("name", "time_limit"),
    [("Quits", 0), ("Interrupts", 0), ("EndsGenerator", 0), ("Cancels", 0), ("RaisesNoException", 0), ("Quits", 20)],
)
def test_what_is_no_exception_is_a_mistake_where_an_environment_is_made_and_nothing_where_it_is_closed(name, time_limit):
    with interruptible():
        for part, what in (("Make", "cannot be created"), ("Spaces", "has spaces that cannot be read")):
            with pytest.raises(UserError, match=rf"{what}; it says '.+'; fix (it|them)"):
                Environment(f"probe_envs:{name}In{part}-v0", time_limit)
        with made(f"{name}InClose", time_limit) as environment:
            environment.reset(0)
            environment.rebuild()
            environment.reset(0)


def test_ctrl_c_is_nobodys_fault_and_a_keyboard_interrupt_of_the_environments_own_is():
    with made("Interrupts") as environment:
        environment.reset(0)
        environment.step(STILL)
        environment.step(STILL)
        # It looks like a key that was pressed.
        with pytest.raises(KeyboardInterrupt):
            environment.step(STILL)
    with interruptible(), made("Interrupts") as environment:
        fails_at_the_third_step(environment, "KeyboardInterrupt: no key was pressed")
    with interruptible(), made("InterruptsInReset") as environment, pytest.raises(EnvironmentFault, match="no key was pressed"):
        environment.reset(0)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_a_handler_of_the_librarys_user_raises_stops_a_step(error):
    def stop(number, frame):
        raise error

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with made("Sleeps") as environment:
            environment.reset(0)
            environment.step(STILL)
            environment.step(STILL)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(error):
                environment.step(STILL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["RaisesOddly", "RaisesSilently", "NaNObservation", "FourValues", "Quits"])
def test_a_fault_in_another_process_says_the_same(name):
    with made(name, time_limit=20.0) as environment:
        number = process(environment)
        fails_at_the_third_step(environment, SAID[name])
        environment.rebuild()
        # The process has done nothing wrong.
        assert process(environment) == number
        fails_at_the_third_step(environment, SAID[name])
    assert not is_running(number)


@pytest.mark.parametrize("name", ENDS_ITS_PROCESS)
def test_a_process_that_hangs_or_dies_is_replaced_and_none_is_left(name):
    with made(name, time_limit=1.0) as environment:
        number = process(environment)
        fails_at_the_third_step(environment, ENDS_ITS_PROCESS[name])
        assert not is_running(number)
        environment.rebuild()
        second = process(environment)
        assert second != number
        environment.reset(0)
        environment.step(STILL)
    assert not is_running(second)


# A parent that is asked to end while what it started hangs: it says who that is, and waits in a step.
PARENT = """
import os, sys, threading
import numpy
from evolute.environments.gym import Environment
from evolute.interruption import interruptible

with interruptible():
    environment = Environment(sys.argv[1], time_limit=300)
    high, low = environment.reset(0)
    print(environment._env._child.pid, int(high) * 1000 + int(low), flush=True)
    if sys.argv[2] == "exit":
        threading.Timer(1, os._exit, (0,)).start()
    environment.step(numpy.zeros(1, numpy.float32))
"""
ENDS = {
    "exit": (),
    "kill": (signal.SIGKILL,),
    "quit": (signal.SIGQUIT,),
    "terminate": (signal.SIGTERM, signal.SIGTERM),
    "interrupt": (signal.SIGINT, signal.SIGINT),
    "hang up": (signal.SIGHUP, signal.SIGHUP),
    "one and another": (signal.SIGUSR1, signal.SIGTERM),
}


@pytest.mark.parametrize(("name", "end"), [*(("Starts", end) for end in ENDS), ("Locks", "kill"), ("Locks", "terminate")])
def test_a_hung_process_ends_with_its_parent_however_that_ends(name, end):
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", PARENT, f"probe_envs:{name}-v0", end]
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        group = []
        try:
            group = [int(number) for number in parent.stdout.readline().split()]
            assert len(group) == 2, parent.stderr.read()
            assert all(map(is_running, group))
            # Into the step.
            time.sleep(0.3)
            for number in ENDS[end]:
                parent.send_signal(number)
                time.sleep(0.3)
            # Nobody holds its output any more.
            parent.communicate(timeout=30)
            give_up = time.monotonic() + 10
            while any(map(is_running, group)) and time.monotonic() < give_up:
                time.sleep(0.01)
            assert not any(map(is_running, group))
        finally:
            parent.kill()
            for number in group:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)


def test_what_an_environment_started_ends_with_it():
    for end in ("close", "rebuild"):
        with made("Starts", time_limit=20.0) as environment:
            high, low = environment.reset(0)
            started = int(high) * 1000 + int(low)
            assert is_running(started)
            if end == "rebuild":
                os.kill(process(environment), signal.SIGKILL)
                with pytest.raises(EnvironmentFault, match="was ended by signal 9"):
                    environment.step(STILL)
        give_up = time.monotonic() + 10
        while is_running(started) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert not is_running(started)


def test_an_environment_that_hangs_while_it_closes_costs_its_process_and_no_fault(monkeypatch):
    monkeypatch.setattr(isolation, "CLOSE_LIMIT", 0.5)
    with made("SpinsInClose", time_limit=20.0) as environment:
        environment.reset(0)
        number = process(environment)
        environment.rebuild()
        assert not is_running(number)
        environment.reset(0)
        number = process(environment)
    assert not is_running(number)


def test_an_environment_that_hangs_while_it_is_made_is_given_up(monkeypatch):
    monkeypatch.setattr(isolation, "START_LIMIT", 4.0)
    with pytest.raises(UserError, match="it did not return within 4 seconds, so its process was killed"):
        Environment("probe_envs:SpinsInMake-v0", time_limit=1.0)


def test_a_reset_that_hangs_is_a_fault():
    with made("SpinsInReset", time_limit=0.5) as environment:
        number = process(environment)
        with pytest.raises(EnvironmentFault, match="in reset: it did not return within"):
            environment.reset(0)
        assert not is_running(number)


def test_what_a_hung_environment_started_is_killed_with_it():
    with made("Starts", time_limit=2.0) as environment:
        high, low = environment.reset(0)
        started = int(high) * 1000 + int(low)
        assert is_running(started)
        with pytest.raises(EnvironmentFault, match="did not return"):
            environment.step(STILL)
        give_up = time.monotonic() + 10
        while is_running(started) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert not is_running(started)


def test_another_process_is_another_process_and_ctrl_c_is_not_its_own():
    with made("Process") as here, made("Process", time_limit=20.0) as there:
        high, low = there.reset(0)
        assert here.reset(0).tolist() == [os.getpid() // 1000, os.getpid() % 1000]
        assert int(high) * 1000 + int(low) == process(there) != os.getpid()
        os.kill(process(there), signal.SIGINT)
        assert np.array_equal(there.step(STILL).obs, (high, low))


@pytest.mark.parametrize("env_id", ["Hopper-v4", "probe_envs:Bounds-v0"])
def test_another_process_computes_the_same_numbers(env_id):
    here, there = Environment(env_id), Environment(env_id, time_limit=20.0)
    assert here.shape == there.shape
    assert np.array_equal(here.low, there.low)
    assert np.array_equal(here.high, there.high)
    rng, ends = np.random.default_rng(0), 0
    for seed in (7, None, None, 3):
        first, same = here.reset(seed), there.reset(seed)
        assert first.tobytes() == same.tobytes()
        assert same.dtype == np.float32
        for _ in range(150):
            action = rng.uniform(-1, 1, here.shape.actions).astype(np.float32)
            a, b = here.step(action), there.step(action)
            assert a.obs.tobytes() == b.obs.tobytes()
            # Rewards are double precision, unrounded; a final observation is the step's own.
            assert (a.reward, a.terminated, a.truncated) == (b.reward, b.terminated, b.truncated)
            assert type(b.reward) is float
            if a.terminated or a.truncated:
                ends += 1
                break
    assert ends > 0
    here.close()
    there.close()


def test_an_id_that_this_process_alone_registered_is_known_in_the_other_one():
    gymnasium.register("RegisteredHere-v0", entry_point="probe_envs:Ends")
    environment = Environment("RegisteredHere-v0", time_limit=20.0)
    assert environment.reset(0).tolist() == [0, 0]
    environment.close()
    del gymnasium.registry["RegisteredHere-v0"]


@pytest.mark.parametrize("name", ["Broken", "Image", "Limits"])
def test_a_users_mistake_is_the_same_in_another_process(name):
    said = []
    for time_limit in (0.0, 20.0):
        with pytest.raises(UserError) as mistake:
            Environment(f"probe_envs:{name}-v0", time_limit)
        said.append(str(mistake.value))
    assert said[0] == said[1]


def test_an_environment_that_cannot_be_made_again_is_a_fault_until_it_can(monkeypatch):
    probe_envs.Planned.start(make={2, 3})
    with made("Planned") as environment:
        for number in (2, 3):
            with pytest.raises(EnvironmentFault, match=f"in make: .*'make {number} of the plan'"):
                environment.rebuild()
        environment.rebuild()
        environment.reset(0)


def test_a_rebuilt_environment_remembers_nothing():
    with made("Remembers") as environment:
        assert [environment.reset(0)[0], environment.reset(0)[0]] == [1, 2]
        environment.rebuild()
        assert environment.reset(0)[0] == 1


def test_an_observation_does_not_change_after_it_was_returned():
    with made("Reuses") as environment:
        observations = [environment.reset(0), environment.step(STILL).obs, environment.step(STILL).obs]
        assert [obs.tolist() for obs in observations] == [[0, 0], [0, 1], [0, 2]]


def test_a_fingerprint_of_a_faulty_environment_is_its_own():
    names = ("Noisy", "Raises", "RaisesInReset")
    prints = [physics_fingerprint(f"probe_envs:{name}-v0") for name in names]
    assert len(set(prints)) == 3
    assert prints == [physics_fingerprint(f"probe_envs:{name}-v0") for name in names]
