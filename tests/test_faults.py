"""A short form of `make faults`: real processes, killed and damaged for real. The long one is tests/faults.py."""

import signal

import pytest

import faults


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    code, _, err = faults.evolute(folder, "train", *faults.MIXED, "--out", "run")
    assert code == 0, err
    return folder / "run"


# Between writing a file and renaming it; within an exploit; while an older checkpoint is deleted; while a run is resumed.
# All places, and all damages, are tried by `make faults`.
@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("write", 33),
        ("copy", 1),
        pytest.param("delete", 8, marks=pytest.mark.slow),
        pytest.param("rewound", 1, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, reference, place, count):
    faults.killed_at(tmp_path, place, count, "run")
    assert faults.differences(tmp_path / "run", reference) == []


def test_a_signal_does_no_harm(tmp_path, reference):
    faults.signalled(tmp_path, "run", signal.SIGTERM)
    assert faults.differences(tmp_path / "run", reference) == []


def test_a_second_process_is_refused(tmp_path, reference):
    faults.second_process(tmp_path, "run")
    assert faults.differences(tmp_path / "run", reference) == []


@pytest.mark.slow
def test_a_run_without_a_file_handle_left_stops_and_goes_on(tmp_path, reference):
    faults.no_handles(tmp_path, "run")
    assert faults.differences(tmp_path / "run", reference) == []


@pytest.mark.slow
def test_a_damaged_checkpoint_is_not_used(tmp_path, reference):
    faults.stopped(tmp_path, "template")
    faults.damaged(tmp_path, "run", tmp_path / "template", "replay/*.safetensors", "flipped")
    assert faults.differences(tmp_path / "run", reference) == []


def test_two_signals_end_a_process_that_hangs(tmp_path):
    faults.signalled_twice(tmp_path, "run")
