"""Where a stage of a training run is."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recsparse.spans import span


class Progress:
    """Where a stage is. All of it is in every checkpoint.

    Attributes:
        stage: number of the stage.
        previous: artefact of the stage before it, empty for the first.
        left: what each finished stage left, by its artefact: best metric, its epoch, epochs, exact bytes.
        epoch: completed epochs.
        done: triples drawn in the unfinished epoch.
        step: completed mini-batches of the stage.
        draws: triples drawn in all earlier epochs of the run, the sampler's position.
        loss: sum of the losses of the unfinished epoch's mini-batches, `batches` of them.
        best, best_epoch, stale: best metric so far, its epoch, and evaluations since.
        stopped: why the stage ended before its last epoch: `patience` or `policy`; empty if it did not.
        wall: seconds of the run up to the checkpoint.
        seconds: times of the unfinished epoch by activity.
    """

    def __init__(self) -> None:
        self.stage = 0
        self.previous = ""
        self.left: dict[str, dict[str, Any]] = {}
        self.draws = 0
        self.wall = 0.0
        self.start_stage()

    def start_stage(self) -> None:
        self.epoch = 0
        self.step = 0
        self.best = -math.inf
        self.best_epoch = 0
        self.stale = 0
        self.stopped = ""
        self.start_epoch()

    def start_epoch(self) -> None:
        self.done = 0
        self.loss = 0.0
        self.batches = 0
        self.seconds = {"sample": 0.0, "step": 0.0, "prune": 0.0, "eval": 0.0}

    def finish_stage(self, artefact: str, nbytes: dict[str, int]) -> None:
        """Notes what the stage has left under that name."""
        # Anew at the end, where a stage of this name was there before: the last one is the last.
        self.left.pop(artefact, None)
        self.left[artefact] = {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "epochs": self.epoch,
            "bytes": nbytes,
        }

    def next_stage(self, previous: str) -> None:
        self.stage += 1
        self.previous = previous
        self.start_stage()

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        progress = cls()
        vars(progress).update(state)
        return progress

    @contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        start = time.perf_counter()
        with span(activity):
            yield
        self.seconds[activity] += time.perf_counter() - start
