from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# derandomize: the same examples on every machine, so that a red test is red for everybody.
# RECSPARSE_EXAMPLES: fewer of them, for tests that run the tests of the ops again.
examples = int(os.environ.get("RECSPARSE_EXAMPLES", settings().max_examples))
settings.register_profile("recsparse", deadline=None, derandomize=True, max_examples=examples)
settings.load_profile("recsparse")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    reason = "torch is a CPU build" if torch.version.cuda is None else "torch sees no NVIDIA GPU"
    skip = pytest.mark.skip(reason=f"needs a GPU: {reason}")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs the test with 1 and with 2 threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data sets, named by RECSPARSE_DATA."""
    name = os.environ.get("RECSPARSE_DATA")
    if not name:
        pytest.skip("RECSPARSE_DATA is not set: no real data")
    path = Path(name)
    if not path.is_dir():
        pytest.skip(f"RECSPARSE_DATA={name} is not a folder: no real data")
    return path


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    """Fresh memory from torch holds NaN (integers: the largest value), so that an unwritten output shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory, torch.are_deterministic_algorithms_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.utils.deterministic.fill_uninitialized_memory = before[0]
    torch.use_deterministic_algorithms(before[1])
