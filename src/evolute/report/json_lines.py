"""What a program sees while a run trains: one JSON object a line on standard output, and nothing else. docs/terminal.md."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolute.report.live import population_steps, seconds_left
from evolute.runs.folder import json_lines

if TYPE_CHECKING:
    from evolute.state import Progress, Result


class JsonLines:
    """An observer that prints every row of metrics, every event, how far the run is, and what is told of it."""

    def say(self, line: str) -> None:
        """Print a sentence."""
        _print([{"record": "note", "message": line}])

    def __call__(self, progress: "Progress") -> None:
        """Print what an interval brought."""
        if not progress.rows and not progress.events:
            return
        seed, run = progress.state.run.seed, progress.state.run
        _print({"record": "metrics", "seed": seed, **row} for row in progress.rows)
        _print({"record": "event", "seed": seed, **event} for event in progress.events)
        about = {
            "steps": progress.steps,
            "of": run.steps,
            "population_environment_steps": population_steps(progress),
            "elapsed": progress.elapsed,
            "left": seconds_left(progress),
            "best": None if progress.state.best is None else progress.state.best.fitness,
        }
        _print([{"record": "progress", "seed": seed, **about}])

    def end(self, result: "Result", folder: Path) -> None:
        """Print the result of a run."""
        _print([{"record": "result", "folder": str(folder), **result.summary}])


def _print(rows: Iterable[dict[str, Any]]) -> None:
    sys.stdout.write(json_lines(rows))
    # A program reads it through a pipe, and wants it now.
    sys.stdout.flush()
