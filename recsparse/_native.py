"""Loads the compiled operators into `torch.ops.recsparse`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from recsparse.errors import BackendError

LIBRARY = Path(__file__).with_name("_C.so")


@cache
def load() -> None:
    """Load `recsparse/_C.so` once.

    Raises:
        BackendError: the library is absent, was built for another torch or machine, or RECSPARSE_CPU_ISA asks for an
            instruction set that is unknown or not here.
    """
    if not LIBRARY.is_file():
        raise BackendError("compiled extension missing: run `make build`")
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        raise BackendError(f"compiled extension does not load ({error}): run `make build` with this torch") from error
    try:
        torch.ops.recsparse.cpu_isa()
    except RuntimeError as error:
        raise BackendError(str(error).splitlines()[0]) from None
