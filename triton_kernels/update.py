"""One step of an optimiser on packed weights: the device side of `csrc/core/update.h`.

A kernel hands over a tile of places in `values` with their gradients; state lies beside them in the same order. The
coefficients of a step depend on its number, which lives on the device: `coefficients` computes them there, in double.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from recsparse.triton_kernels import check
from recsparse.triton_kernels.numbers import round_stochastic, rounding_keys

SGD = tl.constexpr(check.SGD)
ADAGRAD = tl.constexpr(check.ADAGRAD)
ROWWISE_ADAGRAD = tl.constexpr(check.ROWWISE_ADAGRAD)
ADAM = tl.constexpr(check.ADAM)


def coefficients(
    step: Tensor, steps: int, optimizer: int, lr: float, beta1: float, beta2: float, eps: float, lazy: bool
) -> Tensor:
    """float32 [steps, 2], (step size, eps) of the steps after `step`; Adam's eps stands beside the uncorrected root."""
    number = step + torch.arange(1, steps + 1, device=step.device, dtype=torch.float64)
    if optimizer != check.ADAM:
        return torch.stack([torch.full_like(number, lr), torch.full_like(number, eps)], 1).float()
    root2 = (1 - beta2**number).sqrt()
    sizes = lr * root2 / (1 - beta1**number)
    return torch.stack([sizes, torch.full_like(root2, eps) if lazy else eps * root2], 1).float()


@triton.jit
def moved(weight, gradient, first, second, size, eps, rate1, rate2, OPTIMIZER: tl.constexpr):
    """(weight, first, second) after a step; rate1 and rate2 are 1 - beta1 and 1 - beta2, gradients have their decay."""
    if OPTIMIZER == SGD:
        weight -= size * gradient
    elif OPTIMIZER == ADAM:
        first += (gradient - first) * rate1
        second += (gradient * gradient - second) * rate2
        weight -= size * tl.div_rn(first, tl.sqrt_rn(second) + eps)
    else:
        if OPTIMIZER == ADAGRAD:
            first += gradient * gradient
        weight -= size * tl.div_rn(gradient, tl.sqrt_rn(first) + eps)
    return weight, first, second


@triton.jit
def update_rows(
    values, state, row, live, place, keep, position, gradient,
    step, number, seed, size, eps, decay, rate1, rate2, OPTIMIZER: tl.constexpr,
):  # fmt: skip
    """Update a tile [rows, n] of weights, in place.

    Args:
        row, live: int64 and bool [rows], the rows of the tile and which are to change.
        place, keep, position: [rows, n], where the weights lie in `values`, which of them are there, and their numbers
            among the kept weights of their rows. The row-wise optimiser needs all weights of a row in one tile.
        gradient: float32 [rows, n], without weight decay.
        step, number, seed: of the stochastic rounding: steps done before the call, and of this one from 1 in the call.
        size, eps, decay, rate1, rate2: see `moved`.
    """
    kind: tl.constexpr = values.dtype.element_ty
    weight = tl.load(values + place, mask=keep, other=0).to(tl.float32)
    gradient = tl.where(keep, gradient + decay * weight, 0)
    first = tl.zeros_like(weight)
    second = tl.zeros_like(weight)
    if OPTIMIZER == ADAM:
        first = tl.load(state + 2 * place, mask=keep, other=0)
        second = tl.load(state + 2 * place + 1, mask=keep, other=0)
    elif OPTIMIZER == ADAGRAD:
        first = tl.load(state + place, mask=keep, other=0)
    elif OPTIMIZER == ROWWISE_ADAGRAD:
        kept = tl.sum(keep.to(tl.int32), 1)
        mean = tl.sum(gradient * gradient, 1) / tl.maximum(kept, 1).to(tl.float32)
        total = tl.load(state + row, mask=live, other=0) + mean
        tl.debug_barrier()  # every warp that shares the row has read its sum before one of them writes it
        tl.store(state + row, total, mask=live & (kept > 0))
        first += total[:, None]
    weight, first, second = moved(weight, gradient, first, second, size, eps, rate1, rate2, OPTIMIZER)
    if kind != tl.float32:
        key = rounding_keys(seed, tl.load(step) + number, row)
        tl.store(values + place, round_stochastic(weight, kind, key[:, None], position), mask=keep)
    else:
        tl.store(values + place, weight, mask=keep)
    if OPTIMIZER == ADAM:
        tl.store(state + 2 * place, first, mask=keep)
        tl.store(state + 2 * place + 1, second, mask=keep)
    elif OPTIMIZER == ADAGRAD:
        tl.store(state + place, first, mask=keep)
