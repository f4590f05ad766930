"""The packed table: an embedding table that stores only its kept weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsparse import layout
from recsparse.backend import resolve_backend
from recsparse.errors import InvariantError
from recsparse.ops._backend import implementation

STARTS = {"full": 0, "prefix": 1, "bernoulli": 2}
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in layout.VALUE_BYTES}


def advise_huge_pages(tensor: Tensor) -> None:
    """Ask for huge pages under a tensor in the memory of the CPU; before its pages are touched."""
    if tensor.device.type == "cpu":
        torch.ops.recsparse.advise_huge_pages(tensor)


class PackedTable:
    """`rows` x `dim` slots of which up to `capacity` hold a weight.

    The kept weights lie in one flat tensor, row by row, columns ascending; `index` says which slots they fill
    (`csrc/core/row_layout.h`). The addresses of all tensors are fixed for the life of the table.

    Attributes:
        kind: how the kept slots are recorded: `full`, `prefix`, `bits` or `cols8`.
        index: int64 [index words], cache-line blocks.
        cols: uint8 [capacity] for `cols8`, else empty.
        values: float32, float16 or bfloat16 [capacity], zero behind the kept weights.
        backend: `cpu`, `cuda`, `triton` or `reference`, resolved when the table is made.
    """

    def __init__(
        self, rows: int, dim: int, kind: str, index: Tensor, cols: Tensor, values: Tensor, backend: str = "auto"
    ) -> None:
        self.backend = resolve_backend(backend, values.device.type)
        if values.dtype not in DTYPES.values():
            raise TypeError(f"values has dtype {values.dtype}, expected one of {', '.join(map(str, DTYPES.values()))}")
        self.rows, self.dim, self.kind = rows, dim, kind
        self.index, self.cols, self.values = index, cols, values
        self._check_shapes()

    @classmethod
    def init(
        cls,
        rows: int,
        dim: int,
        *,
        kind: str,
        capacity: int,
        start: str = "bernoulli",
        seed: int = 0,
        std: float = 0.01,
        dtype: torch.dtype = torch.float32,
        backend: str = "auto",
        device: torch.device | str = "cpu",
    ) -> PackedTable:
        """A table from a recipe, without any dense array: peak memory is the table's own.

        Weights are about N(0, std^2) (a sum of four uniforms) and, like a `bernoulli` mask, a pure function of
        (seed, row, column): computed in float32, then rounded to the nearest `dtype`.

        Args:
            rows: number of rows N.
            dim: number of columns d, 1..256.
            kind: index kind.
            capacity: room for kept weights; the start fills it (a `bernoulli` start to within a few weights).
            start: `bernoulli` (uniformly random slots), `prefix` (the first columns of every row, the rows' counts
                differ by at most one) or `full`.
            seed: any 64-bit integer.
            std: standard deviation of the weights.
            dtype: float32, float16 or bfloat16.
            backend: see `recsparse.backend.resolve_backend`.
            device: where the tensors of the table lie.

        Raises:
            ValueError: impossible sizes, or a start that `kind` cannot hold.
        """
        backend = resolve_backend(backend, torch.device(device).type)
        if start not in STARTS:
            raise ValueError(f"start is {start!r}, expected one of {', '.join(STARTS)}")
        code = layout.kind_code(kind)
        if not 0 <= capacity <= rows * dim:
            raise ValueError(f"capacity is {capacity}, expected 0..rows * dim = {rows * dim}")
        index = torch.empty(torch.ops.recsparse.index_words(code, rows, dim), dtype=torch.int64, device=device)
        cols = torch.zeros(capacity if kind == "cols8" else 0, dtype=torch.uint8, device=device)
        values = torch.empty(capacity, dtype=dtype, device=device)
        for tensor in (index, cols, values):
            advise_huge_pages(tensor)  # before the pages are touched
        values.zero_()
        implementation(backend).init_index_(index, cols, code, rows, dim, STARTS[start], capacity, seed)
        table = cls(rows, dim, kind, index, cols, values, backend)
        table.reset_values_(seed, std)
        return table

    @classmethod
    def from_dense(
        cls,
        dense: Tensor,
        mask: Tensor | None = None,
        *,
        kind: str = "bits",
        capacity: int | None = None,
        dtype: torch.dtype | None = None,
        backend: str = "auto",
    ) -> PackedTable:
        """Pack `dense` [rows, dim] where bool `mask` is set (default: where dense is not 0).

        The kind `cheapest` stands for the one with the fewest bytes that can hold the mask. The values have the `dtype`
        that is given, rounded to nearest (default: that of `dense`).

        Raises:
            TypeError: a dtype that values cannot have.
            ValueError: NaN or infinity in a kept weight (also one that `dtype` cannot hold), more kept weights than
                `capacity`, or a mask that `kind` cannot hold.
        """
        from recsparse.ops import pack

        if mask is None:
            mask = dense != 0
        dense = dense.to(dtype or dense.dtype)
        finite = torch.isfinite(dense) | ~mask
        if not bool(finite.all()):
            row, col = (int(x) for x in (~finite).nonzero()[0])
            raise ValueError(f"from_dense: dense[{row}, {col}] is {dense[row, col]}, expected finite weights")
        if capacity is None:
            capacity = int(mask.sum())
        if kind == "cheapest":
            prefix = bool(
                (mask.sum(1, keepdim=True) > torch.arange(dense.shape[1], device=dense.device)).eq(mask).all()
            )
            kind = layout.cheapest_kind(dense.shape[0], dense.shape[1], capacity, prefix=prefix)
        index, cols, values = pack(dense, mask, kind, capacity, backend=backend)
        return cls(dense.shape[0], dense.shape[1], kind, index, cols, values, backend)

    @classmethod
    def from_sizes(
        cls, sizes: Tensor, dim: int, *, dtype: torch.dtype = torch.float32, backend: str = "auto"
    ) -> PackedTable:
        """A table of kind `prefix` whose row n keeps its first `sizes[n]` columns, all weights 0; on the device of
        `sizes`, int64 [rows].

        Raises:
            ValueError: a size outside 0..dim.
        """
        if not 1 <= dim <= layout.MAX_DIM:
            raise ValueError(f"from_sizes: dim is {dim}, expected 1..{layout.MAX_DIM}")
        if sizes.dim() != 1 or (len(sizes) and not 0 <= int(sizes.min()) <= int(sizes.max()) <= dim):
            raise ValueError(f"from_sizes: sizes must be a vector of 0..dim = {dim}")
        per_block = layout.rows_per_block("prefix", dim)
        blocks = -(-len(sizes) // per_block)
        lengths = sizes.new_zeros(blocks * per_block)
        lengths[: len(sizes)] = sizes
        lengths = lengths.view(blocks, per_block)
        counts = lengths.sum(1)
        length_type = torch.int16 if dim == layout.MAX_DIM else torch.uint8
        packed = lengths.to(length_type).view(torch.int64)
        index = torch.cat([(counts.cumsum(0) - counts)[:, None], packed], dim=1).view(-1)
        values = torch.zeros(int(counts.sum()), dtype=dtype, device=sizes.device)
        return cls(len(sizes), dim, "prefix", index, sizes.new_empty(0, dtype=torch.uint8), values, backend)

    @classmethod
    def from_csr(
        cls,
        crow: Tensor,
        col: Tensor,
        values: Tensor,
        dim: int,
        *,
        kind: str = "cols8",
        capacity: int | None = None,
        dtype: torch.dtype | None = None,
        backend: str = "auto",
    ) -> PackedTable:
        """Pack a CSR matrix: int64 `crow` [rows + 1], int64 `col` [nnz] ascending in each row, `values` [nnz].

        `dtype` as in `from_dense`.

        Raises:
            ValueError: inconsistent offsets, or columns that are out of range, unsorted or repeated.
        """
        rows, nnz = crow.numel() - 1, col.numel()
        lengths = crow.diff()
        if rows < 0 or int(crow[0]) != 0 or int(crow[-1]) != nnz or bool((lengths < 0).any()) or values.numel() != nnz:
            raise ValueError("from_csr: crow must ascend from 0 to the number of columns and values")
        row_of = torch.repeat_interleave(torch.arange(rows, device=col.device), lengths)
        if nnz and (int(col.min()) < 0 or int(col.max()) >= dim):
            raise ValueError(f"from_csr: columns must lie in 0..{dim - 1}")
        keys = row_of * dim + col
        if bool((keys.diff() <= 0).any()):
            raise ValueError("from_csr: columns must ascend within each row, without repeats")
        dense = values.new_zeros(rows, dim)
        mask = torch.zeros(rows, dim, dtype=torch.bool, device=values.device)
        dense.view(-1)[keys] = values
        mask.view(-1)[keys] = True
        return cls.from_dense(dense, mask, kind=kind, capacity=capacity, dtype=dtype, backend=backend)

    @property
    def capacity(self) -> int:
        """Number of weights that the table has room for."""
        return self.values.numel()

    @property
    def dtype(self) -> torch.dtype:
        """Type that the weights are stored in."""
        return self.values.dtype

    @property
    def layout(self) -> tuple[int, int, int]:
        """(kind code, rows, dim), as the native ops take it."""
        return layout.kind_code(self.kind), self.rows, self.dim

    @property
    def nnz(self) -> int:
        """Number of kept weights."""
        if self.kind == "full" or self.rows == 0:
            return self.rows * self.dim
        per_block = layout.rows_per_block(self.kind, self.dim)
        first = (self.rows - 1) // per_block * per_block
        words = self.index.numel() // (first // per_block + 1)
        block = self.index[-words:].to("cpu", copy=True)
        start = int(block[0])
        block[0] = 0
        cols = self.cols[:0] if self.kind != "cols8" else self.cols[start:].cpu()
        code = layout.kind_code(self.kind)
        counts = torch.ops.recsparse.row_counts(block, cols, cols.numel(), code, self.rows - first, self.dim)
        return start + int(counts.sum())

    @property
    def density(self) -> float:
        """Kept weights as a share of all slots."""
        return self.nnz / max(1, self.rows * self.dim)

    def row_counts(self) -> Tensor:
        """Kept weights of each row, int64 [rows]."""
        counts: Tensor = implementation(self.backend).row_counts(self.index, self.cols, self.capacity, *self.layout)
        return counts

    def column_mask(self, column: int) -> Tensor:
        """Which rows keep `column`, bool [rows]."""
        arguments = (self.index, self.cols, self.capacity, *self.layout, column)
        kept: Tensor = implementation(self.backend).column_mask(*arguments)
        return kept

    def reset_values_(self, seed: int, std: float) -> None:
        """Set every kept weight to its initial value, which is a pure function of (seed, row, column)."""
        implementation(self.backend).init_values_(self.values, self.index, self.cols, *self.layout, seed, std)

    def row(self, i: int) -> Tensor:
        """Row i as [dim] of `dtype`."""
        return self.lookup(torch.tensor([i], device=self.values.device))[0]

    def lookup(self, ids: Tensor, bounds: str = "fatal") -> Tensor:
        """Rows by id, [len(ids), dim] of `dtype`; see `recsparse.ops.lookup`."""
        from recsparse.ops import lookup

        return lookup(self, ids, bounds=bounds)

    def to_dense(self) -> Tensor:
        """[rows, dim] of `dtype`, 0 where nothing is kept."""
        from recsparse.ops import unpack

        return unpack(self)[0]

    def mask(self) -> Tensor:
        """bool [rows, dim], where a weight is kept."""
        from recsparse.ops import unpack

        return unpack(self)[1]

    def to_csr(self) -> tuple[Tensor, Tensor, Tensor]:
        """(crow int64 [rows + 1], col int64 [nnz], values [nnz])."""
        counts = self.row_counts()
        crow = counts.new_zeros(self.rows + 1)
        torch.cumsum(counts, 0, out=crow[1:])
        col = self.cols[: self.nnz].long() if self.kind == "cols8" else self.mask().nonzero()[:, 1]
        return crow, col, self.values[: self.nnz].clone()

    def cheapest_kind(self) -> str:
        """The index kind with the fewest bytes that can hold the table as it is, at its capacity."""
        from recsparse.ops import fits

        return layout.cheapest_kind(self.rows, self.dim, self.capacity, prefix=fits(self, "prefix"))

    def convert_(self, kind: str) -> None:
        """Change the index kind in place. `values` stays the same tensor, and optimiser state stays valid, because
        every kind orders the weights alike; `index` and `cols` become new tensors.

        Args:
            kind: an index kind, or `cheapest`.

        Raises:
            ValueError: `kind` is unknown or cannot hold a row; names the first such row. The table has not changed.
        """
        from recsparse.ops import convert_index

        if kind == "cheapest":
            kind = self.cheapest_kind()
        self.index, self.cols = convert_index(self, kind)
        self.kind = kind

    def nbytes(self) -> dict[str, int]:
        """Exact bytes held: values, index (with the columns of `cols8`) and their total."""
        values = self.values.numel() * self.values.element_size()
        index = self.index.numel() * self.index.element_size() + self.cols.numel()
        return {"values": values, "index": index, "total": values + index}

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of the table, not copies."""
        return {"index": self.index, "cols": self.cols, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy the tensors of a table of the same shape, then check them.

        Raises:
            ValueError: a tensor is missing or has another shape or dtype.
            InvariantError: the index is inconsistent or a weight is not finite.
        """
        for name, own in self.state_dict().items():
            new = state.get(name)
            if new is None or new.shape != own.shape or new.dtype != own.dtype:
                found = "nothing" if new is None else f"{new.dtype} {list(new.shape)}"
                raise ValueError(f"table {name}: found {found}, expected {own.dtype} {list(own.shape)}")
        for name, own in self.state_dict().items():
            own.copy_(state[name])
        self.check_invariants()

    def check_invariants(self) -> None:
        """Check the whole table: block starts, lengths, columns, capacity, finite weights, zeros behind the weights.

        Raises:
            InvariantError: says which one is broken, and where.
        """
        broken = torch.ops.recsparse.check_index(self.index.cpu(), self.cols.cpu(), self.capacity, *self.layout)
        if broken:
            raise InvariantError(broken)
        if not bool(torch.isfinite(self.values).all()):
            at = int((~torch.isfinite(self.values)).nonzero()[0])
            raise InvariantError(f"weight {at} of the table is {float(self.values[at])}, expected a finite number")
        if bool(self.values[self.nnz :].any()):
            raise InvariantError("values behind the kept weights are not zero")

    def _check_shapes(self) -> None:
        words = layout.index_nbytes(self.kind, self.rows, self.dim) // 8
        if self.index.numel() != words:
            raise ValueError(f"index has {self.index.numel()} words, expected {words}")
        expected = self.capacity if self.kind == "cols8" else 0
        if self.cols.numel() != expected:
            raise ValueError(f"cols has {self.cols.numel()} entries, expected {expected}")
        slots = self.rows * self.dim
        if self.kind == "full" and self.capacity != slots:
            raise ValueError(f"values has {self.capacity} entries, expected rows * dim = {slots} for kind full")

    def __repr__(self) -> str:
        return (
            f"PackedTable(rows={self.rows}, dim={self.dim}, kind={self.kind!r}, nnz={self.nnz}, "
            f"capacity={self.capacity}, dtype={self.dtype}, backend={self.backend!r})"
        )
