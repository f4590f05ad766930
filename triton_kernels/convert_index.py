"""convert_index and misfit_row in Triton: the index of another kind for the same kept slots.

A tile of rows is decoded to mask words (an index line read a row, 4 bytes a 32 columns written); see `build_index.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.build_index import Masks, empty_masks, make_index, misfit_of, no_fit, store_words
from recsparse.triton_kernels.pack import place_columns
from recsparse.triton_kernels.rows import decode
from recsparse.triton_kernels.tile import index_words, launch, rows_of, table_shape


@triton.jit(do_not_specialize=["rows"])
def _decode_kernel(
    index, cols, words_out, counts_out, rows,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = row < rows
    _, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    store_words(words_out, counts_out, row, live, words, DIM, WORDS)


def masks_of(index: Tensor, cols: Tensor, kind: int, rows: int, dim: int, to_kind: int) -> Masks:
    """What a table keeps, padded for an index of `to_kind`."""
    masks, block = empty_masks(to_kind, rows, dim, index.device), rows_of(dim)
    tensors = (index_words(index), cols, *masks, rows)
    launch(_decode_kernel, rows, block, *tensors, **table_shape(kind, dim), BLOCK=block)
    return masks


def misfit_row(index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int, to_kind: int) -> int:
    """The first row that kind `to_kind` cannot hold, or -1."""
    check.index("misfit_row", index, cols, capacity, kind, rows, dim)
    check.layout("misfit_row", to_kind, rows, dim)
    return misfit_of(masks_of(index, cols, kind, rows, dim, to_kind), to_kind, rows, dim)


def convert_index(
    index: Tensor, cols: Tensor, capacity: int, kind: int, rows: int, dim: int, to_kind: int
) -> tuple[Tensor, Tensor]:
    """(index, cols) of kind `to_kind`; see `recsparse.ops.convert_index`."""
    op = "convert_index"
    check.index(op, index, cols, capacity, kind, rows, dim)
    check.layout(op, to_kind, rows, dim)
    masks = masks_of(index, cols, kind, rows, dim, to_kind)
    row = misfit_of(masks, to_kind, rows, dim)
    if row >= 0:
        raise no_fit(op, row, to_kind)
    if check.KINDS[to_kind] == "full" and capacity != rows * dim:
        raise ValueError(f"{op}: capacity is {capacity}, expected rows * dim = {rows * dim} for kind full")
    made = make_index(masks, to_kind, dim)
    return made, place_columns(masks, made, capacity, to_kind, rows, dim)
