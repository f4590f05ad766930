"""The operators in Triton; installed as `recsparse.triton_kernels`, one file per operator.

Each function has the name and the arguments of the op's schema in `csrc/torch`. `docs/triton.md` says how one is added
and checked. Importing this package needs triton; nothing else of recsparse does.
"""

from __future__ import annotations

from recsparse.triton_kernels.bpr_step import bpr_step_
from recsparse.triton_kernels.lookup import lookup, lookup_backward
from recsparse.triton_kernels.optimizer_step import adagrad_, adam_, rowwise_adagrad_, sgd_

__all__ = ["adagrad_", "adam_", "bpr_step_", "lookup", "lookup_backward", "rowwise_adagrad_", "sgd_"]
