"""Post-training quantisation of a dense table to 8 bits: what is stored, and what it stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from recsparse.errors import InvariantError
from recsparse.table import PackedTable

LEVELS = 127  # of each sign: codes -127..127, so that w and -w have codes of one magnitude


class Int8Table:
    """A dense table in `dim` + 4 bytes a row: symmetric, a scale for each row. It is served and measured, not trained.

    Attributes:
        codes: int8 [rows, dim].
        scales: float32 [rows]; weight = code * scale. Of a row of zeros: 0.
    """

    kind = "int8"
    dtype = torch.int8

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        if codes.dtype != torch.int8 or scales.dtype != torch.float32 or codes.shape[:1] != scales.shape:
            raise ValueError(
                f"codes are {codes.dtype} {list(codes.shape)} and scales {scales.dtype} {list(scales.shape)}; expected "
                "int8 [rows, dim] and float32 [rows]"
            )
        self.codes, self.scales = codes, scales
        self.rows, self.dim = codes.shape

    @classmethod
    def quantise(cls, dense: Tensor) -> Int8Table:
        """`dense` [rows, dim], finite: scale = largest magnitude of the row / 127, codes rounded to the nearest."""
        dense = dense.float()
        scales = dense.abs().amax(1) / LEVELS
        # 1 for a row of zeros, or of weights below the least scale: its codes are 0.
        divisor = torch.where(scales > 0, scales, 1.0)
        codes = (dense / divisor[:, None]).round_().clamp_(-LEVELS, LEVELS).to(torch.int8)
        return cls(codes, scales)

    def table(self) -> PackedTable:
        """The weights that the codes stand for, float32, kind `full`."""
        values = (self.codes.float() * self.scales[:, None]).view(-1)
        nothing = self.scales.new_empty(0)
        index, cols = nothing.to(torch.int64), nothing.to(torch.uint8)
        return PackedTable(self.rows, self.dim, "full", index, cols, values)

    def nbytes(self) -> dict[str, int]:
        """Exact bytes: values (codes and scales), no index, and their total."""
        values = self.codes.numel() + self.scales.numel() * self.scales.element_size()
        return {"values": values, "index": 0, "total": values}

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of the table, not copies."""
        return {"codes": self.codes, "scales": self.scales}

    def check_invariants(self) -> None:
        """Raises `InvariantError` where a scale is negative or not finite."""
        if not bool((torch.isfinite(self.scales) & (self.scales >= 0)).all()):
            raise InvariantError("a scale is negative or not finite")
