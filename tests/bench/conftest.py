from __future__ import annotations

import pytest

from recsparse.bench import memory


@pytest.fixture(autouse=True)
def freed_memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process goes on to other tests, which need the gigabytes that it would keep."""
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: True)
