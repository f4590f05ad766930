"""Run folders, and the facts about a run that every result carries."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import recsparse
from recsparse import config as configuration
from recsparse.config import Config
from recsparse.errors import UserError


class RunFolder:
    """`FOLDER/NAME/`: config.yaml, metrics.jsonl, report.md and checkpoint/. Nothing exists on disk before `create`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_file = path / "metrics.jsonl"
        self.config_file = path / "config.yaml"

    @classmethod
    def for_config(cls, config: Config, data_name: str) -> RunFolder:
        """The configured folder, or the first free number for this data set and policy.

        Raises:
            UserError: the named run is there already.
        """
        parent = Path(config.run.folder)
        if config.run.name:
            run = cls(parent / config.run.name)
            if run.path.exists():
                raise UserError(
                    f"{run.path} exists; take another run.name, or go on with `recsparse train --resume {run.path}`"
                )
            return run
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{data_name}-{config.policy.name}")
        number = 1
        while (parent / f"{stem}-{number:03d}").exists():
            number += 1
        return cls(parent / f"{stem}-{number:03d}")

    def create(self, config: Config) -> None:
        """Makes the folder and writes the resolved config into it."""
        try:
            self.path.mkdir(parents=True)
            self.config_file.write_text(configuration.to_yaml(config), encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write run folder {self.path}: {error.strerror or error}") from None

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoint" / name

    def append(self, row: dict[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        try:
            with open(self.metrics_file, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.metrics_file}: {error.strerror or error}") from None

    def rows(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; a last line that a kill cut short is left out."""
        if not self.metrics_file.exists():
            return []
        found: list[dict[str, Any]] = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if not isinstance(row, dict) or "event" not in row:
                raise UserError(f"{self.metrics_file}:{len(found) + 1}: not a line that a run writes; restore the file")
            found.append(row)
        return found

    def rewind(self, stage: int, epoch: int) -> None:
        """Drops lines after `epoch` of `stage`, which a resumed run is about to write again."""
        last = {"epoch": (stage, epoch), "stage": (stage - 1, math.inf)}
        kept = [
            row
            for row in self.rows()
            if row["event"] in last and (row["stage"], row.get("epoch", 0)) <= last[row["event"]]
        ]
        staged = self.metrics_file.with_suffix(".partial")
        staged.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(staged, self.metrics_file)


def peak_rss_bytes() -> int:
    """Largest resident size of this process so far (VmHWM), 0 where the kernel does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    match = re.search(r"^VmHWM:\s+(\d+) kB", status, flags=re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def version() -> str:
    """Package version, with the git commit (and `-dirty`) when it runs from a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return recsparse.__version__
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return recsparse.__version__
    return f"{recsparse.__version__}+{commit}"
