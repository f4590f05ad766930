"""Rows of a dense table through learned soft thresholds: the search of PEP (ICLR 2021, arXiv 2101.07577)."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse import _native
from recsparse.backend import resolve_backend
from recsparse.ops._backend import implementation
from recsparse.ops._fake import check_devices

_native.load()


def soft_threshold(values: Tensor, thresholds: Tensor, ids: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """sign(v) max(|v| - sigmoid(s), 0) of the rows `ids`; the thresholded table itself never exists.

    The shape of `thresholds` says what shares one: [1, 1] everything (the paper's *global*), [1, dim] a column
    (*dimension*), [rows, 1] a row (*feature*), [rows, dim] nothing (*feature-dimension*).

    Differentiable with respect to both, with dense gradients: with A = [|v| > sigmoid(s)], A grad, and
    -sigmoid'(s) sign(v) A grad summed over what shares a threshold. Rows that occur more than once add up in ascending
    position. `soft_threshold_backward` gives the gradients of the rows alone.

    Args:
        values: float32 [rows, dim], dim 1..256, contiguous.
        thresholds: float32, see above.
        ids: int64 [n] row ids; None: all rows.
        backend: see `recsparse.backend.resolve_backend`.

    Returns:
        float32 [n, dim]. NaN stays NaN.

    Raises:
        IndexError: an id is out of range.
        TypeError, ValueError: wrong dtype, device, layout or shape.
    """
    result: Tensor = implementation(resolve_backend(backend, values.device.type)).soft_threshold(
        values, thresholds, ids
    )
    return result


def soft_threshold_backward(
    grad: Tensor, values: Tensor, thresholds: Tensor, ids: Tensor | None = None, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows that `soft_threshold` gave, which optimisers of tables take: nothing of the table's size.

    Args:
        grad: float32 [n, dim], of the result.
        values, thresholds, ids, backend: as for `soft_threshold`.

    Returns:
        of the values, float32 [n, dim], and of the thresholds: float32 [n, 1 or dim] where rows have thresholds of
        their own, else of their shape, summed over the rows.

    Raises:
        As `soft_threshold`.
    """
    own = implementation(resolve_backend(backend, values.device.type))
    of_values, of_thresholds = own.soft_threshold_backward(grad, values, thresholds, ids)
    return of_values, of_thresholds


@torch.library.register_fake("recsparse::soft_threshold")
def _(values: Tensor, thresholds: Tensor, ids: Tensor | None = None) -> Tensor:
    check_devices("soft_threshold", values, thresholds=thresholds, **({} if ids is None else {"ids": ids}))
    return values.new_empty(len(values) if ids is None else ids.shape[0], values.shape[1])


@torch.library.register_fake("recsparse::soft_threshold_backward")
def _(grad: Tensor, values: Tensor, thresholds: Tensor, ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
    own = {} if ids is None else {"ids": ids}
    check_devices("soft_threshold_backward", values, grad=grad, thresholds=thresholds, **own)
    shape = grad.shape[0] if thresholds.shape[0] != 1 else 1, thresholds.shape[1]
    return torch.empty_like(grad), values.new_empty(shape)
