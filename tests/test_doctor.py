from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recsparse import _native, doctor
from recsparse.errors import BackendError


@pytest.fixture
def fresh_loader() -> Iterator[None]:
    _native.load.cache_clear()
    yield
    _native.load.cache_clear()


def by_name() -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.collect()}


def test_everything_needed_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    checks = by_name()
    assert checks["backend cpu"].status == "ok"
    assert checks["torch"].value.startswith(torch.__version__)
    assert doctor.run_doctor() == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in checks)


def test_chosen_instruction_set_runs_here() -> None:
    detected, chosen = by_name()["instruction set"].value.replace(",", "").split()[::2]
    order = ["portable", "avx2", "avx512"]
    assert order.index(chosen) <= order.index(detected)


def test_what_is_absent_says_why_and_what_to_do() -> None:
    for check in doctor.collect():
        assert check.status in ("ok", "absent", "broken")
        assert check.value
        if check.name.startswith("backend") and check.status != "ok":
            assert check.fix


@pytest.mark.usefixtures("fresh_loader")
def test_missing_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_native, "LIBRARY", tmp_path / "_C.so")
    with pytest.raises(BackendError, match=r"^compiled extension missing: run `make build`$"):
        _native.load()
    checks = by_name()
    assert checks["extension"].status == "broken"
    assert checks["backend cpu"].status == "broken"
    assert doctor.run_doctor() == 1
    assert "make build" in capsys.readouterr().out


@pytest.mark.usefixtures("fresh_loader")
def test_damaged_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "LIBRARY", tmp_path / "_C.so")
    (tmp_path / "_C.so").write_bytes(b"not a library")
    with pytest.raises(BackendError, match="does not load"):
        _native.load()
