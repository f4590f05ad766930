"""adam_, adagrad_, rowwise_adagrad_, sgd_: against the reference and torch.optim, and what must not change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DIMS, KINDS, dims, kinds, random_table, same_bits, seeds
from torch import Tensor

from recsparse import ops
from recsparse.table import PackedTable

OPS: dict[str, Callable[..., None]] = {
    "adam": ops.adam_,
    "adagrad": ops.adagrad_,
    "rowwise_adagrad": ops.rowwise_adagrad_,
    "sgd": ops.sgd_,
}
FORMS = ("rows", "dense", "packed")
ROWS = 90


def copy_of(table: PackedTable, backend: str = "auto") -> PackedTable:
    state = (tensor.clone() for tensor in table.state_dict().values())
    return PackedTable(table.rows, table.dim, table.kind, *state, backend)


def make_state(name: str, table: PackedTable) -> list[Tensor]:
    """The op's arguments between table and gradient: its state, if any, and the step counter."""
    size = {"adam": 2 * table.capacity, "adagrad": table.capacity, "rowwise_adagrad": table.rows, "sgd": 0}[name]
    return [torch.zeros(size)] * (size > 0 or name != "sgd") + [torch.zeros(1, dtype=torch.int64)]


def gradient(form: str, table: PackedTable, *, n: int = 60, seed: int = 0, hot: int | None = None) -> list[Tensor]:
    """A gradient, and the ids of the form `rows`; garbage in columns that are not kept and behind the kept weights."""
    rng = torch.Generator().manual_seed(seed)
    if form == "packed":
        return [torch.randn(table.capacity, generator=rng)]
    if form == "dense":
        return [torch.randn(table.rows, table.dim, generator=rng)]
    ids = torch.randint(0, min(table.rows, hot or table.rows), (n,), generator=rng)
    return [torch.randn(n, table.dim, generator=rng), ids]


def dense_gradient(table: PackedTable, grad: Tensor, ids: Tensor | None = None) -> Tensor:
    """What any form stands for, float32 [rows, dim], 0 in columns that are not kept."""
    mask = table.mask()
    out = torch.zeros(table.rows, table.dim)
    if ids is not None:
        return out.index_add_(0, ids, grad) * mask
    if grad.dim() == 2:
        return grad * mask
    out[mask] = grad[: table.nnz]
    return out


def assert_like_the_reference(
    name: str, table: PackedTable, gradients: list[list[Tensor]], **options: Any
) -> list[Tensor]:
    slow = copy_of(table, "reference")
    state, slow_state = make_state(name, table), make_state(name, table)
    for arguments in gradients:
        OPS[name](table, *state, *arguments, **options)
        OPS[name](slow, *slow_state, *arguments, **options)
    table.check_invariants()
    assert int(state[-1]) == int(slow_state[-1]) == len(gradients)
    for own, theirs in zip(state[:-1], slow_state[:-1], strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(table.values, slow.values, rtol=1e-5, atol=1e-5)
    return state


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_equals_the_reference(name: str, form: str, kind: str, dim: int) -> None:
    """Three steps; some rows are empty, some full, some named twice."""
    table = random_table(kind, ROWS, dim, seed=dim, slack=5)
    gradients = [gradient(form, table, seed=step) for step in range(3)]
    assert_like_the_reference(name, table, gradients, lr=0.05, weight_decay=0.1)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_lazy_equals_the_reference(name: str, kind: str, dim: int, threads: int) -> None:
    table = random_table(kind, ROWS, dim, seed=dim, slack=5)
    hot = gradient("rows", table, n=600, seed=1, hot=3)
    hot[0].mul_(8).round_().div_(8)  # long sums of eighths are exact, in whatever order a backend takes them
    gradients = [gradient("rows", table, n=700, seed=0), hot]
    assert_like_the_reference(name, table, gradients, lr=0.05, weight_decay=0.1, lazy=True)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("own", [False, True], ids=["float32 gradient", "gradient of its dtype"])
def test_16_bit_values_equal_the_reference(name: str, form: str, dtype: torch.dtype, lazy: bool, own: bool) -> None:
    """All but a few weights have the reference's bits: a last bit of the update may turn a rounding."""
    for kind in KINDS:
        table = random_table(kind, ROWS, 100, slack=5, dtype=dtype)
        slow = copy_of(table, "reference")
        state, slow_state = make_state(name, table), make_state(name, table)
        for step in range(3):
            grad, *ids = gradient(form, table, seed=step)
            arguments = [grad.to(dtype) if own else grad, *ids]
            OPS[name](table, *state, *arguments, lr=0.01, weight_decay=0.1, lazy=lazy, seed=7)
            OPS[name](slow, *slow_state, *arguments, lr=0.01, weight_decay=0.1, lazy=lazy, seed=7)
        table.check_invariants()
        assert float((table.values != slow.values).float().mean()) < 0.01
        torch.testing.assert_close(table.values.float(), slow.values.float(), rtol=0.02, atol=1e-3)


@given(
    name=st.sampled_from(sorted(OPS)),
    form=st.sampled_from(FORMS),
    kind=kinds,
    dim=dims,
    rows=st.integers(1, 70),
    n=st.integers(0, 150),
    hot=st.integers(1, 70),
    lazy=st.booleans(),
    decay=st.sampled_from([0.0, 0.3]),
    seed=seeds,
)
def test_any_table_and_gradient(
    name: str, form: str, kind: str, dim: int, rows: int, n: int, hot: int, lazy: bool, decay: float, seed: int
) -> None:
    table = random_table(kind, rows, dim, seed=seed, slack=3)
    gradients = [gradient(form, table, n=n, seed=seed + step, hot=hot) for step in range(2)]
    assert_like_the_reference(name, table, gradients, lr=0.05, weight_decay=decay, lazy=lazy)


PEERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("kind", KINDS)
def test_200_full_steps_equal_torch_on_the_masked_weight(name: str, form: str, decay: float, kind: str) -> None:
    table = random_table(kind, ROWS, 33, scale=0.1, slack=4)
    weight = table.to_dense().double().requires_grad_()
    peer = PEERS[name]([weight], lr=1e-3, weight_decay=decay)
    state = make_state(name, table)
    for step in range(200):
        arguments = gradient(form, table, seed=step)
        weight.grad = dense_gradient(table, *arguments).double()
        peer.step()
        OPS[name](table, *state, *arguments, lr=1e-3, weight_decay=decay)
    torch.testing.assert_close(table.to_dense(), weight.detach().float() * table.mask(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "peer"), [("adam", torch.optim.SparseAdam), ("adagrad", torch.optim.Adagrad)])
@pytest.mark.parametrize("kind", KINDS)
def test_200_lazy_steps_equal_torch_with_a_sparse_gradient(
    name: str, peer: Callable[..., torch.optim.Optimizer], kind: str
) -> None:
    table = random_table(kind, ROWS, 33, scale=0.1, slack=4)
    mask = table.mask()
    weight = table.to_dense().double().requires_grad_()
    optimizer = peer([weight], lr=1e-3)
    state = make_state(name, table)
    for step in range(200):
        grad, ids = gradient("rows", table, n=20, seed=step)
        sparse = torch.sparse_coo_tensor(ids[None], (grad * mask[ids]).double(), weight.shape, check_invariants=True)
        weight.grad = sparse
        optimizer.step()
        OPS[name](table, *state, grad, ids, lr=1e-3, lazy=True)
    torch.testing.assert_close(table.to_dense(), weight.detach().float() * mask, rtol=0, atol=1e-6)


def test_rowwise_adagrad_takes_the_mean_over_kept_columns() -> None:
    mask = torch.tensor([[True, False, True, False], [True, True, True, True], [False, False, False, False]])
    table = PackedTable.from_dense(torch.zeros(3, 4), mask)
    sums, step = torch.zeros(3), torch.zeros(1, dtype=torch.int64)
    grad = torch.tensor([[3.0, 99.0, 1.0, 99.0], [1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0]])
    ops.rowwise_adagrad_(table, sums, step, grad, lr=0.1)
    assert sums.tolist() == [5.0, 7.5, 0.0]
    roots = torch.tensor([5.0, 7.5, 1.0]).sqrt()[:, None]
    torch.testing.assert_close(table.to_dense(), -0.1 * grad * mask / roots)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("kind", KINDS)
def test_lazy_leaves_other_rows_and_their_state_alone(name: str, kind: str) -> None:
    table = random_table(kind, ROWS, 64)
    state = make_state(name, table)
    OPS[name](table, *state, *gradient("packed", table), lr=0.05)
    dense, sums = table.to_dense(), [part.clone() for part in state[:-1]]
    grad, ids = gradient("rows", table, hot=4)
    OPS[name](table, *state, grad, ids, lr=0.05, weight_decay=0.1, lazy=True)
    assert torch.equal(table.to_dense()[4:], dense[4:])
    assert not torch.equal(table.to_dense()[:4], dense[:4])
    behind = int(table.row_counts()[:4].sum())
    for now, then in zip(state[:-1], sums, strict=True):
        first = 4 if name == "rowwise_adagrad" else behind * len(now) // table.capacity
        assert torch.equal(now[first:], then[first:])


def test_full_adam_moves_rows_that_ids_do_not_name() -> None:
    table = random_table("bits", ROWS, 64, density=0.3)
    state = make_state("adam", table)
    ops.adam_(table, *state, *gradient("packed", table))
    dense = table.to_dense()
    ops.adam_(table, *state, *gradient("rows", table, hot=4))
    moved = (table.to_dense() != dense) == table.mask()
    assert bool(moved.all())


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lazy", [False, True])
def test_same_bits_for_any_thread_count_and_run(name: str, form: str, lazy: bool) -> None:
    start = random_table("bits", 3000, 64, density=0.3)
    arguments = gradient(form, start, n=5000)
    results = []
    before = torch.get_num_threads()
    for number in (1, 2, 3, 2):
        torch.set_num_threads(number)
        table = copy_of(start)
        state = make_state(name, table)
        for _ in range(2):
            OPS[name](table, *state, *arguments, weight_decay=0.01, lazy=lazy)
        results.append([table.values, *state])
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("lazy", [False, True])
def test_garbage_where_nothing_is_kept_does_not_matter(name: str, lazy: bool) -> None:
    table = random_table("bits", ROWS, 33, slack=5)
    other, mask = copy_of(table), table.mask()
    grad, ids = gradient("rows", table)
    state, other_state = make_state(name, table), make_state(name, table)
    OPS[name](table, *state, grad, ids, lazy=lazy)
    OPS[name](other, *other_state, torch.where(mask[ids], grad, torch.nan), ids, lazy=lazy)
    assert same_bits(table.values, other.values)
    dense, packed = gradient("dense", table)[0], gradient("packed", table)[0]
    OPS[name](table, *state, dense)
    OPS[name](other, *other_state, torch.where(mask, dense, torch.nan))
    OPS[name](table, *state, packed)
    packed[table.nnz :] = torch.nan
    OPS[name](other, *other_state, packed)
    assert same_bits(table.values, other.values)
    assert all(same_bits(a, b) for a, b in zip(state, other_state, strict=True))
    other.check_invariants()


@pytest.mark.parametrize("name", OPS)
def test_no_ids(name: str) -> None:
    table = random_table("bits", ROWS, 33)
    before, state = table.values.clone(), make_state(name, table)
    OPS[name](table, *state, torch.zeros(0, 33), torch.zeros(0, dtype=torch.int64), lazy=True)
    assert same_bits(table.values, before)
    assert int(state[-1]) == 1


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("bad", [-1, ROWS, 2**31, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_bad_id_is_named_and_nothing_has_changed(name: str, lazy: bool, bad: int, backend: str) -> None:
    table = random_table("bits", ROWS, 33, backend=backend)
    grad, ids = gradient("rows", table)
    ids[41], ids[50] = bad, bad
    state = make_state(name, table)
    before = [tensor.clone() for tensor in (table.values, *state)]
    with pytest.raises(IndexError) as caught:
        OPS[name](table, *state, grad, ids, lazy=lazy)
    message = f"{name}_: ids[41] = {bad} is out of range, expected 0..{ROWS - 1}"
    assert str(caught.value).splitlines()[0] == message
    assert all(same_bits(a, b) for a, b in zip((table.values, *state), before, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grad": torch.zeros(5)}, ValueError, "grad has shape [5], expected ["),
        ({"grad": torch.zeros(ROWS, 32)}, ValueError, "grad has shape [90, 32], expected [90, 33], a dense gradient"),
        ({"grad": torch.zeros(7, 33), "ids": torch.zeros(8).long()}, ValueError, "expected [8, 33], a row for each"),
        ({"grad": torch.zeros(ROWS, 33).double()}, TypeError, "grad has dtype Double, expected Float"),
        ({"grad": torch.zeros(ROWS, 33).half()}, TypeError, "grad has dtype Half, expected Float"),
        ({"grad": torch.zeros(33, ROWS).t()}, ValueError, "grad is not contiguous"),
        ({"grad": torch.zeros(8, 33), "ids": torch.zeros(8).int()}, TypeError, "ids has dtype Int, expected Long"),
        ({"moments": torch.zeros(7)}, ValueError, "moments has 7 entries, expected"),
        ({"step": torch.zeros(2).long()}, ValueError, "step has 2 entries, expected 1"),
        ({"step": torch.tensor([-1])}, ValueError, "step is -1, expected at least 0"),
        ({"step": torch.zeros(1)}, TypeError, "step has dtype Float, expected Long"),
        ({"lr": -1.0}, ValueError, "lr is -1, expected at least 0"),
        ({"lr": float("nan")}, ValueError, "lr is nan, expected at least 0"),
        ({"eps": 0.0}, ValueError, "eps is 0, expected above 0"),
        ({"betas": (1.0, 0.999)}, ValueError, "betas are 1 and 0.999, expected in [0, 1)"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay is -0.1, expected at least 0"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    table = random_table("bits", ROWS, 33)
    moments, step = make_state("adam", table)
    before = table.values.clone()
    arguments = {"moments": moments, "step": step, "grad": gradient("dense", table)[0], **change}
    with pytest.raises(error) as caught:
        ops.adam_(table, **arguments)
    assert str(caught.value).startswith("adam_: ")
    assert message in str(caught.value)
    assert len(str(caught.value).strip().splitlines()) == 1
    assert same_bits(table.values, before)


def test_autograd_refuses_a_graph_that_saved_the_old_values() -> None:
    table = random_table("bits", ROWS, 33)
    table.values.requires_grad_()
    loss = (table.values * table.values).sum()
    with torch.no_grad():
        ops.sgd_(table, torch.zeros(1, dtype=torch.int64), torch.ones(table.capacity))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(name: str, form: str, kind: str) -> None:
    table = random_table(kind, ROWS, 33, slack=2)
    grad, ids = [*gradient(form, table), None][:2]
    options = {
        "adam": (1e-3, 0.9, 0.999, 1e-8, 0.1),
        "adagrad": (1e-2, 1e-10, 0.1),
        "rowwise_adagrad": (1e-2, 1e-10, 0.1),
        "sgd": (1e-2, 0.1),
    }[name]
    state = make_state(name, table)
    arguments = (table.values, *state, table.index, table.cols, grad, ids, *table.layout, *options, False, 3)
    torch.library.opcheck(getattr(torch.ops.recsparse, f"{name}_"), arguments)


@pytest.mark.parametrize("name", OPS)
def test_a_compiled_step_is_compiled_once(name: str) -> None:
    table = random_table("bits", ROWS, 33)
    other = copy_of(table)
    state, other_state = make_state(name, table), make_state(name, table)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(grad: Tensor) -> None:
        OPS[name](table, *state, grad)

    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for number in range(3):
            grad = gradient("packed", table, seed=number)[0]
            step(grad)
            OPS[name](other, *other_state, grad)
    assert same_bits(table.values, other.values)
    assert int(state[-1]) == 3
