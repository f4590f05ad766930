"""`recsparse profile`: where the time of a short training run goes, by stage and by op, and what the machine allows."""

from __future__ import annotations

import json
import time
from typing import Any

import torch

from recsparse import arguments, config_reader, policies
from recsparse import config as configuration
from recsparse.bench.ceilings import Ceilings
from recsparse.bench.op_log import OpLog
from recsparse.bench.report import grid, number, table
from recsparse.commands import expand_short_flags, open_dataset, split_option
from recsparse.config import Config
from recsparse.data import Dataset, StreamedDataset
from recsparse.errors import UserError
from recsparse.runs import RunFolder, version
from recsparse.spans import PREFIX
from recsparse.train import Trainer

STEPS = 512
# Ranges within another one, and in which: shown, but not added up.
WITHIN = {"grow_scores": "prune", "prune_regrow": "prune"}
EXAMPLES = """examples:
  recsparse profile --data.path demo --policy.budget 20% --steps 512
  recsparse profile --data.path DIR --policy.budget 20% --policy.dsl.mode fresh --steps 4k
The run folder gets profile.json, and trace.json for https://ui.perfetto.dev or chrome://tracing."""


class _Enough(Exception):
    """As many mini-batches as asked for are done."""


def main(argv: list[str]) -> int:
    """The command; see the module's description.

    Raises:
        UserError: bad flags, or a run folder that exists.
    """
    rest, text = split_option(expand_short_flags(argv), "--steps")
    steps = STEPS if text is None else arguments.parse("--steps", arguments.count, text)
    parser = config_reader.build_parser("recsparse profile", EXAMPLES)
    parser.add_argument("--steps", metavar="N", help=f"mini-batches to train, in whole chunks (default: {STEPS})")
    config = policies.resolve(config_reader.parse(parser, rest))
    dataset = open_dataset(config.data)
    run = RunFolder.for_config(config, f"profile-{dataset.name}")
    print(render(measure(config, dataset, run, steps)))
    print(f"profile: {run.path / 'profile.json'}\ntrace: {run.path / 'trace.json'}")
    return 0


def measure(config: Config, dataset: Dataset | StreamedDataset, run: RunFolder, steps: int) -> dict[str, Any]:
    """Trains about `steps` mini-batches under the profiler, evaluates, and writes `profile.json` and `trace.json`.

    The trainer's own loop runs, with its mask updates, evaluations and checkpoints as they come due. It ends with the
    chunk in which the last mini-batch lies, or with the run if that is shorter.

    Returns:
        What `profile.json` holds: seconds of stages and ops, the machine's ceilings, and what was run.

    Raises:
        UserError: as `Trainer`, or the files cannot be written.
    """
    trainer = Trainer(config, dataset, run, log=lambda line: None)
    wanted = steps * config.train.batch_size

    def stop(stage: str, epoch: int, share: float) -> None:
        if trainer.progress.draws + trainer.progress.done >= wanted:
            raise _Enough

    trainer.on_chunk = stop
    ceilings = Ceilings()
    ceiling_rows = ceilings.rows()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    log = OpLog()
    with torch.profiler.profile(activities=activities) as profiler:
        start = time.perf_counter()
        with log:
            try:
                trainer.train()
            except _Enough:
                trainer.evaluate()
        seconds = time.perf_counter() - start
    done = trainer.progress.draws + trainer.progress.done
    result = {
        "steps": -(-done // config.train.batch_size),
        "samples": done,
        "seconds": seconds,
        "policy": config.policy.name,
        "data": dataset.name,
        "threads": torch.get_num_threads(),
        "stages": _stages(profiler, seconds),
        "ops": log.rows(ceilings),
        "ceilings": ceiling_rows,
        "config": configuration.to_dict(config),
        "version": version(),
    }
    try:
        profiler.export_chrome_trace(str(run.path / "trace.json"))
        (run.path / "profile.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write into {run.path}: {error.strerror or error}") from None
    return result


def _stages(profiler: torch.profiler.profile, seconds: float) -> list[dict[str, Any]]:
    """Entries of the trainer's ranges, and of the rest: stage, within, calls, seconds and share of the whole."""
    found = [
        {
            "stage": event.key.removeprefix(PREFIX),
            "within": WITHIN.get(event.key.removeprefix(PREFIX)),
            "calls": event.count,
            "seconds": event.cpu_time_total / 1e6,
        }
        for event in profiler.key_averages()
        if event.key.startswith(PREFIX) and event.cpu_time_total
    ]
    found.sort(key=lambda each: -each["seconds"])
    inside = sum(each["seconds"] for each in found if each["within"] is None)
    found.append({"stage": "rest", "within": None, "calls": 1, "seconds": max(0.0, seconds - inside)})
    return [each | {"share": each["seconds"] / seconds} for each in found]


def render(result: dict[str, Any]) -> str:
    """The ceilings, then a table of stages and one of ops."""
    stages = [["stage", "calls", "ms", "% of run", ""]]
    for each in result["stages"]:
        within = f"within {each['within']}" if each["within"] else ""
        share = number(100 * each["share"])
        stages.append([each["stage"], str(each["calls"]), number(each["seconds"], 1e3), share, within])
    ops = [["op", "calls", "ms", "us a call", "MB moved", "GB/s", "% roof", ""]]
    for each in result["ops"]:
        ops.append(
            [
                each["op"],
                str(each["calls"]),
                number(each["seconds"], 1e3),
                number(each["us_per_call"]),
                number(each["bytes_model"], 1e-6),
                number(each["gbps"]),
                number(each["pct_ceiling"]),
                "",
            ]
        )
    lines = [
        table(result["ceilings"]),
        f"{result['policy']} on {result['data']}: {result['steps']} mini-batches, {result['samples']:,} samples in "
        f"{result['seconds']:.2f} s under the profiler, {result['threads']} threads",
        *("  " + line for line in grid(stages)),
        "",
        *("  " + line for line in grid(ops)),
    ]
    if not any(each["stage"] in ("prune", "rotate") for each in result["stages"]):
        lines.append("no mask update came due; raise --steps, or lower policy.dsl.every or policy.dsl.round_epochs")
    return "\n".join(lines)
