"""The code of the pages under docs/ runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsparse import policies

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize(("page", "least"), [("sparse_embedding.md", 4), ("lightgcn.md", 1), ("policies.md", 2)])
def test_the_code_of_a_page_runs(page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "REGISTRY", dict(policies.REGISTRY))  # a page adds one
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    assert len(blocks) >= least
    exec("\n".join(blocks), {"path": tmp_path / "checkpoint.pt"})
