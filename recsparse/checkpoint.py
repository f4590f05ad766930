"""Checkpoints: safetensors and JSON in a folder that is either complete and verified, or refused.

    NAME/
      <group>.safetensors   tensors, one file a group (`table`, `optimizer`)
      state.json            plain values, and the sha256 of every tensor
      COMPLETE              the sha256 of state.json; written last

A save builds `NAME.partial`, syncs it to disk and renames it, so a crash, a full disk or a kill at any moment leaves
the previous checkpoint as it was (as `NAME.previous` in the worst case, which `load` then takes).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from recsparse.errors import InvariantError, UserError
from recsparse.int8 import Int8Table
from recsparse.table import PackedTable

FORMAT = 1
_STATE = "state.json"
_MARKER = "COMPLETE"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors by group and name, and plain values."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(folder: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Replaces the checkpoint at `folder`.

    Args:
        tensors: contiguous CPU tensors by group and name; groups name files.
        state: what JSON can hold.

    Raises:
        UserError: the disk is full or not writable; the previous checkpoint is intact.
    """
    partial, previous = _beside(folder, "partial"), _beside(folder, "previous")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for group, members in tensors.items():
            safetensors.torch.save_file(members, partial / f"{group}.safetensors")
            _sync(partial / f"{group}.safetensors")
        digests = {
            group: {name: _digest(value) for name, value in members.items()} for group, members in tensors.items()
        }
        text = json.dumps({"format": FORMAT, "sha256": digests, "state": state}, indent=1, allow_nan=True)
        _write_synced(partial / _STATE, text)
        _write_synced(partial / _MARKER, hashlib.sha256(text.encode()).hexdigest())
        _sync(partial)
        _swap_in(partial, folder, previous)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise UserError(f"cannot write checkpoint {folder}: {reason}; the previous one, if any, is intact") from None


def load(folder: Path) -> Checkpoint:
    """The checkpoint at `folder`, every tensor checked against its sha256.

    Raises:
        UserError: missing, incomplete, damaged or not written by `save`.
    """
    previous = _beside(folder, "previous")
    if not folder.is_dir() and previous.is_dir():  # killed between the two renames of a save
        folder = previous
    if not folder.is_dir():
        raise UserError(f"no checkpoint at {folder}")
    header = _read_header(folder)
    tensors: dict[str, dict[str, Tensor]] = {}
    for group, digests in header["sha256"].items():
        file = folder / f"{group}.safetensors"
        try:
            members = safetensors.torch.load_file(file)
        except (OSError, SafetensorError) as error:
            raise UserError(f"checkpoint file {file} is damaged: {' '.join(str(error).split())}") from None
        if set(members) != set(digests):
            raise UserError(
                f"checkpoint file {file} is damaged: it holds {sorted(members)}, expected {sorted(digests)}"
            )
        for name, value in members.items():
            if _digest(value) != digests[name]:
                raise UserError(f"checkpoint file {file} is damaged: sha256 of tensor {name} differs from {_STATE}")
        tensors[group] = members
    return Checkpoint(tensors, header["state"])


def shape(table: PackedTable | Int8Table) -> dict[str, Any]:
    """What `load_table` needs to rebuild the table around its tensors."""
    return {"kind": table.kind, "rows": table.rows, "dim": table.dim}


def on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a checkpoint takes; no copies of what is there already."""
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def load_table(folder: Path, device: str = "cpu") -> PackedTable:
    """The table in the checkpoint `folder`, verified, on `device`; one that is stored in int8 as what it stands for.

    Raises:
        UserError: no or damaged checkpoint, NaN or infinity among the weights.
    """
    saved = load(folder)
    form = saved.state["shape"]
    tensors = {name: tensor.to(device) for name, tensor in saved.tensors["table"].items()}
    try:
        if form["kind"] == Int8Table.kind:
            stored = Int8Table(tensors["codes"], tensors["scales"])
            stored.check_invariants()
            return stored.table()
        table = PackedTable(
            form["rows"], form["dim"], form["kind"], tensors["index"], tensors["cols"], tensors["values"]
        )
        table.check_invariants()
    except (InvariantError, ValueError) as error:
        raise UserError(f"checkpoint {folder} holds a damaged table: {error}; take another one") from None
    return table


def exists(folder: Path) -> bool:
    """Whether `load` would find something to read."""
    return folder.is_dir() or _beside(folder, "previous").is_dir()


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        text = (folder / _STATE).read_text(encoding="utf-8")
        marker = (folder / _MARKER).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        missing = getattr(error, "filename", None) or folder
        raise UserError(f"{folder} is not a complete checkpoint: cannot read {Path(missing).name}") from None
    if hashlib.sha256(text.encode()).hexdigest() != marker:
        raise UserError(f"checkpoint file {folder / _STATE} is damaged: its sha256 differs from {_MARKER}")
    try:
        header: dict[str, Any] = json.loads(text)
        header["state"], header["sha256"].items()
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"checkpoint file {folder / _STATE} is damaged: state or sha256 is missing") from None
    if header.get("format") != FORMAT:
        raise UserError(f"{folder} has checkpoint format {header.get('format')!r}; this version reads {FORMAT}")
    return header


def _swap_in(partial: Path, folder: Path, previous: Path) -> None:
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    partial.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def _digest(value: Tensor) -> str:
    """sha256 of a contiguous tensor's bytes, without a copy of them."""
    if value.numel() == 0:
        return hashlib.sha256(b"").hexdigest()
    return hashlib.sha256(value.detach().reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _write_synced(file: Path, text: str) -> None:
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
