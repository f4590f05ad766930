"""SparseEmbedding: against nn.Embedding and nn.EmbeddingBag on the masked weight, in both modes, compiled or not."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import partial

import pytest
import torch
from strategies import KINDS, random_case, same_bits
from torch import Tensor, nn

from recsparse import layout, ops
from recsparse.errors import InvariantError
from recsparse.nn import SparseEmbedding
from recsparse.optim import SGD, Adam

ROWS, DIM = 40, 33


def ids_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, ROWS, shape, generator=torch.Generator().manual_seed(seed))


def case(kind: str = "bits") -> tuple[Tensor, Tensor]:
    return random_case(kind, ROWS, DIM, seed=3, scale=0.3)


def trained(emb: nn.Module, optimizer: torch.optim.Optimizer | None, steps: int = 5) -> list[float]:
    """Losses of steps with two batches in turn."""
    target, losses = torch.randn(12, DIM, generator=torch.Generator().manual_seed(9)), []
    for step in range(steps):
        loss = (emb(ids_of(12, seed=step % 2)) - target).square().sum()
        loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_ids_of_any_shape(kind: str) -> None:
    dense, mask = case(kind)
    emb = SparseEmbedding.from_pretrained(dense, mask, kind=kind)
    for ids in (
        ids_of(5),
        ids_of(2, 3),
        ids_of(2, 1, 4),
        ids_of(0),
        torch.tensor(7),
        ids_of(3, 4).t(),
        ids_of(6).int(),
    ):
        assert same_bits(emb(ids), nn.functional.embedding(ids, dense))


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_bags_as_embedding_bag_takes_them(kind: str, mode: str) -> None:
    dense, mask = case(kind)
    ids, offsets = ids_of(30), torch.tensor([0, 0, 7, 19, 19])
    for padding in (None, 5, -3):
        emb = SparseEmbedding.from_pretrained(dense, mask, kind=kind, mode=mode, padding_idx=padding)
        want = nn.EmbeddingBag.from_pretrained(dense, mode=mode, padding_idx=padding)
        torch.testing.assert_close(emb(ids, offsets), want(ids, offsets))
        torch.testing.assert_close(emb(ids.int(), offsets.int()), want(ids, offsets))
        torch.testing.assert_close(emb(ids.view(6, 5)), want(ids.view(6, 5)))
    emb = SparseEmbedding.from_pretrained(dense, mask, mode=mode, include_last_offset=True)
    want = nn.EmbeddingBag.from_pretrained(dense, mode=mode, include_last_offset=True)
    closed = torch.tensor([0, 4, 30])
    torch.testing.assert_close(emb(ids, closed), want(ids, closed))
    if mode == "sum":
        weights = torch.linspace(-1, 1, 30)
        torch.testing.assert_close(emb(ids, closed, weights), want(ids, closed, weights))
        torch.testing.assert_close(
            emb(ids.view(6, 5), per_sample_weights=weights.view(6, 5)),
            want(ids.view(6, 5), per_sample_weights=weights.view(6, 5)),
        )


@pytest.mark.parametrize("make", [partial(torch.optim.Adam, lr=0.01), partial(torch.optim.SGD, lr=0.01, momentum=0.9)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_torch_optimiser_trains_the_masked_weight(kind: str, make: Callable[..., torch.optim.Optimizer]) -> None:
    dense, mask = case(kind)
    emb = SparseEmbedding.from_pretrained(dense, mask, kind=kind, freeze=False, padding_idx=4)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(dense.clone())

        def forward(self, ids: Tensor) -> Tensor:
            return nn.functional.embedding(ids, self.weight * mask, padding_idx=4)

    masked = Masked()
    losses = trained(emb, make(emb.parameters()))
    assert losses == pytest.approx(trained(masked, make(masked.parameters())), rel=1e-5)
    torch.testing.assert_close(emb.to_dense(), masked.weight.detach() * mask)
    assert [name for name, _ in emb.named_parameters()] == ["values"]
    assert losses[-1] < losses[0]


def test_the_parameter_knows_its_table() -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.2)
    table = emb.values.packed_table
    assert table is emb.table
    assert table.values.data_ptr() == emb.values.data_ptr()
    with torch.no_grad():
        emb.values.mul_(2)
    assert same_bits(table.values, emb.values)


@pytest.mark.parametrize("kind", KINDS)
def test_fused_adam_is_sparse_adam_on_the_masked_weight(kind: str, threads: int) -> None:
    dense, mask = case(kind)
    emb = SparseEmbedding.from_pretrained(dense, mask, kind=kind, fused=True, optimizer=partial(Adam, lr=0.01))
    want = nn.Embedding.from_pretrained(dense.clone(), freeze=False, sparse=True)
    kept = lambda grad: torch.sparse_coo_tensor(  # noqa: E731
        grad._indices(), grad._values() * mask[grad._indices()[0]], grad.shape, check_invariants=False
    )
    want.weight.register_hook(kept)
    losses = trained(emb, None)
    assert losses == pytest.approx(trained(want, torch.optim.SparseAdam(want.parameters(), lr=0.01)), rel=1e-4)
    torch.testing.assert_close(emb.to_dense(), want.weight.detach(), rtol=1e-4, atol=1e-5)
    assert list(emb.parameters()) == []
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("mode", ["sum", "mean", "weighted"])
def test_fused_bags_equal_ordinary_bags(mode: str) -> None:
    dense, mask = case()
    options = {"mode": "sum" if mode == "weighted" else mode, "padding_idx": 5, "bounds": "ignore"}
    fused = SparseEmbedding.from_pretrained(dense, mask, fused=True, optimizer=partial(SGD, lr=0.1), **options)
    plain = SparseEmbedding.from_pretrained(dense, mask, freeze=False, **options)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    ids, offsets = ids_of(30), torch.tensor([0, 0, 7, 19, 19])
    ids[3], ids[8] = -1, ROWS
    weights = torch.linspace(-1, 1, 30) if mode == "weighted" else None
    for emb in (fused, plain):
        emb(ids, offsets, weights).square().sum().backward()
        emb(ids.view(6, 5), None, None if weights is None else weights.view(6, 5)).square().sum().backward()
        if emb is plain:
            optimizer.step()
    # Two updates in a row here and one of the summed gradients there: equal for the first step of both alone.
    assert not torch.equal(fused.to_dense(), plain.to_dense())
    fused = SparseEmbedding.from_pretrained(dense, mask, fused=True, optimizer=partial(SGD, lr=0.1), **options)
    plain = SparseEmbedding.from_pretrained(dense, mask, freeze=False, **options)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(3):
        for emb in (fused, plain):
            emb(ids, offsets, weights).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(fused.to_dense(), plain.to_dense())
    assert torch.equal(fused.to_dense()[5], dense[5])


def test_fused_uses_each_make_an_update() -> None:
    """Twice in one forward, and a second forward before the first backward: gradients are those of the forward."""
    dense, mask = case()
    emb = SparseEmbedding.from_pretrained(dense, mask, fused=True, optimizer=partial(SGD, lr=0.1))
    a, b = ids_of(6, seed=1), ids_of(6, seed=2)
    scale = torch.arange(1.0, 7)[:, None]
    (emb(a) * scale + emb(b)).sum().backward()
    step = torch.zeros(ROWS, DIM).index_add(0, a, scale.expand(6, DIM)).index_add(0, b, torch.ones(6, DIM))
    want = dense - 0.1 * step * mask
    torch.testing.assert_close(emb.to_dense(), want)
    first, second = emb(a).square().sum(), emb(a).square().sum()
    at_forward = emb.to_dense()
    first.backward()
    second.backward()
    step = torch.zeros(ROWS, DIM).index_add(0, a, 2 * at_forward[a])
    torch.testing.assert_close(emb.to_dense(), at_forward - 0.1 * 2 * step * mask)
    assert int(emb.optimizer.step) == 4


def test_fused_trains_in_training_mode_alone() -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.3, fused=True, optimizer=Adam)
    before = emb.to_dense()
    with torch.no_grad():
        assert not emb(ids_of(4)).requires_grad
    assert not emb.eval()(ids_of(4)).requires_grad
    assert emb.train()(ids_of(4)).requires_grad
    assert same_bits(before, emb.to_dense())


def test_fused_allocates_nothing_of_the_size_of_the_table() -> None:
    emb = SparseEmbedding(100_000, 64, density=0.1, fused=True, optimizer=Adam)
    ids = torch.randint(0, 100_000, (64,))
    emb(ids).sum().backward()
    with torch.profiler.profile(profile_memory=True) as profile:
        emb(ids).sum().backward()
    sizes = [event.cpu_memory_usage for event in profile.events()]
    assert 64 * 64 * 4 <= max(sizes) < emb.table.capacity  # bytes against weights: a quarter of the values


class Model(nn.Module):
    def __init__(self, emb: SparseEmbedding) -> None:
        super().__init__()
        self.emb = emb
        self.out = nn.Linear(DIM, 1)
        with torch.no_grad():
            self.out.weight.copy_(torch.linspace(-1, 1, DIM)[None])
            self.out.bias.zero_()

    def forward(self, *inputs: Tensor | None) -> Tensor:
        return self.out(self.emb(*inputs)).square().sum()


def compiled_equals_eager(backend: str, fused: bool, mode: str | None) -> None:
    torch._dynamo.reset()
    dense, mask = case()
    options = {"fused": True, "optimizer": partial(Adam, lr=0.01)} if fused else {"freeze": False}
    weights = torch.linspace(-1, 1, 12) if mode == "sum" else None
    states, losses = [], []
    for compiled in (False, True):
        emb = SparseEmbedding.from_pretrained(dense, mask, mode=mode, padding_idx=5, **options)
        model = Model(emb)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        call = torch.compile(model, fullgraph=True, backend=backend) if compiled else model
        losses.append([])
        for step in range(3):
            inputs = (ids_of(12, seed=step),) + ((torch.tensor([0, 3, 3]), weights) if mode else ())
            loss = call(*inputs)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(float(loss.detach()))
        states.append(model.state_dict())
        assert emb.table.values.data_ptr() == emb.values.data_ptr()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] != losses[0][1]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", [None, "sum", "mean"])
@pytest.mark.parametrize("fused", [False, True])
def test_compiles_into_one_graph(fused: bool, mode: str | None) -> None:
    compiled_equals_eager("aot_eager", fused, mode)


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True])
def test_compiles_with_inductor(fused: bool) -> None:
    compiled_equals_eager("inductor", fused, None)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_checkpoints(kind: str, fused: bool) -> None:
    dense, mask = case(kind)
    options = {"kind": kind} | ({"fused": True, "optimizer": Adam} if fused else {"freeze": False})
    emb = SparseEmbedding.from_pretrained(dense, mask, **options)
    trained(emb, None if fused else torch.optim.Adam(emb.parameters()))
    file = io.BytesIO()
    torch.save(nn.ModuleDict({"table": emb}).state_dict(), file)
    file.seek(0)
    for assign in (False, True):
        state = torch.load(file, weights_only=True)
        file.seek(0)
        other = SparseEmbedding.from_pretrained(torch.zeros(ROWS, DIM), mask, **options)
        nn.ModuleDict({"table": other}).load_state_dict(state, assign=assign)
        assert same_bits(other.to_dense(), emb.to_dense())
        assert trained(emb if assign else copy.deepcopy(emb), None, 2) == trained(other, None, 2)
        assert torch.equal(other(ids_of(9)), other.to_dense()[ids_of(9)])


def test_a_broken_checkpoint_is_refused() -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.2, seed=0)
    state = {name: tensor.clone() for name, tensor in emb.state_dict().items()}
    state["index"][0] = 3
    with pytest.raises(RuntimeError, match="SparseEmbedding: "):
        emb.load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch for values"):
        emb.load_state_dict(SparseEmbedding(ROWS, DIM, density=0.3).state_dict())
    assert issubclass(InvariantError, Exception)


@pytest.mark.parametrize("fused", [False, True])
def test_a_deep_copy_is_its_own(fused: bool) -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.2, fused=fused, optimizer=Adam if fused else None)
    other = copy.deepcopy(emb)
    before = emb.to_dense()
    trained(other, None if fused else torch.optim.SGD(other.parameters(), lr=0.1))
    assert same_bits(emb.to_dense(), before)
    assert not torch.equal(other.to_dense(), before)
    assert torch.equal(other(ids_of(9)), other.to_dense()[ids_of(9)])
    if fused:
        assert other.optimizer.table is other.table
        assert int(emb.optimizer.step) == 0
        assert int(other.optimizer_step) == 5
    else:
        assert other.values.packed_table is other.table


def test_a_whole_module_can_be_saved() -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.2)
    file = io.BytesIO()
    torch.save(emb, file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    assert same_bits(other.to_dense(), emb.to_dense())
    trained(other, torch.optim.SGD(other.parameters(), lr=0.1))
    assert torch.equal(other(ids_of(9)), other.to_dense()[ids_of(9)])


@pytest.mark.parametrize("fused", [False, True])
def test_pruned_and_regrown_through_its_table(fused: bool) -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.2, fused=fused, optimizer=Adam if fused else None, seed=0)
    free = (~emb.table.mask()).view(-1).nonzero()[:30, 0]
    moments = emb.optimizer.moments if fused else None
    ops.prune_regrow_(emb.table, moments, free, torch.linspace(1, 2, 30), drop=20, grow=20)
    emb.table.check_invariants()
    assert bool(emb.table.mask().view(-1)[free[10:]].all())
    trained(emb, None if fused else torch.optim.SGD(emb.parameters(), lr=0.1))
    assert torch.equal(emb(ids_of(9)), emb.to_dense()[ids_of(9)])


@pytest.mark.parametrize("fused", [False, True])
def test_another_index_kind_in_place(fused: bool) -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.2, fused=fused, optimizer=Adam if fused else None, seed=0)
    before = emb.to_dense()
    emb.convert_("cols8")
    assert same_bits(emb(torch.arange(ROWS)), before)
    assert set(emb.state_dict()) >= {"index", "cols", "values"}
    assert emb.state_dict()["cols"].numel() == emb.table.capacity


def test_sizes_by_density_capacity_or_bytes() -> None:
    assert SparseEmbedding(ROWS, DIM, density=0.25).table.capacity == round(0.25 * ROWS * DIM)
    assert SparseEmbedding(ROWS, DIM, capacity=77).table.capacity == 77
    for kind in ("bits", "cols8", "prefix"):
        budget = layout.stored_nbytes(kind, ROWS, DIM, 90)
        emb = SparseEmbedding(ROWS, DIM, budget=budget, kind=kind)
        assert emb.nbytes()["total"] == budget
    assert SparseEmbedding(ROWS, DIM, kind="full").table.density == 1
    emb = SparseEmbedding(ROWS, DIM, capacity=100, fused=True, optimizer=Adam)
    assert emb.nbytes()["state"] == 2 * 4 * 100 + 8


def test_initial_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(5)
    a, b = (SparseEmbedding(500, DIM, density=0.5, padding_idx=3) for _ in range(2))
    torch.manual_seed(5)
    c = SparseEmbedding(500, DIM, density=0.5, padding_idx=3)
    assert same_bits(a.to_dense(), c.to_dense())
    assert not torch.equal(a.to_dense(), b.to_dense())
    assert float(a.values.detach().std()) == pytest.approx(1.0, abs=0.05)
    assert not a.to_dense()[3].any()
    with torch.no_grad():
        a.values.fill_(7)
    a.reset_parameters()
    assert same_bits(a.to_dense(), c.to_dense())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [Adam, SGD])
def test_fused_values_of_two_bytes_train_like_those_of_four(make: Callable[..., SGD], dtype: torch.dtype) -> None:
    """Stochastic rounding keeps the loss on its course; rounding to nearest would lose most of such small steps."""
    dense, mask = case()
    losses = {}
    for kept in (torch.float32, dtype):
        emb = SparseEmbedding.from_pretrained(dense.to(kept), mask, fused=True, optimizer=partial(make, lr=5e-4))
        losses[kept] = trained(emb, None, steps=400)
    assert emb.values.dtype == dtype
    fell = losses[torch.float32][0] - losses[torch.float32][-1]
    assert fell > 1
    assert losses[dtype][-1] == pytest.approx(losses[torch.float32][-1], abs=0.1 * fell)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_values_of_two_bytes(dtype: torch.dtype) -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.3, dtype=dtype)
    assert emb(ids_of(4)).dtype == dtype
    assert emb.nbytes()["values"] == 2 * emb.table.capacity
    other = SparseEmbedding(ROWS, DIM, density=0.3, seed=emb.seed).to(dtype)
    assert same_bits(other.to_dense(), emb.to_dense())
    assert other.values.packed_table.values.data_ptr() == other.values.data_ptr()


def test_freezing() -> None:
    dense, mask = case()
    assert not SparseEmbedding.from_pretrained(dense, mask)(ids_of(4)).requires_grad
    assert SparseEmbedding.from_pretrained(dense, mask, freeze=False)(ids_of(4)).requires_grad
    assert SparseEmbedding.from_pretrained(dense, mask, fused=True, optimizer=Adam)(ids_of(4)).requires_grad
    with pytest.raises(ValueError, match="freeze must be False"):
        SparseEmbedding.from_pretrained(dense, mask, fused=True, optimizer=Adam, freeze=True)


def test_its_repr() -> None:
    emb = SparseEmbedding(ROWS, DIM, capacity=99, padding_idx=-1, mode="sum", fused=True, optimizer=Adam)
    assert repr(emb) == "SparseEmbedding(40, 33, kind='bits', capacity=99, padding_idx=39, mode='sum', fused=Adam)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of density, capacity and budget; 0 are given"),
        ({"density": 0.1, "capacity": 3}, "give one of density, capacity and budget; 2 are given"),
        ({"density": 1.5}, "density is 1.5, expected above 0 and at most 1"),
        ({"budget": 10}, "budget is 10 bytes, expected at least"),
        ({"density": 0.1, "max_norm": 1.0}, "max_norm is not supported"),
        ({"density": 0.1, "sparse": True}, "sparse is not supported"),
        ({"density": 0.1, "scale_grad_by_freq": True}, "scale_grad_by_freq is not supported"),
        ({"density": 0.1, "device": "cuda"}, "device is not supported: tables live on the CPU"),
        ({"density": 0.1, "mode": "max"}, "mode is 'max', expected None, 'sum', 'mean'"),
        ({"density": 0.1, "padding_idx": 40}, "padding_idx is 40, expected -40..39"),
        ({"density": 0.1, "bounds": "no"}, "bounds is 'no', expected one of fatal, warning, ignore"),
        ({"density": 0.1, "optimizer": Adam}, "optimizer is for fused=True"),
        ({"density": 0.1, "fused": True}, "fused=True needs an optimizer"),
        ({"density": 0.1, "kind": "csr"}, "index kind is 'csr'"),
    ],
)
def test_unsupported_arguments_are_one_clear_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r"SparseEmbedding|index kind") as caught:
        SparseEmbedding(ROWS, DIM, **options)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("mode", "inputs", "error", "message"),
    [
        (None, (torch.zeros(3),), TypeError, "ids have dtype torch.float32"),
        (None, (ids_of(3), torch.zeros(1).long()), ValueError, "are for bags; construct it with mode="),
        ("sum", (ids_of(3),), ValueError, "bags need 2-D ids, or 1-D ids and offsets; found 1-D ids"),
        ("sum", (ids_of(3, 2), torch.zeros(1).long()), ValueError, "offsets must not be given"),
        ("sum", (ids_of(3), torch.zeros(1).long(), torch.ones(2)), ValueError, "has shape [2], expected [3]"),
        ("mean", (ids_of(3), torch.zeros(1).long(), torch.ones(3)), ValueError, "per_sample_weights need mode sum"),
        (None, (torch.tensor([1, ROWS]),), IndexError, "ids[1] = 40 is out of range, expected 0..39"),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_wrong_inputs_are_named(
    mode: str | None, inputs: tuple[Tensor, ...], error: type[Exception], message: str, fused: bool
) -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.3, mode=mode, fused=fused, optimizer=Adam if fused else None)
    with pytest.raises(error) as caught:
        emb(*inputs)
    assert message in str(caught.value).splitlines()[0]


def test_what_the_modes_cannot_do_is_said() -> None:
    emb = SparseEmbedding(ROWS, DIM, density=0.3, mode="sum", fused=True, optimizer=Adam)
    weights = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="fused=True has no gradient for per_sample_weights"):
        emb(ids_of(3), torch.zeros(1).long(), weights)
    with pytest.raises(ValueError, match=r"cannot become torch.float64 on cpu"):
        emb.double()
    with pytest.raises(ValueError, match=r"cannot become .* on meta"):
        emb.to("meta")
