"""Environments that fail, in this process and in one of their own."""

import contextlib
import os
import signal
import time

import gymnasium
import numpy as np
import pytest

import probe_envs
from evolute.environments import Environment, EnvironmentFault, physics_fingerprint
from evolute.errors import UserError

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
}
ENDS_ITS_PROCESS = {
    "Sleeps": "it did not return within 1 seconds, so its process was killed",
    "Spins": "it did not return within 1 seconds, so its process was killed",
    "Exits": "its process ended with exit code 7 before it answered",
    "Crashes": "its process was ended by signal 11 before it answered",
}
FAULTY_RESETS = ("Raises", "NaNObservation", "WrongShape", "NoObservation")


@contextlib.contextmanager
def made(name, time_limit=0.0):
    environment = Environment(f"probe_envs:{name}-v0", time_limit)
    try:
        yield environment
    finally:
        environment.close()


def process(environment):
    return environment._env._process.pid


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


@pytest.mark.parametrize("name", ["RaisesOddly", "RaisesSilently", "NaNObservation", "FourValues"])
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
