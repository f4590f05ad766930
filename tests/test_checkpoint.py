from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from recsparse import checkpoint
from recsparse.errors import UserError


def content(seed: int) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "table": {
            "values": torch.randn(1000, generator=generator),
            "index": torch.arange(64, dtype=torch.int64) + seed,
            "cols": torch.zeros(0, dtype=torch.uint8),
        },
        "optimizer": {"moments": torch.randn(2000, generator=generator)},
    }


def assert_holds(folder: Path, seed: int) -> None:
    loaded = checkpoint.load(folder)
    assert loaded.state == {"seed": seed, "best": 0.1}
    for group, members in content(seed).items():
        for name, value in members.items():
            assert loaded.tensors[group][name].dtype == value.dtype
            assert torch.equal(loaded.tensors[group][name], value)


def save(folder: Path, seed: int) -> None:
    checkpoint.save(folder, content(seed), {"seed": seed, "best": 0.1})


def test_round_trip_and_replacement_leave_nothing_else(tmp_path: Path) -> None:
    for seed in (1, 2):
        save(tmp_path / "runs" / "last", seed)
        assert_holds(tmp_path / "runs" / "last", seed)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["last"]


def test_missing(tmp_path: Path) -> None:
    assert not checkpoint.exists(tmp_path / "last")
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "last")


@pytest.mark.parametrize("name", ["table.safetensors", "optimizer.safetensors", "state.json", "COMPLETE"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "foreign"])
def test_every_damage_to_every_file_is_one_clear_line(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "last"
    save(folder, 1)
    file = folder / name
    raw = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(raw[: len(raw) // 2])
    elif damage == "flip":
        raw[len(raw) - 5] ^= 0x10
        file.write_bytes(raw)
    elif damage == "remove":
        file.unlink()
    elif file.suffix == ".safetensors":
        safetensors.torch.save_file({"other": torch.zeros(3)}, file)
    else:
        file.write_text("{}")
    with pytest.raises(UserError) as error:
        checkpoint.load(folder)
    assert "\n" not in str(error.value)
    assert "damaged" in str(error.value) or "not a complete checkpoint" in str(error.value)


def test_another_format_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    save(folder, 1)
    header = json.loads((folder / "state.json").read_text()) | {"format": 99}
    text = json.dumps(header)
    (folder / "state.json").write_text(text)
    (folder / "COMPLETE").write_text(hashlib.sha256(text.encode()).hexdigest())
    with pytest.raises(UserError, match="format 99"):
        checkpoint.load(folder)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    save(folder, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))  # the kernel refuses to grow a file beyond 1 KiB
    try:
        with pytest.raises(UserError, match=r"cannot write checkpoint .*the previous one, if any, is intact") as error:
            save(folder, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.strerror(errno.EFBIG) in str(error.value)
    assert_holds(folder, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_kill_between_the_two_renames_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "last"
    save(folder, 1)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == "last.partial":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save(folder, 2)
    monkeypatch.undo()
    assert checkpoint.exists(folder)
    assert_holds(folder, 1)
    save(folder, 3)
    assert_holds(folder, 3)


@pytest.mark.slow
def test_sigkill_at_any_moment_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    program = (
        "import sys, itertools; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "import test_checkpoint\n"
        "for seed in itertools.count(1):\n"
        "    test_checkpoint.save(Path(sys.argv[1]), seed)\n"
        "    print(seed, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(Path(__file__).parent)]
    for trial in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.007 * trial)
            process.kill()
        assert_holds(folder, checkpoint.load(folder).state["seed"])
