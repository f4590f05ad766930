"""The operators in Triton; installed as `recsparse.triton_kernels`, one file per operator.

Each function has the name and the arguments of the op's schema in `csrc/torch`. `docs/triton.md` says how one is added
and checked. Importing this package needs triton; nothing else of recsparse does.
"""

from __future__ import annotations

from recsparse.triton_kernels.bpr_grow_scores import bpr_grow_scores
from recsparse.triton_kernels.bpr_step import bpr_step_
from recsparse.triton_kernels.convert_index import convert_index, misfit_row
from recsparse.triton_kernels.init import init_index_, init_values_
from recsparse.triton_kernels.inspect import column_mask, row_counts
from recsparse.triton_kernels.lightgcn_step import lightgcn_grow_scores, lightgcn_step_
from recsparse.triton_kernels.lookup import lookup, lookup_backward
from recsparse.triton_kernels.lookup_bag import lookup_bag, lookup_bag_backward, lookup_bag_weights_backward
from recsparse.triton_kernels.optimizer_step import adagrad_, adam_, rowwise_adagrad_, sgd_
from recsparse.triton_kernels.pack import pack, unpack
from recsparse.triton_kernels.prune_regrow import prune_regrow_
from recsparse.triton_kernels.rank import rank, rank_packed
from recsparse.triton_kernels.sample import sample
from recsparse.triton_kernels.sample_synthetic import sample_synthetic
from recsparse.triton_kernels.select import select
from recsparse.triton_kernels.soft_threshold import soft_threshold, soft_threshold_backward
from recsparse.triton_kernels.spmm import spmm

__all__ = [
    "adagrad_",
    "adam_",
    "bpr_grow_scores",
    "bpr_step_",
    "column_mask",
    "convert_index",
    "init_index_",
    "init_values_",
    "lightgcn_grow_scores",
    "lightgcn_step_",
    "lookup",
    "lookup_backward",
    "lookup_bag",
    "lookup_bag_backward",
    "lookup_bag_weights_backward",
    "misfit_row",
    "pack",
    "prune_regrow_",
    "rank",
    "rank_packed",
    "row_counts",
    "rowwise_adagrad_",
    "sample",
    "sample_synthetic",
    "select",
    "sgd_",
    "soft_threshold",
    "soft_threshold_backward",
    "spmm",
    "unpack",
]
