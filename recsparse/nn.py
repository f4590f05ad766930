"""`SparseEmbedding`: `torch.nn.Embedding` and `torch.nn.EmbeddingBag` that store only their kept weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recsparse import layout, ops
from recsparse.errors import InvariantError
from recsparse.ops.lookup import BOUNDS
from recsparse.ops.lookup_bag import MODES
from recsparse.table import DTYPES, PackedTable

_STATE = "optimizer_"  # prefix of the buffers that hold the state of a fused optimiser


class RowOptimizer(Protocol):
    """What the fused mode needs of an optimiser; `recsparse.optim.Adam` and its siblings are such."""

    def update_rows(self, ids: Tensor, grad: Tensor) -> None:
        """Update the rows `ids` (int64 [n], duplicates are summed) of the table from float32 `grad` [n, dim]."""

    def state_dict(self) -> dict[str, Tensor]:
        """The state tensors themselves, each an attribute of the same name."""


class SparseEmbedding(nn.Module):
    """An embedding table with `num_embeddings` x `embedding_dim` slots, of which up to `capacity` hold a weight.

    Called like `nn.Embedding` (`mode=None`: ids of any shape -> [..., dim]) or like `nn.EmbeddingBag` (`mode="sum"` or
    `"mean"`: 1-D ids with offsets, or 2-D ids, one bag a row -> [bags, dim]). Slots that are not kept read 0.

    How it trains:

    - ordinary (`fused=False`): `values` is a parameter [capacity] with a packed gradient [capacity]; any torch
      optimiser works. Its attribute `packed_table` is the `PackedTable` that shares its storage, for `recsparse.optim`.
    - `fused=True`: there is no parameter. Each backward of each use of the module makes one lazy update: the rows that
      the use looked up, duplicates summed, with the gradients that it received. A module used twice before a backward
      is updated twice in it, each time with the gradients of one use, both of which were taken at the weights of the
      forward. No tensor of size [capacity] is allocated for it. Uses in `eval()` mode or under `no_grad` do not train.

    Args:
        num_embeddings: rows N.
        embedding_dim: columns d, 1..256.
        density: kept weights as a share of N x d. One of density, capacity, budget is given.
        capacity: number of kept weights.
        budget: bytes of values and index together; the table gets as many weights as they pay for.
        kind: index kind, see `recsparse.table.PackedTable`.
        padding_idx: row whose weights start at 0 and get no gradient; a bag leaves it out.
        mode: None, `sum` or `mean`.
        include_last_offset: bags: `offsets` ends with the number of ids.
        fused: update in the backward.
        optimizer: fused only, and needed there: makes the optimiser from the table, for example
            `functools.partial(recsparse.optim.Adam, lr=1e-3)`.
        start: which slots are kept, see `PackedTable.init`; by default uniformly random ones, and for the kinds `full`
            and `prefix` those.
        std: standard deviation of the initial weights; 1, as in torch.
        seed: initial slots and weights are a pure function of it. By default it is drawn from torch's generator.
        dtype: of the values and of the result.
        bounds: what an id outside [0, N) does, see `recsparse.ops.lookup`.
        max_norm, scale_grad_by_freq, sparse, device: accepted at torch's defaults alone.

    Raises:
        ValueError: impossible sizes, none or several of density, capacity and budget, or an argument of torch's that
            has no counterpart here.
    """

    values: Tensor
    index: Tensor
    cols: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        density: float | None = None,
        capacity: int | None = None,
        budget: int | None = None,
        kind: str = "bits",
        padding_idx: int | None = None,
        mode: str | None = None,
        include_last_offset: bool = False,
        fused: bool = False,
        optimizer: Callable[[PackedTable], RowOptimizer] | None = None,
        start: str | None = None,
        std: float = 1.0,
        seed: int | None = None,
        dtype: torch.dtype = torch.float32,
        bounds: str = "fatal",
        max_norm: float | None = None,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        _refuse("max_norm", max_norm is not None, "clip the values after the step instead")
        _refuse("scale_grad_by_freq", scale_grad_by_freq, "scale the loss instead")
        _refuse("sparse", sparse, "gradients are packed already; fused=True makes none at all")
        _refuse("device", device is not None and torch.device(device).type != "cpu", "tables live on the CPU")
        count = _capacity(num_embeddings, embedding_dim, kind, density, capacity, budget, dtype.itemsize)
        if start is None:
            start = kind if kind in ("full", "prefix") else "bernoulli"
        self.seed = int(torch.randint(2**62, ())) if seed is None else seed
        self.std = std
        table = PackedTable.init(
            num_embeddings,
            embedding_dim,
            kind=kind,
            capacity=count,
            start=start,
            seed=self.seed,
            std=std,
            dtype=dtype,
        )
        self._adopt(table, padding_idx, mode, include_last_offset, fused, optimizer, bounds, freeze=False)
        self._zero_padding()

    @classmethod
    def from_table(
        cls,
        table: PackedTable,
        *,
        freeze: bool | None = None,
        padding_idx: int | None = None,
        mode: str | None = None,
        include_last_offset: bool = False,
        fused: bool = False,
        optimizer: Callable[[PackedTable], RowOptimizer] | None = None,
        bounds: str = "fatal",
    ) -> SparseEmbedding:
        """A module around `table`, which it shares. As in torch a pretrained table is frozen unless `freeze=False` is
        given; with `fused=True` it is not."""
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self.seed, self.std = 0, 1.0
        freeze = not fused if freeze is None else freeze
        self._adopt(table, padding_idx, mode, include_last_offset, fused, optimizer, bounds, freeze)
        return self

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        mask: Tensor | None = None,
        *,
        kind: str = "bits",
        capacity: int | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> SparseEmbedding:
        """Pack a dense weight.

        Args:
            embeddings: float [N, d].
            mask: bool [N, d], which weights are kept (default: those that are not 0).
            kind: index kind, or `cheapest`.
            capacity: room for kept weights (default: as many as the mask keeps).
            dtype: of the values (default: that of `embeddings`).
            options: as in `from_table`.
        """
        table = PackedTable.from_dense(embeddings.detach(), mask, kind=kind, capacity=capacity, dtype=dtype)
        return cls.from_table(table, **options)

    @property
    def num_embeddings(self) -> int:
        """Rows N."""
        return self.table.rows

    @property
    def embedding_dim(self) -> int:
        """Columns d."""
        return self.table.dim

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Rows or bags by id.

        Args:
            input: int64 or int32 ids: of any shape in mode None; 1-D (with offsets) or 2-D for bags.
            offsets: int64 or int32 [bags] (or [bags + 1]), where each bag of a 1-D input begins.
            per_sample_weights: [as input] factors, mode `sum` only. Must not require a gradient when fused.

        Returns:
            [*input.shape, dim], or [bags, dim], of the dtype of the values.

        Raises:
            IndexError: an id is out of range and bounds is `fatal`.
            TypeError, ValueError: wrong dtype or shape, or an argument that the mode has no use for.
        """
        if input.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"SparseEmbedding: ids have dtype {input.dtype}, expected torch.int64 or torch.int32")
        if self.mode is None:
            if offsets is not None or per_sample_weights is not None:
                raise ValueError(
                    "SparseEmbedding: offsets and per_sample_weights are for bags; construct it with mode="
                )
            rows = self._rows(input.reshape(-1).long())
            return rows.view(*input.shape, self.embedding_dim)
        weights = per_sample_weights
        if weights is not None and weights.shape != input.shape:
            shapes = f"{list(weights.shape)}, expected {list(input.shape)}"
            raise ValueError(f"SparseEmbedding: per_sample_weights has shape {shapes} as the ids")
        if input.dim() == 2:
            if offsets is not None:
                raise ValueError("SparseEmbedding: 2-D ids are one bag a row; offsets must not be given")
            bags, length = input.shape
            bounds = torch.arange(bags + 1, device=input.device) * length
            return self._bags(input.reshape(-1).long(), bounds, None if weights is None else weights.reshape(-1), True)
        if input.dim() != 1 or offsets is None:
            raise ValueError(f"SparseEmbedding: bags need 2-D ids, or 1-D ids and offsets; found {input.dim()}-D ids")
        return self._bags(input.contiguous().long(), offsets.long(), weights, self.include_last_offset)

    def _rows(self, ids: Tensor) -> Tensor:
        if self._trains():
            return _FusedRows.apply(self._anchor, ids, self)
        return ops.lookup(
            self.table, ids, bounds=self.bounds, values=self.values, padding_idx=self._padding_of_gradient()
        )

    def _bags(self, ids: Tensor, offsets: Tensor, weights: Tensor | None, closed: bool) -> Tensor:
        if weights is not None:
            weights = weights.contiguous()
        if self._trains():
            if weights is not None and weights.requires_grad:
                raise ValueError("SparseEmbedding: fused=True has no gradient for per_sample_weights; use fused=False")
            return _FusedBags.apply(self._anchor, ids, offsets, weights, closed, self)
        return self._bags_of(ids, offsets, weights, closed)

    def _bags_of(self, ids: Tensor, offsets: Tensor, weights: Tensor | None, closed: bool) -> Tensor:
        return ops.lookup_bag(
            self.table,
            ids,
            offsets,
            mode=self.mode or "sum",
            per_sample_weights=weights,
            include_last_offset=closed,
            padding_idx=self.padding_idx,
            bounds=self.bounds,
            values=self.values,
        )

    def _trains(self) -> bool:
        return self.fused and self.training and torch.is_grad_enabled()

    def _padding_of_gradient(self) -> int | None:
        return self.padding_idx if self.values.requires_grad else None

    def _valid(self, ids: Tensor) -> Tensor:
        """The rows that the forward has read: row 0 for ids outside the table, where `bounds` lets them pass."""
        return ids if self.bounds == "fatal" else torch.where((ids < 0) | (ids >= self.num_embeddings), 0, ids)

    def _update(self, ids: Tensor, grad: Tensor) -> None:
        """The fused update from the gradient of each looked-up row."""
        if self.padding_idx is not None:
            # A row whose gradient is 0 every time keeps moments of 0, and does not move.
            grad = grad.masked_fill((ids == self.padding_idx)[:, None], 0.0)
        self.optimizer.update_rows(ids, grad.float().contiguous())

    def to_dense(self) -> Tensor:
        """The weight as `nn.Embedding` would hold it, [N, d]: a copy, without gradient."""
        return self.table.to_dense()

    def nbytes(self) -> dict[str, int]:
        """Exact bytes of values, index and their total; with `fused=True` also those of the optimiser's state."""
        held = self.table.nbytes()
        state = [buffer for name, buffer in self.named_buffers() if name.startswith(_STATE)]
        return held | ({"state": sum(buffer.nbytes for buffer in state)} if self.fused else {})

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the kept weights anew: a pure function of (seed, row, column), like those of a new module."""
        self.table.reset_values_(self.seed, self.std)
        self._zero_padding()

    def convert_(self, kind: str) -> None:
        """Change the index kind in place, see `PackedTable.convert_`; weights and optimiser state stay valid."""
        self.table.convert_(kind)
        self.index, self.cols = self.table.index, self.table.cols

    def extra_repr(self) -> str:
        table = self.table
        parts = [f"{table.rows}, {table.dim}", f"kind={table.kind!r}", f"capacity={table.capacity}"]
        parts += [f"padding_idx={self.padding_idx}"] if self.padding_idx is not None else []
        parts += [f"mode={self.mode!r}"] if self.mode is not None else []
        parts += [f"fused={type(self.optimizer).__name__}"] if self.fused else []
        return ", ".join(parts)

    def _adopt(
        self,
        table: PackedTable,
        padding_idx: int | None,
        mode: str | None,
        include_last_offset: bool,
        fused: bool,
        optimizer: Callable[[PackedTable], RowOptimizer] | None,
        bounds: str,
        freeze: bool,
    ) -> None:
        rows = table.rows
        if mode is not None and mode not in MODES:
            raise ValueError(f"SparseEmbedding: mode is {mode!r}, expected None, {', '.join(map(repr, MODES))}")
        if padding_idx is not None and not -rows <= padding_idx < rows:
            raise ValueError(f"SparseEmbedding: padding_idx is {padding_idx}, expected {-rows}..{rows - 1}")
        if bounds not in BOUNDS:
            raise ValueError(f"SparseEmbedding: bounds is {bounds!r}, expected one of {', '.join(BOUNDS)}")
        if optimizer is not None and not fused:
            raise ValueError("SparseEmbedding: optimizer is for fused=True; give `values` to a torch optimiser instead")
        if fused and freeze:
            raise ValueError("SparseEmbedding: fused=True trains the table; freeze must be False")
        self.table, self.mode, self.fused, self.bounds = table, mode, fused, bounds
        self.include_last_offset = include_last_offset
        self.padding_idx = None if padding_idx is None else padding_idx % rows
        self.register_buffer("index", table.index)
        self.register_buffer("cols", table.cols)
        if fused:
            self.register_buffer("values", table.values)
            if optimizer is None:
                example = "functools.partial(recsparse.optim.Adam, lr=1e-3)"
                raise ValueError(f"SparseEmbedding: fused=True needs an optimizer, for example {example}")
            self.optimizer = optimizer(table)
            for name, tensor in self.optimizer.state_dict().items():
                self.register_buffer(_STATE + name, tensor)
            # Gives the result a backward: the table itself has no gradient.
            self._anchor = torch.zeros(0, requires_grad=True)
        else:
            self.values = nn.Parameter(table.values, requires_grad=not freeze)
        self._bind()

    def _bind(self) -> None:
        """Make the table (and a fused optimiser) use the module's tensors, whichever they have become."""
        self.table.index, self.table.cols = self.index, self.cols
        self.table.values = self.values if self.fused else self.values.detach()
        if self.fused:
            for name in self.optimizer.state_dict():
                setattr(self.optimizer, name, getattr(self, _STATE + name))
        else:
            self.values.packed_table = self.table  # type: ignore[attr-defined]

    @torch.no_grad()
    def _zero_padding(self) -> None:
        if self.padding_idx is None:
            return
        row = torch.tensor([self.padding_idx], device=self.values.device)
        table, ones = self.table, self.values.new_ones(1, self.embedding_dim)
        kept = torch.ops.recsparse.lookup_backward(
            ones, table.index, table.cols, row, *table.layout, -1, table.capacity
        )
        table.values.masked_fill_(kept != 0, 0.0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._bind()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseEmbedding:
        probe = fn(torch.empty(0, dtype=self.values.dtype))
        if probe.device.type != "cpu" or probe.dtype not in DTYPES.values():
            found = f"{probe.dtype} on {probe.device}"
            raise ValueError(
                f"SparseEmbedding: cannot become {found}; tables are float32, float16 or bfloat16 on the CPU"
            )
        super()._apply(fn, recurse)
        self._bind()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._bind()
        try:
            self.table.check_invariants()
        except InvariantError as error:
            rest[-1].append(f"{prefix.rstrip('.') or 'SparseEmbedding'}: {error}")


class _FusedRows(torch.autograd.Function):
    """Rows by id, whose backward updates the table. `anchor` is an empty tensor that requires a gradient."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, ids: Tensor, module: SparseEmbedding) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.module = module
        return ops.lookup(module.table, ids, bounds=module.bounds, values=module.values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        ctx.module._update(ctx.module._valid(ids), grad)
        return grad.new_zeros(0), None, None


class _FusedBags(torch.autograd.Function):
    """Bags of rows, whose backward updates the table from the gradient of each row, [n, dim]."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None,
        closed: bool,
        module: SparseEmbedding,
    ) -> Tensor:
        ctx.save_for_backward(ids, offsets, weights)
        ctx.module, ctx.closed = module, closed
        return module._bags_of(ids, offsets, weights, closed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ids, offsets, weights = ctx.saved_tensors
        module = ctx.module
        ids = module._valid(ids)
        starts = offsets[:-1] if ctx.closed else offsets
        bag_of = torch.searchsorted(starts, torch.arange(ids.shape[0], device=ids.device), right=True) - 1
        if module.mode == "mean":
            counted = torch.ones_like(ids) if module.padding_idx is None else (ids != module.padding_idx).long()
            sizes = torch.zeros_like(starts).index_add(0, bag_of, counted)
            grad = grad / sizes.clamp(min=1)[:, None]
        rows = grad[bag_of]
        module._update(ids, rows if weights is None else rows * weights[:, None])
        return grad.new_zeros(0), None, None, None, None, None


def _refuse(name: str, given: bool, instead: str) -> None:
    if given:
        raise ValueError(f"SparseEmbedding: {name} is not supported: {instead}")


def _capacity(
    rows: int, dim: int, kind: str, density: float | None, capacity: int | None, budget: int | None, value_bytes: int
) -> int:
    given = sum(size is not None for size in (density, capacity, budget))
    if kind == "full" and given == 0:
        return rows * dim
    if given != 1:
        raise ValueError(f"SparseEmbedding: give one of density, capacity and budget; {given} are given")
    if density is not None:
        if not 0 < density <= 1:
            raise ValueError(f"SparseEmbedding: density is {density}, expected above 0 and at most 1")
        return round(density * rows * dim)
    if budget is not None:
        capacity = layout.capacity_for_nbytes(kind, rows, dim, budget, value_bytes)
        if capacity < 0:
            least = layout.stored_nbytes(kind, rows, dim, rows * dim if kind == "full" else 0, value_bytes)
            raise ValueError(f"SparseEmbedding: budget is {budget} bytes, expected at least {least} for kind {kind}")
    return int(capacity or 0)
