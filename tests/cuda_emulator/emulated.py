"""Puts the emulated CUDA kernels in the place of the CPU kernels of this process.

As a pytest plugin (`-p cuda_emulator.emulated`) it makes the tests of the ops test csrc/cuda and its bindings. An
emulated thread is some thousand times slower than a real one, so there are fewer examples and widths.
"""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import native  # noqa: E402

from recsparse import _native  # noqa: E402

FOLDER = ROOT / "build" / "cuda_emulator"
# Odd, two and four mask words, index blocks of two cache lines, 16-bit lengths.
DIMS = (7, 33, 64, 100, 160, 256)


def build() -> Path:
    """The library, compiled if anything has changed."""
    library = FOLDER / "recsparse_emulated.so"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes may ask for it at once
        native.build([native.emulated_library(library)], FOLDER)
    return library


def load() -> None:
    """Load the library that `build` made."""
    _native.load()
    torch.ops.load_library(str(FOLDER / "recsparse_emulated.so"))


def pytest_configure() -> None:
    import strategies

    strategies.DIMS = DIMS
    strategies.dims = st.sampled_from(DIMS)
    load()


def pytest_sessionstart() -> None:
    settings.register_profile("emulator", deadline=None, derandomize=True, max_examples=10)
    settings.load_profile("emulator")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what differs in the number of CPU threads alone."""

    def threads(item: pytest.Item) -> object:
        return (
            item.callspec.params.get("threads")
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else 1
        )

    left_out = [item for item in items if threads(item) == 2]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if threads(item) != 2]
