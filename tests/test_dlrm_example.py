"""examples/dlrm.py learns, and its three ways to train agree where they must."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from recsparse import optim
from recsparse.models import DLRM
from recsparse.nn import SparseEmbedding

FILE = Path(__file__).resolve().parents[1] / "examples" / "dlrm.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dlrm_example", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are tiny: a second thread costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class MaskedEmbedding(nn.Module):
    """What published methods do: a dense weight times a mask."""

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.mask = mask

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.weight * self.mask)


def test_first_steps_equal_those_of_a_masked_embedding(example: ModuleType) -> None:
    clicks, found = example.Clicks(seed=1), []
    for mode in ("masked", "ordinary", "fused"):
        embeddings: list[nn.Module] = []
        for feature, rows in enumerate(example.ROWS):
            table = SparseEmbedding(rows, 16, density=0.3, std=0.1, seed=feature).table
            if mode == "masked":
                embeddings.append(MaskedEmbedding(table.to_dense(), table.mask()))
            elif mode == "ordinary":
                embeddings.append(SparseEmbedding.from_table(table, freeze=False))
            else:
                make = partial(optim.SGD, lr=0.1)
                embeddings.append(SparseEmbedding.from_table(table, fused=True, optimizer=make))
        torch.manual_seed(0)
        model = DLRM(embeddings, example.DENSE, 16)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        found.append(example.train(model, optimizer, clicks, steps=8, batch=256, seed=1))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] == pytest.approx(found[0], rel=1e-5)
    assert len(set(found[0])) == 8


@pytest.mark.parametrize("mode", ["fused", "ordinary"])
def test_it_learns(example: ModuleType, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    loss, constant, auc = example.main(["--mode", mode, "--steps", "100", "--seed", "3"])
    assert loss < constant - 0.03
    assert auc > 0.65
    assert "MB" in capsys.readouterr().out


def test_it_is_deterministic(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (example.main(["--steps", "5", "--batch", "64"]) for _ in range(2))
    assert first == second


def test_auc(example: ModuleType) -> None:
    clicked = torch.tensor([0.0, 0, 1, 1])
    assert example.auc(torch.tensor([1.0, 2, 3, 4]), clicked) == 1
    assert example.auc(torch.tensor([4.0, 3, 2, 1]), clicked) == 0
    assert example.auc(torch.tensor([1.0, 3, 2, 4]), clicked) == 0.75


def test_help_from_the_command_line() -> None:
    done = subprocess.run([sys.executable, str(FILE), "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for option in ("--mode", "--density", "--steps", "--seed"):
        assert option in done.stdout
