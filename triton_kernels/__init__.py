"""The operators in Triton; installed as `recsparse.triton_kernels`, one file per operator.

Each function has the name and the arguments of the op's schema in `csrc/torch`. `docs/triton.md` says how one is added
and checked. Importing this package needs triton; nothing else of recsparse does.
"""

from __future__ import annotations

from recsparse.triton_kernels.lookup import lookup, lookup_backward

__all__ = ["lookup", "lookup_backward"]
