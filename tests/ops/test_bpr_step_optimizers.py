"""bpr_step_ with each optimiser: against the reference, and against the optimiser's own op on summed gradients."""

from __future__ import annotations

import pytest
import torch
from strategies import DTYPES, KINDS, random_table, random_triples, same_bits

from recsparse import ops
from recsparse.optim import OPTIMIZERS, TableOptimizer
from recsparse.reference.bpr_step import bpr_loss
from recsparse.table import PackedTable

USERS, ITEMS = 40, 50
ROWS = USERS + ITEMS
CLASSES = pytest.mark.parametrize("cls", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def copy_of(table: PackedTable, backend: str = "auto") -> PackedTable:
    state = (tensor.clone() for tensor in table.state_dict().values())
    return PackedTable(table.rows, table.dim, table.kind, *state, backend)


def trained(table: PackedTable, cls: type[TableOptimizer], *, batch_size: int = 32) -> TableOptimizer:
    optimizer = cls(table, lr=0.05, seed=11)  # type: ignore[call-arg]
    triples = random_triples(150, USERS, ITEMS, seed=4)
    ops.bpr_step_(table, optimizer, *triples, item_offset=USERS, batch_size=batch_size, l2=0.02)
    table.check_invariants()
    optimizer.check_invariants()
    return optimizer


@CLASSES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 7, 33, 64, 100, 256])
def test_equals_the_reference(kind: str, dim: int, cls: type[TableOptimizer], threads: int) -> None:
    start = random_table(kind, ROWS, dim, seed=dim, scale=0.3, slack=0 if kind == "full" else 5)
    table, slow = copy_of(start), copy_of(start, "reference")
    optimizer, slow_optimizer = trained(table, cls), trained(slow, cls)
    torch.testing.assert_close(table.values, slow.values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(optimizer.state, slow_optimizer.state, rtol=1e-4, atol=1e-8)
    assert not torch.equal(table.values, start.values)


@CLASSES
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_values_of_16_bits_follow_the_reference(dtype: torch.dtype, cls: type[TableOptimizer]) -> None:
    """The same random bits round both; a gradient that differs in its last bit may round to the neighbour."""
    start = random_table("bits", ROWS, 64, seed=1, scale=0.3, dtype=dtype)
    table, slow = copy_of(start), copy_of(start, "reference")
    trained(table, cls)
    trained(slow, cls)
    equal = (table.values == slow.values).float().mean()
    assert equal > 0.99
    torch.testing.assert_close(table.values, slow.values, rtol=2e-2, atol=2e-3)
    assert not torch.equal(table.values, start.values)


@CLASSES
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_op_of_the_optimiser(kind: str, cls: type[TableOptimizer]) -> None:
    """One mini-batch is one lazy step of `adam_`, .. with the row gradients of the loss."""
    table = random_table(kind, ROWS, 64, seed=2, scale=0.3)
    other = copy_of(table)
    optimizer = trained(table, cls, batch_size=150)
    users, pos, neg = random_triples(150, USERS, ITEMS, seed=4)
    leaf = other.to_dense().requires_grad_()
    _, loss = bpr_loss(leaf, users, USERS + pos, USERS + neg, 0.02)
    (gradient,) = torch.autograd.grad(loss, leaf)
    ids = torch.cat([users, USERS + pos, USERS + neg]).unique()
    peer = cls(other, lr=0.05, seed=11)  # type: ignore[call-arg]
    peer.update_rows(ids, gradient[ids].contiguous())
    torch.testing.assert_close(table.values, other.values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(optimizer.state, peer.state, rtol=1e-4, atol=1e-9)


@CLASSES
def test_same_bits_for_any_thread_count(cls: type[TableOptimizer]) -> None:
    start = random_table("bits", ROWS, 100, scale=0.3)
    before, results = torch.get_num_threads(), []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        table = copy_of(start)
        results.append((table.values, trained(table, cls).state))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(result, results[0], strict=True))
