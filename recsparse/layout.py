"""Byte arithmetic of the packed format: the Python mirror of `csrc/core/row_layout.h`.

Stored bytes are an exact function of (rows, dim, nnz) for each index kind, so a budget can be met to the byte.
"""

from __future__ import annotations

KINDS = {"full": 0, "prefix": 1, "bits": 2, "cols8": 3}
MAX_DIM = 256
VALUE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def kind_code(kind: str) -> int:
    """The number of an index kind in the native layer.

    Raises:
        ValueError: `kind` is none of full, prefix, bits, cols8.
    """
    if kind not in KINDS:
        raise ValueError(f"index kind is {kind!r}, expected one of {', '.join(KINDS)}")
    return KINDS[kind]


def rows_per_block(kind: str, dim: int) -> int:
    """Rows that share one index block (1 for `full`, which has none)."""
    if kind == "bits":
        words = -(-dim // 32)
        return (_bits_block_words(words) - 1) * 2 // words
    if kind == "full":
        return 1
    return 56 if dim < 256 else 28


def index_nbytes(kind: str, rows: int, dim: int) -> int:
    """Bytes of the index of a table, without the one byte a value that `cols8` adds."""
    kind_code(kind)
    if kind == "full":
        return 0
    block_words = _bits_block_words(-(-dim // 32)) if kind == "bits" else 8
    return -(-rows // rows_per_block(kind, dim)) * block_words * 8


def stored_nbytes(kind: str, rows: int, dim: int, nnz: int, value_bytes: int = 4) -> int:
    """Bytes of a stored table with `nnz` kept weights: values and index."""
    return index_nbytes(kind, rows, dim) + nnz * _bytes_per_value(kind, value_bytes)


def capacity_for_nbytes(kind: str, rows: int, dim: int, nbytes: int, value_bytes: int = 4) -> int:
    """The largest number of kept weights that fits in `nbytes`, at most rows * dim; negative if the index alone does
    not fit. `full` has no choice: it fits or it does not."""
    room = nbytes - index_nbytes(kind, rows, dim)
    capacity = min(room // _bytes_per_value(kind, value_bytes), rows * dim)
    return -1 if kind == "full" and capacity < rows * dim else capacity


def cheapest_kind(rows: int, dim: int, capacity: int, *, prefix: bool = False) -> str:
    """The index kind with the fewest bytes for a table with room for `capacity` weights.

    Args:
        prefix: every row keeps its first columns only, so that kind `prefix` can hold it (and `full`, when
            capacity = rows * dim).
    """
    kinds = ["bits", "cols8"]
    if prefix:
        kinds = ["full", "prefix", *kinds] if capacity == rows * dim else ["prefix", *kinds]
    return min(kinds, key=lambda kind: stored_nbytes(kind, rows, dim, capacity))


def _bits_block_words(words: int) -> int:
    return 16 if words in (5, 8) else 8


def _bytes_per_value(kind: str, value_bytes: int) -> int:
    return value_bytes + (1 if kind == "cols8" else 0)
