from __future__ import annotations

import pytest
import torch

from recsparse import _native
from recsparse.bench.ceilings import Ceilings
from recsparse.bench.registry import Traffic


@pytest.fixture(autouse=True)
def native() -> None:
    _native.load()


@pytest.mark.parametrize("nbytes", [64, 4096, (1 << 19) + 64])
def test_copy_and_read_move_every_byte(nbytes: int) -> None:
    source = torch.randint(256, (nbytes,), dtype=torch.uint8, generator=torch.Generator().manual_seed(nbytes))
    target = torch.zeros_like(source)
    torch.ops.recsparse.ceiling_copy_(target, source)
    assert torch.equal(target, source)
    words = source.view(torch.int64)
    assert torch.ops.recsparse.ceiling_read(source) == int(words.sum())


@pytest.mark.parametrize("line", [64, 128, 256])
def test_gather_touches_every_cache_line_of_the_lines(line: int) -> None:
    words = torch.arange(100 * line // 8)
    ids = torch.randint(100, (3000,), generator=torch.Generator().manual_seed(line))
    touched = words.view(100, line // 64, 8)[:, :, 0]
    got = torch.ops.recsparse.ceiling_gather(words.view(torch.uint8), ids, line)
    assert got == int(touched[ids].sum())


def test_bad_arguments_are_refused() -> None:
    table = torch.zeros(640, dtype=torch.uint8)
    gather = torch.ops.recsparse.ceiling_gather
    with pytest.raises(IndexError, match="outside"):
        gather(table, torch.tensor([0, 10]), 64)
    with pytest.raises(IndexError, match="outside"):
        gather(table, torch.tensor([-1]), 64)
    with pytest.raises(RuntimeError, match="multiple of 64"):
        gather(table, torch.tensor([0]), 60)
    with pytest.raises(RuntimeError, match="uint8"):
        gather(table.float(), torch.tensor([0]), 64)
    with pytest.raises(RuntimeError, match="differ in size"):
        torch.ops.recsparse.ceiling_copy_(table, table[:64].clone())
    with pytest.raises(RuntimeError, match="multiples of 64"):
        torch.ops.recsparse.ceiling_read(table[:100])


def test_rows_of_the_cache_say_threads_and_sizes() -> None:
    rows = Ceilings().rows(quick=True)
    assert {row["case"]["level"] for row in rows} == {"cache"}
    assert {row["threads"] for row in rows} == {torch.get_num_threads()}
    assert all(row["op"] == "ceiling" and row["gbps"] > 0 and row["correct"] for row in rows)


def test_least_time_is_that_of_the_gathers_or_of_all_bytes() -> None:
    ceilings = Ceilings()
    gather = Traffic(gather=1 << 20, line=128, table=1 << 20)
    stream = Traffic(stream=1 << 20)
    both = Traffic(gather=1 << 20, line=128, table=1 << 20, stream=1 << 20)
    assert both.total == 2 << 20
    assert ceilings.microseconds(gather) > 0
    assert ceilings.microseconds(stream) == pytest.approx((1 << 20) / ceilings.stream(1 << 20) / 1e3)
    whole = (2 << 20) / ceilings.stream(2 << 20) / 1e3
    assert ceilings.microseconds(both) == pytest.approx(max(ceilings.microseconds(gather), whole))
    assert ceilings.microseconds(Traffic()) == 0
