"""The trainer: runs the stages of any policy over any model, and knows neither by name.

An epoch is |train| triples, drawn by number, so that a chunk may be cut anywhere without changing what is drawn. Chunks
of mini-batches go to the kernel in one call; they end at a mask update, at the end of an epoch, or after `CHUNK_STEPS`.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsparse import checkpoint, models, ops, policies
from recsparse import config as configuration
from recsparse.backend import resolve_backend
from recsparse.config import Config, OptimConfig
from recsparse.data import Dataset, Sampler, StreamedDataset
from recsparse.errors import Diverged, InvariantError, RecsparseError, UserError
from recsparse.evaluate import evaluate
from recsparse.int8 import Int8Table
from recsparse.models import Triples
from recsparse.policies import Context, Stage
from recsparse.progress import Progress
from recsparse.runs import RunFolder, peak_rss_bytes, version
from recsparse.table import PackedTable

CHUNK_STEPS = 64
TOP_K = 20
SELECT_BY = f"recall@{TOP_K}"
# Draws that no epoch reaches: an update's fresh triples are numbers from here on.
FRESH_DRAWS = 1 << 62


class Interrupted(RecsparseError):
    """A signal stopped the run, after it had `saved` a checkpoint if it keeps any."""

    def __init__(self, signum: int, run: RunFolder, saved: bool) -> None:
        after = f"`recsparse train --resume {run.path}` goes on from here" if saved else "nothing was saved"
        super().__init__(f"stopped by {signal.Signals(signum).name}; {after}")
        self.exit_code = 128 + signum


class Trainer:
    """One run.

    Args:
        config: resolved by the policy (`policies.resolve`).
        dataset: train, valid and test interactions.
        run: where results go; not created before the tables are.
        log: receives one line an epoch.
        on_chunk: receives (stage, epoch, share of the epoch done) after each chunk.
        baseline_rss: peak resident bytes before data and tables existed; peak memory is reported above it.

    Raises:
        UserError: a size that is impossible for this data set.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset | StreamedDataset,
        run: RunFolder,
        *,
        log: Callable[[str], None] = print,
        on_chunk: Callable[[str, int, float], None] = lambda stage, epoch, share: None,
        baseline_rss: int = 0,
    ) -> None:
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        self.select_on = "test" if config.data.protocol == "paper" else "valid"
        for part in (self.select_on, "test"):
            dataset.target(part)  # raises if there is nothing to evaluate on
        self.config = config
        self.dataset = dataset
        self.run_folder = run
        self.log = log
        self.on_chunk = on_chunk
        self.baseline_rss = baseline_rss
        device = config.train.device
        if device != "cpu":
            resolve_backend("auto", device)  # raises before anything is moved there
        self.sampler = Sampler(dataset, seed=config.train.seed, mode=config.train.sampler, device=device)
        self.draws_per_epoch = config.train.epoch_draws or self.sampler.epoch_draws
        self.model = models.build(config, dataset)
        steps = math.ceil(self.draws_per_epoch / config.train.batch_size)
        context = Context(
            config,
            self.model,
            steps,
            self.draws_per_epoch,
            self._draw_fresh,
            self._load,
            self._save_table,
            self._frequencies,
        )
        self.policy = policies.find(config.policy.name)(context)
        self.progress = Progress()
        self.stage = self._stage(0, None)
        self._signal = 0
        self._started = 0.0

    @property
    def device(self) -> str:
        """Where the run's tensors live."""
        return self.config.train.device

    @property
    def stamp(self) -> str:
        """` TEST-SELECTED` where the model was chosen on the test split, as every output must say."""
        return " TEST-SELECTED" if self.select_on == "test" else ""

    def request_stop(self, signum: int, frame: FrameType | None = None) -> None:
        """Ends the run after the current chunk, with a checkpoint; a second request interrupts at once."""
        if self._signal:
            raise KeyboardInterrupt
        self._signal = signum

    def resume(self) -> None:
        """Continues from the run folder's last checkpoint; bit-equal to a run that was never interrupted.

        Raises:
            UserError: no or damaged checkpoint, other data, or nothing left to do.
        """
        saved = checkpoint.load(self.run_folder.checkpoint("last"))
        state = saved.state
        if state["data_hash"] != self.dataset.hash:
            raise UserError(
                f"{self.run_folder.path} was trained on data {state['data_hash'][:12]}, but data.path "
                f"{self.config.data.path} holds {self.dataset.hash[:12]}; give the original files"
            )
        try:
            self.progress = progress = Progress.from_state(state["progress"])
            self.policy.load_state_dict(state["policy"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{self.run_folder.checkpoint('last')} was written by another version of recsparse, which cannot be "
                f"resumed ({type(error).__name__}: {error}); evaluate it, or train anew"
            ) from None
        if progress.stage > 0:
            self.stage = self._stage(
                progress.stage, checkpoint.load_table(self.run_folder.checkpoint(progress.previous), self.device)
            )
        if progress.stopped == "patience" and not self._out_of_patience():
            progress.stopped = ""
        finished = progress.stopped or progress.epoch >= self.stage.epochs
        if finished and any(row["event"] == "final" for row in self.run_folder.rows()):
            raise UserError(f"{self.run_folder.path} is finished; raise train.epochs (or train.patience) to train on")
        try:
            self.stage.table.load_state_dict(saved.tensors["table"])
            self.stage.optimizer.load_state_dict(saved.tensors["optimizer"])
            self.stage.load_state_dict(state["stage"])
            check_invariants(self.stage)
        except (InvariantError, ValueError, KeyError) as error:
            raise UserError(f"{self.run_folder.checkpoint('last')} does not fit this run: {error}") from None
        self.run_folder.rewind(progress.stage, progress.epoch)

    def train(self) -> dict[str, Any]:
        """Runs all stages, tests the best model once, and returns the final row of metrics.jsonl.

        Raises:
            Interrupted: SIGINT or SIGTERM; a checkpoint is saved.
            Diverged: the loss is not finite; names the last good checkpoint.
        """
        if not self.run_folder.path.exists():
            self.run_folder.create(self.config)
        self._started = time.perf_counter() - self.progress.wall
        with self._signals():
            while True:
                self._train_stage()
                self.progress.finish_stage(self.stage.artefact, nbytes(self.stage))
                # The peak of training: what reloading the best table takes is not part of it.
                peak = peak_rss_bytes()
                table = self._best()
                if self.stage.reported:
                    self._report_stage(table)
                following = self.policy.stage(self.progress.stage + 1, table)
                if following is None:
                    return self._finish(peak)
                self.progress.next_stage(self.stage.artefact)
                self.stage = following

    def _train_stage(self) -> None:
        progress, stage, train = self.progress, self.stage, self.config.train
        if stage.ticket and progress.epoch == 0 and progress.done == 0:
            self._save_ticket()
        if stage.epochs == 0:
            self.evaluate()
            self.log(f"{stage.name}: {self.select_on} {SELECT_BY} {progress.best:.4f}{self.stamp}")
        while progress.epoch < stage.epochs and not progress.stopped:
            self._train_epoch()
            progress.epoch += 1
            progress.draws += self.draws_per_epoch
            row: dict[str, Any] = {"event": "epoch", "stage": progress.stage, "epoch": progress.epoch}
            row["loss"] = progress.loss / max(1, progress.batches)
            row |= stage.after_epoch(progress.epoch)
            if stage.finished():
                progress.stopped = "policy"
            due = progress.epoch % (stage.eval_every or train.eval_every) == 0 or progress.epoch == stage.epochs
            if due and stage.evaluated:
                row |= self.evaluate()
            self._write_epoch(row)
            progress.start_epoch()
            if due:
                self._save()
        if stage.keep == "last":
            self._save_table(stage.artefact, stage.stored())

    def _best(self) -> PackedTable:
        """What the stage leaves: its best table, or the last one where no checkpoint is kept."""
        if self.config.train.checkpoint:
            return checkpoint.load_table(self.run_folder.checkpoint(self.stage.artefact), self.device)
        return self.stage.table

    def _train_epoch(self) -> None:
        progress, stage, train = self.progress, self.stage, self.config.train
        batch = train.batch_size
        stage.optimizer.lr = learning_rate(self.config.optim, progress.epoch, stage.epochs, stage.lr)
        while progress.done < self.draws_per_epoch:
            due = stage.prune_due(progress.step)
            steps = CHUNK_STEPS if due is None else min(CHUNK_STEPS, due - progress.step)
            count = min(steps * batch, self.draws_per_epoch - progress.done)
            with progress.timed("sample"):
                triples = Triples(*self.sampler.draw(progress.draws + progress.done, count))
            with progress.timed("step"):
                losses = stage.train_(self.model, triples, batch)
                # Both wait for the device: the time is that of the work.
                ops.raise_device_errors(losses)
                total = float(losses.sum(dtype=torch.float64))
            self._check_finite(losses)
            progress.done += count
            progress.loss += total
            progress.batches += losses.numel()
            progress.step += losses.numel()
            stage.after_step(progress.step)
            if progress.step == due:
                with progress.timed("prune"):
                    stage.prune(progress.step, triples.last((len(triples) - 1) % batch + 1))
                if stage.finished():
                    progress.stopped = "policy"
                    return
            if train.check_invariants:
                check_invariants(stage)
            self.on_chunk(stage.name, progress.epoch, progress.done / self.draws_per_epoch)
            if self._signal:
                self._save()
                raise Interrupted(self._signal, self.run_folder, train.checkpoint)

    def _check_finite(self, losses: torch.Tensor) -> None:
        if torch.isfinite(losses).all():
            return
        first = int((~torch.isfinite(losses)).nonzero()[0])
        progress = self.progress
        raise self._diverged(
            f"the loss is {float(losses[first])} at epoch {progress.epoch + 1}, step {progress.step + first + 1}"
        )

    def _diverged(self, what: str) -> Diverged:
        last = self.run_folder.checkpoint("last")
        good = f"the last good checkpoint is {last}" if checkpoint.exists(last) else "no checkpoint was saved yet"
        return Diverged(f"{what}, with optim.lr {self.config.optim.lr:g}: lower optim.lr; {good}")

    def evaluate(self) -> dict[str, Any]:
        """Metrics on the split that the run selects on; keeps the table if it is the best so far."""
        progress, stage = self.progress, self.stage
        if not bool(torch.isfinite(stage.table.values).all()):  # by the last mini-batch, which has had no loss since
            raise self._diverged(f"a weight is not finite after epoch {progress.epoch}")
        with progress.timed("eval"):
            ranked, ks = self.model.for_ranking(stage.table), sorted({*stage.ks, TOP_K})
            metrics = evaluate(ranked, self.dataset, split=self.select_on, ks=ks)
        better = metrics.values[SELECT_BY] > progress.best
        if better:
            progress.best, progress.best_epoch, progress.stale = metrics.values[SELECT_BY], progress.epoch, 0
            if stage.keep == "best":
                self._save_table(stage.artefact, stage.stored())
        else:
            progress.stale += 1
        if stage.after_eval(progress.epoch, metrics.values):
            progress.stopped = "policy"
        elif self._out_of_patience():
            progress.stopped = "patience"
        return {f"{self.select_on}_{name}": value for name, value in metrics.values.items()}

    def _out_of_patience(self) -> bool:
        return 0 < self.stage.patience <= self.progress.stale

    def _write_epoch(self, row: dict[str, Any]) -> None:
        progress, stage = self.progress, self.stage
        busy = progress.seconds["sample"] + progress.seconds["step"] + progress.seconds["prune"]
        row["samples_per_second"] = progress.done / busy if busy else 0.0
        row["seconds"] = {name: round(value, 6) for name, value in progress.seconds.items()}
        row["nnz"] = stage.table.nnz
        row["bytes"] = nbytes(stage)
        self.run_folder.append(row)
        quality = row.get(f"{self.select_on}_{SELECT_BY}")
        shown = "" if quality is None else f"  {self.select_on} {SELECT_BY} {quality:.4f}{self.stamp}"
        times = " ".join(f"{name} {value:.2f}" for name, value in progress.seconds.items() if value >= 0.005)
        speed = row["samples_per_second"] / 1e6
        self.log(f"epoch {row['epoch']:>3}/{stage.epochs}  loss {row['loss']:.4f}  {speed:.2f} M/s  [{times}] s{shown}")

    def _winner(self) -> tuple[dict[str, Any], PackedTable]:
        """What is known of the stage whose table is tested, and that table, the artefact `best` from now on."""
        left = self.progress.left
        name = self.policy.winner({artefact: facts["best"] for artefact, facts in left.items()})
        if not self.config.train.checkpoint:
            return left[name], self.stage.table
        if name != "best":
            saved = checkpoint.load(self.run_folder.checkpoint(name))
            checkpoint.save(self.run_folder.checkpoint("best"), saved.tensors, saved.state)
        return left[name], self._load("best")

    def _finish(self, peak: int) -> dict[str, Any]:
        facts, table = self._winner()
        metrics = evaluate(self.model.for_ranking(table), self.dataset, split="test", ks=(TOP_K,))
        stored = self.stage.stored()
        row: dict[str, Any] = {
            "event": "final",
            "model": self.config.model.name,
            "policy": self.config.policy.name,
            "data": self.dataset.name,
            "data_hash": self.dataset.hash,
            "protocol": self.config.data.protocol,
            "selected_on": self.select_on,
            **({"stamp": "TEST-SELECTED"} if self.stamp else {}),
            "seed": self.config.train.seed,
            "best_epoch": facts["best_epoch"],
            "epochs": facts["epochs"],
            **{f"test_{name}": value for name, value in metrics.values.items()},
            f"best_{self.select_on}_{SELECT_BY}": facts["best"],
            "test_users": metrics.users,
            "test_users_dropped": metrics.dropped_users,
            "kind": stored.kind,
            "dim": table.dim,
            "rows": table.rows,
            "dtype": str(stored.dtype).removeprefix("torch."),
            "nnz": table.nnz,
            "density": table.density,
            "bytes": facts["bytes"],
            "peak_rss_bytes": peak,
            **device_facts(self.device),
            "baseline_rss_bytes": self.baseline_rss,
            "wall_seconds": time.perf_counter() - self._started,
            "threads": torch.get_num_threads(),
            "search": self.policy.state_dict(),
            "version": version(),
            "config": configuration.to_dict(self.config),
        }
        self.run_folder.append(row)
        quality = "  ".join(f"{name} {metrics.values[name]:.4f}" for name in (SELECT_BY, f"ndcg@{TOP_K}"))
        self.log(f"test  {quality}{self.stamp}  (best epoch {facts['best_epoch']}, {metrics.users} users)")
        return row

    def _save(self) -> None:
        stage = self.stage
        if not self.config.train.checkpoint:
            return
        self.progress.wall = time.perf_counter() - self._started
        tensors = {
            "table": checkpoint.on_cpu(stage.table.state_dict()),
            "optimizer": checkpoint.on_cpu(stage.optimizer.state_dict()),
        }
        state = {
            "progress": self.progress.state_dict(),
            "stage": stage.state_dict(),
            "policy": self.policy.state_dict(),
            "shape": checkpoint.shape(stage.table),
            "config": configuration.to_dict(self.config),
            "data_hash": self.dataset.hash,
        }
        checkpoint.save(self.run_folder.checkpoint("last"), tensors, state)

    def _save_table(self, name: str, table: PackedTable | Int8Table) -> None:
        if not self.config.train.checkpoint:
            return
        state = {"shape": checkpoint.shape(table), "data_hash": self.dataset.hash, "epoch": self.progress.epoch}
        checkpoint.save(self.run_folder.checkpoint(name), {"table": checkpoint.on_cpu(table.state_dict())}, state)

    def _save_ticket(self) -> None:
        """Mask and start weights of the stage, and where they are from; its metrics join them when it is done."""
        if not self.config.train.checkpoint:
            return
        table = self.stage.table
        state = {
            "shape": checkpoint.shape(table),
            "stage": self.stage.name,
            "density": table.density,
            "nnz": table.nnz,
            "data": self.dataset.name,
            "data_hash": self.dataset.hash,
            "version": version(),
            "config": configuration.to_dict(self.config),
        }
        folder = self.run_folder.checkpoint(self.stage.ticket)
        checkpoint.save(folder, {"table": checkpoint.on_cpu(table.state_dict())}, state)

    def _report_stage(self, table: PackedTable) -> None:
        """A row of what the stage leaves, tested; its ticket gets the metrics too."""
        progress, stage = self.progress, self.stage
        metrics = evaluate(self.model.for_ranking(table), self.dataset, split="test", ks=(TOP_K,))
        row: dict[str, Any] = {
            "event": "stage",
            "stage": progress.stage,
            "name": stage.name,
            "nnz": table.nnz,
            "density": table.density,
            "kind": table.kind,
            "bytes": nbytes(stage),
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            f"best_{self.select_on}_{SELECT_BY}": progress.best,
            **{f"test_{name}": value for name, value in metrics.values.items()},
            **({"stamp": "TEST-SELECTED"} if self.stamp else {}),
            "wall_seconds": time.perf_counter() - self._started,
        }
        self.run_folder.append(row)
        quality = "  ".join(f"{name} {metrics.values[name]:.4f}" for name in (SELECT_BY, f"ndcg@{TOP_K}"))
        self.log(f"{stage.name}: density {table.density:.4f}  test {quality}{self.stamp}")
        folder = self.run_folder.checkpoint(stage.ticket or "-")
        if stage.ticket and checkpoint.exists(folder):
            saved = checkpoint.load(folder)
            checkpoint.save(folder, saved.tensors, saved.state | {"metrics": row})

    def _load(self, artefact: str) -> PackedTable:
        return checkpoint.load_table(self.run_folder.checkpoint(artefact), self.device)

    def _stage(self, number: int, previous: PackedTable | None) -> Stage:
        stage = self.policy.stage(number, previous)
        if stage is None:
            raise InvariantError(f"policy {self.config.policy.name} has no stage {number}")
        return stage

    def _frequencies(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if isinstance(self.dataset, StreamedDataset):
            raise UserError(
                f"policy {self.config.policy.name} orders users and items by their train interactions, but "
                f"{self.dataset.name} is streamed and nobody counts them; use another policy"
            )
        return self.dataset.train.degrees(), self.dataset.popularity

    def _draw_fresh(self, update: int, count: int) -> Triples:
        return Triples(*self.sampler.draw(FRESH_DRAWS + update * count, count))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        watched = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(each, self.request_stop) for each in watched]
        try:
            yield
        finally:
            for each, handler in zip(watched, before, strict=True):
                signal.signal(each, handler)


def learning_rate(options: OptimConfig, epoch: int, epochs: int, own: float) -> float:
    """Of epoch `epoch`, from 0, of `epochs`; `own` is the stage's, which takes the place of optim.lr unless it is 0."""
    start = own or options.lr
    if options.schedule == "constant" or epochs == 1:
        return start
    share, end = min(1.0, epoch / (epochs - 1)), min(start, options.lr_end)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def device_facts(device: str) -> dict[str, Any]:
    """Of a run on a GPU: which one, and the most memory that torch held there."""
    if device == "cpu":
        return {}
    return {"device": torch.cuda.get_device_name(), "peak_device_bytes": torch.cuda.max_memory_allocated()}


def nbytes(stage: Stage) -> dict[str, int]:
    """Exact bytes: values, index and optimiser state."""
    stored = stage.stored().nbytes()
    return {"values": stored["values"], "index": stored["index"], "state": stage.optimizer.nbytes()}


def check_invariants(stage: Stage) -> None:
    """nnz within the capacity, a sound index, finite weights, and no state outside the kept weights.

    Raises:
        InvariantError: says which one fails.
    """
    stage.table.check_invariants()
    stage.optimizer.check_invariants()
