"""`recsparse compare`: policies at equal bytes, side by side.

Every cell (model, policy, budget, seed) is a training run of its own. What is finished is read, what stopped is
resumed, what is missing is run; a row a run goes to `results.jsonl`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recsparse import config_reader, models, report_file
from recsparse.cells import Cell, check_flags, command, names, plan, settle
from recsparse.checkpoint import load_table
from recsparse.cli import Parser
from recsparse.commands import open_dataset
from recsparse.comparison import Row, group, print_table, write_report
from recsparse.data import Dataset
from recsparse.errors import UserError
from recsparse.evaluate import by_popularity
from recsparse.report import Result
from recsparse.runs import RunFolder

BET_FLAGS = [
    "--policy.bet.iterations=8",
    "--policy.bet.updates=20",
    "--policy.bet.finetune_epochs=4",
    "--policy.bet.retrain=1",
]
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "kuairand-size",
        "policy": "dense,dense_int8,small_dense,random_mask,dsl,lth,pep,bet,bet_random",
        "budget": "20%,10%",
        "seeds": 1,
        "flags": ["--optim.lr=0.005", "--train.epochs=40", "--train.eval_every=5", "--train.patience=3"],
        "policy_flags": {
            "dsl": ["--policy.dsl.rounds=6", "--policy.dsl.round_epochs=6"],
            "lth": ["--policy.lth.rate=0.3"],
            "pep": [
                "--policy.pep.start=-8",
                "--policy.pep.lr=0.01",
                "--policy.pep.epochs=30",
                "--policy.pep.table_weight_decay=0",
            ],
            "bet": BET_FLAGS,
            "bet_random": BET_FLAGS,
        },
    }
}
EXAMPLES = """examples:
  recsparse compare --preset quick
  recsparse compare --data DIR --policy dense,small_dense,dsl,lth --budget 20%,10%,5% --seeds 3 --optim.lr=0.002
  recsparse compare --data DIR --model mf,lightgcn --budget 10% --folder runs/both

flags that are not listed here are keys of `recsparse train`, the same for all runs"""


def main(argv: list[str]) -> int:
    """The command; see the module's description.

    Raises:
        UserError: bad flags, a run of another configuration in the folder, or a run that fails.
    """
    options, extra = _parse(argv)
    folder = Path(options.folder)
    cells = plan(names(options.model), names(options.policy), names(options.budget), range(options.seeds))
    rows = []
    for number, cell in enumerate(cells, 1):
        flags = [*extra, *options.policy_flags.get(cell.policy, [])]
        run = RunFolder(folder / cell.name)
        print(
            f"{number}/{len(cells)} {cell.name}: {settle(run, command(cell, options.data, folder, flags))}", flush=True
        )
        rows.append(row_of(cell, run))
    _write_rows(folder / "results.jsonl", rows)
    groups = group(rows)
    print_table(groups)
    written = write_report(folder, groups)
    print(f"report: {written}")
    return 0


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(
        prog="recsparse compare",
        description="Train policies at equal bytes and compare quality, bytes, memory and time. A second call goes on "
        "where the first one stopped.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="a ready choice; other flags override it")
    parser.add_argument("--data", help="folder with train.txt and test.txt, or a generated preset")
    parser.add_argument("--model", default="mf", metavar="M[,M]", help="mf, lightgcn (default: mf)")
    parser.add_argument("--policy", metavar="P[,P]", help="default: dense,small_dense,dsl,lth")
    parser.add_argument("--budget", metavar="B[,B]", help="shares of dense fp32 or bytes (default: 20%%,10%%)")
    parser.add_argument("--seeds", type=int, help="runs of each cell, with seeds 0, 1, .. (default: 1)")
    parser.add_argument("--folder", default="runs/compare", help="parent of the runs (default: runs/compare)")
    options, extra = parser.parse_known_args(argv)
    ready: dict[str, Any] = PRESETS.get(options.preset or "", {})
    defaults: dict[str, Any] = {
        "policy": "dense,small_dense,dsl,lth",
        "budget": "20%,10%",
        "seeds": 1,
        "data": None,
    } | ready
    for name in ("data", "policy", "budget", "seeds"):
        if getattr(options, name) is None:
            setattr(options, name, defaults[name])
    options.policy_flags = defaults.get("policy_flags", {})
    if options.data is None:
        raise UserError("--data is missing; give a folder with train.txt and test.txt, or --preset quick")
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}; it must be 1 or above")
    check_flags(extra, "compare")
    return options, [*defaults.get("flags", []), *extra]


def row_of(cell: Cell, run: RunFolder) -> Row:
    """The facts of a finished run, with recall by popularity of the items that are looked for."""
    result = Result.read(run)
    final = result.final
    config = config_reader.parse(config_reader.build_parser("recsparse compare"), [f"--config={run.config_file}"])
    dataset = open_dataset(config.data)
    table = load_table(run.checkpoint("best"))
    ranked = models.build(config, dataset).for_ranking(table)
    buckets = by_popularity(ranked, dataset) if isinstance(dataset, Dataset) else []
    return Row(
        **cell._asdict(),
        recall=final["test_recall@20"],
        ndcg=final["test_ndcg@20"],
        table_bytes=result.table_bytes,
        share=result.share,
        state_bytes=result.state_bytes,
        peak_rss_bytes=result.peak_bytes,
        wall_seconds=final["wall_seconds"],
        epochs=len(result.epochs),
        protocol=final["protocol"],
        data=final["data"],
        data_hash=final["data_hash"],
        version=final["version"],
        run=str(run.path),
        buckets=buckets,
    )


def _write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Keeps the rows of runs that this call did not ask for."""
    kept = []
    if file.exists():
        names = {row.run for row in rows}
        kept = [line for line in file.read_text().splitlines() if json.loads(line)["run"] not in names]
    report_file.write(file, "".join(line + "\n" for line in [*kept, *(json.dumps(asdict(row)) for row in rows)]))
