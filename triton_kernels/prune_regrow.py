"""prune_regrow_ in Triton: change which weights a packed table keeps, on the device and in its own memory.

1. `select` finds the magnitude below which weights leave; a count of the ties in each tile of rows tells every tie its
   rank (values read once).
2. A tile of rows decides anew: its mask words, less what leaves, and the bits of what enters, found by bisection in the
   ascending keys. Words and counts (12 bytes a row at d = 64) make the new index (`build_index.py`).
3. Values and state move a slab of rows at a time through a buffer of about a 32nd of the table. A slab whose end moves
   right writes where the next one still lies, so runs of such slabs go last to first, all others first to last.

Three small things are read back: the verdict on the arguments, the number of NaN, and where the slabs begin.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.build_index import Masks, empty_masks, load_words, make_index, store_words
from recsparse.triton_kernels.rows import COLS8, decode, expand, or_bits, span, words_of
from recsparse.triton_kernels.search import lower_bound
from recsparse.triton_kernels.select import magnitude_threshold
from recsparse.triton_kernels.tile import bits_of, index_words, launch, rows_of, table_shape

SLOTS = 1024
SLAB_SHARE = 32  # a slab holds this part of the capacity
SLAB_VALUES = 1 << 20  # but at least this many values


@triton.jit(do_not_specialize=["rows"])
def _spans_kernel(index, wanted, starts, ends, n, rows, KIND: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr):
    """Where the rows `wanted` [n] begin and end."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(wanted + at, mask=at < n, other=0)
    start, count = span(index, row, (at < n) & (row < rows), KIND, DIM)
    tl.store(starts + at, start, mask=at < n)
    tl.store(ends + at, start + count, mask=at < n)


@triton.jit(do_not_specialize=["n", "rows"])
def _kept_kernel(
    index, cols, keys, kept_out, n, rows,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Which of the slots `keys` hold a weight; keys outside the table do not."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + at, mask=at < n, other=0)
    inside = (at < n) & (key >= 0) & (key < rows * DIM)
    row = tl.where(inside, key // DIM, 0)
    column = (key - row * DIM).to(tl.int32)
    _, words = decode(index, cols, row, inside, KIND, DIM, WORDS)
    own = tl.sum(tl.where(tl.arange(0, WORDS)[None, :] == (column // 32)[:, None], words, 0), 1).to(tl.uint32)
    kept = inside & (((own >> (column & 31).to(tl.uint32)) & 1) != 0)
    tl.store(kept_out + at, kept.to(tl.uint8), mask=at < n)


@triton.jit
def _magnitudes(values, place, kept):
    """int64 magnitudes of values given as integers, -1 where nothing is kept."""
    mask: tl.constexpr = 0x7FFFFFFF if values.dtype.element_ty == tl.int32 else 0x7FFF
    return tl.where(kept, (tl.load(values + place, mask=kept, other=0).to(tl.int32) & mask).to(tl.int64), -1)


@triton.jit(do_not_specialize=["rows"])
def _ties_kernel(
    index, cols, values, threshold, counts, rows,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    start, words = decode(index, cols, row, row < rows, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    key = _magnitudes(values, start[:, None] + rank, kept)
    ties = tl.sum(tl.sum((key == tl.load(threshold)).to(tl.int32), 1), 0)
    tl.store(counts + tl.program_id(0), ties.to(tl.int64))


@triton.jit(do_not_specialize=["rows", "growing"])
def _masks_kernel(
    index, cols, values, threshold, ties, ties_before, keys, words_out, counts_out, rows, growing,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = row < rows
    start, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    key = _magnitudes(values, start[:, None] + rank, kept)
    limit = tl.load(threshold)
    tie = (key == limit).to(tl.int32)
    in_row = tl.sum(tie, 1)
    before = tl.load(ties_before + tl.program_id(0)) + (tl.cumsum(in_row, 0) - in_row)
    rank_of_tie = before[:, None] + (tl.cumsum(tie, 1) - tie)
    stays = (key > limit) | ((tie != 0) & (rank_of_tie < tl.load(ties)))
    words = words_of(kept & stays, WORDS)
    first = lower_bound(keys, growing, row * DIM)
    count = tl.where(live, lower_bound(keys, growing, (row + 1) * DIM) - first, 0).to(tl.int32)
    for done in range(0, tl.max(count), 32):
        place = done + tl.arange(0, 32)[None, :]
        have = place < count[:, None]
        column = tl.load(keys + first[:, None] + place, mask=have, other=0) - row[:, None] * DIM
        words += or_bits(tl.where(have, column, 0).to(tl.int32), have, WORDS)
    store_words(words_out, counts_out, row, live, words, DIM, WORDS)


@triton.jit(do_not_specialize=["first", "rows", "origin"])
def _move_kernel(
    index, cols, values, state, new_index, new_words, values_out, state_out, cols_out, first, rows, origin,
    KIND: tl.constexpr, DIM: tl.constexpr, WORDS: tl.constexpr, STATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rows [first, rows) into a buffer that begins at the new position `origin`; what has grown is zero."""
    row = first + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = row < rows
    start, words = decode(index, cols, row, live, KIND, DIM, WORDS)
    kept, rank = expand(words, WORDS)
    place = start[:, None] + rank
    new_start, _ = span(new_index, row, live, KIND, DIM)
    stored, new_rank = expand(load_words(new_words, row, live, DIM, WORDS), WORDS)
    target = new_start[:, None] + new_rank - origin
    stays = kept & stored
    tl.store(values_out + target, tl.load(values + place, mask=stays, other=0), mask=stored)
    for part in tl.static_range(STATE):
        tl.store(
            state_out + STATE * target + part, tl.load(state + STATE * place + part, mask=stays, other=0), mask=stored
        )
    if KIND == COLS8:
        column = tl.arange(0, 32 * WORDS)[None, :] + tl.zeros_like(rank)
        tl.store(cols_out + target, column.to(tl.uint8), mask=stored)


def _first(bad: Tensor) -> Tensor:
    """int64 [1]: the first position that is set, or -1."""
    at = torch.arange(bad.numel(), device=bad.device)
    found = torch.where(bad, at, bad.numel()).amin().view(1) if bad.numel() else at.new_zeros(1)
    return torch.where(found < bad.numel(), found, -1)


def _spans(index: Tensor, wanted: Tensor, kind: int, rows: int, dim: int) -> tuple[Tensor, Tensor]:
    starts, ends = torch.empty_like(wanted), torch.empty_like(wanted)
    n, how = wanted.numel(), {"KIND": kind, "DIM": dim, "BLOCK": 128}
    launch(_spans_kernel, n, 128, index_words(index), wanted, starts, ends, n, rows, **how)
    return starts, ends


def _check_request(
    index: Tensor, cols: Tensor, values: Tensor, keys: Tensor, scores: Tensor, kind: int, rows: int, dim: int,
    drop: int, grow: int,
) -> tuple[int, int, int]:  # fmt: skip
    """(kept weights, dropped, grown); errors before anything has changed. Reads one verdict back."""
    op, n, capacity = "prune_regrow_", keys.numel(), values.numel()
    kept = torch.zeros(n, dtype=torch.uint8, device=index.device)
    tensors = (index_words(index), cols, keys, kept, n, rows)
    launch(_kept_kernel, n, 128, *tensors, **table_shape(kind, dim), BLOCK=128)
    order = torch.zeros(n, dtype=torch.bool, device=index.device)
    if n > 1:
        torch.le(keys[1:], keys[:-1], out=order[1:])
    last = torch.full((1 if rows else 0,), rows - 1, dtype=torch.int64, device=index.device)
    end = _spans(index, last, kind, rows, dim)[1] if rows else keys.new_zeros(1)
    parts = (
        end,
        _first((keys < 0) | (keys >= rows * dim)),
        _first(order),
        _first(kept != 0),
        _first(~scores.isfinite()),
    )
    nnz, out_of_range, unordered, taken, infinite = torch.cat(parts).tolist()
    grown = min(grow, n)
    dropped = max(0, drop - (grow - grown))
    if nnz > capacity:
        raise ValueError(f"{op}: the index counts {nnz} values, but capacity is {capacity}")
    if not 0 <= drop <= nnz:
        raise ValueError(f"{op}: drop = {drop}, expected 0 <= drop <= {nnz} (the number of kept weights)")
    if out_of_range >= 0:
        at, slots = int(keys[out_of_range]), rows * dim
        raise ValueError(f"{op}: keys[{out_of_range}] = {at}, expected 0 <= key < {slots} (rows * dim)")
    if unordered >= 0:
        at, before = int(keys[unordered]), int(keys[unordered - 1])
        raise ValueError(f"{op}: keys[{unordered}] = {at} follows {before}, expected ascending keys without duplicates")
    if taken >= 0:
        at = int(keys[taken])
        raise ValueError(f"{op}: keys[{taken}] = {at} is a kept weight, expected keys of slots that are not kept")
    if infinite >= 0:
        raise ValueError(f"{op}: scores[{infinite}] is {float(scores[infinite])}, expected finite scores")
    if nnz - dropped + grown > capacity:
        raise ValueError(
            f"{op}: {nnz - dropped + grown} weights would be kept, but capacity is {capacity}; drop more or grow less"
        )
    return nnz, dropped, grown


def _new_masks(
    index: Tensor, cols: Tensor, values: Tensor, entering: Tensor, nnz: int, dropped: int,
    kind: int, rows: int, dim: int,
) -> Masks:  # fmt: skip
    shape, block = table_shape(kind, dim), rows_of(dim, SLOTS)
    tiles = triton.cdiv(rows, block)
    # Nothing leaves: a threshold below every magnitude. Everything does: one above.
    threshold = torch.full((1,), -1 if nnz > dropped else 2**40, dtype=torch.int64, device=index.device)
    ties = torch.zeros_like(threshold)
    if nnz:
        found, needed, nans = magnitude_threshold(values[:nnz], max(1, nnz - dropped))
        if int(nans):
            at = int(values[:nnz].isnan().nonzero()[0])
            raise ValueError(
                f"prune_regrow_: {int(nans)} kept weights are NaN, the first at position {at}; expected numbers"
            )
        if nnz > dropped:
            threshold, ties = found.clone(), needed.clone()
    words = index_words(index)
    counts = torch.zeros(tiles, dtype=torch.int64, device=index.device)
    launch(_ties_kernel, rows, block, words, cols, bits_of(values), threshold, counts, rows, **shape, BLOCK=block)
    masks = empty_masks(kind, rows, dim, index.device)
    before = counts.cumsum(0) - counts
    tensors = (words, cols, bits_of(values), threshold, ties, before, entering, *masks, rows, entering.numel())
    launch(_masks_kernel, rows, block, *tensors, **shape, BLOCK=block)
    return masks


def slab_order(old: list[int], new: list[int]) -> list[int]:
    """An order in which slabs can be rewritten: none writes where another still lies.

    `old` and `new` are the positions where the slabs begin.
    """
    order: list[int] = []
    first = 0
    while first < len(old):
        last = first
        while last + 1 < len(old) and new[last + 1] > old[last + 1]:
            last += 1
        order += range(last, first - 1, -1)
        first = last + 1
    return order


def _move(
    index: Tensor, cols: Tensor, values: Tensor, state: Tensor | None, new_index: Tensor, masks: Masks,
    nnz: int, new_nnz: int, kind: int, rows: int, dim: int,
) -> None:  # fmt: skip
    capacity, shape, block = values.numel(), table_shape(kind, dim), rows_of(dim, SLOTS)
    per_weight = state.numel() // capacity if state is not None and capacity else 0
    slab_values = max(SLAB_VALUES, capacity // SLAB_SHARE)
    slab_rows = max(1, slab_values * rows // max(1, capacity))
    firsts = torch.arange(0, rows, slab_rows, device=index.device)
    begins = torch.stack([_spans(index, firsts, kind, rows, dim)[0], _spans(new_index, firsts, kind, rows, dim)[0]])
    old, new = begins.tolist()
    room = max((b - a for a, b in zip(new, [*new[1:], new_nnz], strict=True)), default=0)
    moved = torch.empty(room, dtype=values.dtype, device=values.device)
    moved_state = torch.empty(room * per_weight, dtype=torch.float32, device=values.device)
    moved_cols = torch.empty(room if kind == COLS8.value else 0, dtype=torch.uint8, device=values.device)
    own_state = moved_state if state is None else state
    buffers = (bits_of(moved), moved_state, moved_cols)
    for slab in slab_order(old, new):
        begin, end = new[slab], new[slab + 1] if slab + 1 < len(new) else new_nnz
        first, last = slab * slab_rows, min(rows, (slab + 1) * slab_rows)
        tensors = (index_words(index), cols, bits_of(values), own_state, index_words(new_index), masks.words)
        how = {**shape, "STATE": per_weight, "BLOCK": block}
        launch(_move_kernel, last - first, block, *tensors, *buffers, first, last, begin, **how)
        values[begin:end] = moved[: end - begin]
        if state is not None:
            state[per_weight * begin : per_weight * end] = moved_state[: per_weight * (end - begin)]
        if kind == COLS8.value:
            cols[begin:end] = moved_cols[: end - begin]
    values[new_nnz:nnz] = 0
    if state is not None:
        state[per_weight * new_nnz : per_weight * nnz] = 0
    if kind == COLS8.value:
        cols[new_nnz:nnz] = 0


def prune_regrow_(
    index: Tensor,
    cols: Tensor,
    values: Tensor,
    state: Tensor | None,
    keys: Tensor,
    scores: Tensor,
    kind: int,
    rows: int,
    dim: int,
    drop: int,
    grow: int,
) -> Tensor:
    """int64 [2], (dropped, grown); see `recsparse.ops.prune_regrow_`."""
    op, device, capacity = "prune_regrow_", index.device, values.numel()
    check.table(op, index, cols, values, kind, rows, dim)
    if check.KINDS[kind] not in ("bits", "cols8"):
        raise ValueError(f"{op}: index kind {kind} has no free choice of kept weights, expected 2 (bits) or 3 (cols8)")
    check.vector(op, "keys", keys, torch.int64, device)
    check.vector(op, "scores", scores, torch.float32, device)
    if scores.numel() != keys.numel():
        raise ValueError(f"{op}: scores has {scores.numel()} entries, expected {keys.numel()} as keys")
    if state is not None:
        check.vector(op, "state", state, torch.float32, device)
        if state.numel() not in (capacity, 2 * capacity):
            raise ValueError(
                f"{op}: state has {state.numel()} entries, expected capacity = {capacity} or twice as many"
            )
    if grow < 0:
        raise ValueError(f"{op}: grow = {grow}, expected grow >= 0")
    nnz, dropped, grown = _check_request(index, cols, values, keys, scores, kind, rows, dim, drop, grow)
    counts = torch.tensor([dropped, grown])
    if rows == 0:
        return counts
    entering = keys
    if grown < keys.numel():  # the best scores, of equal ones the lower keys
        entering = keys[scores.sort(descending=True, stable=True).indices[:grown]].sort().values
    masks = _new_masks(index, cols, values, entering, nnz, dropped, kind, rows, dim)
    new_index = make_index(masks, kind, dim)
    _move(index, cols, values, state, new_index, masks, nnz, nnz - dropped + grown, kind, rows, dim)
    index.copy_(new_index)
    return counts
