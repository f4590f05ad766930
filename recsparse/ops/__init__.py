"""The ops on packed tables: one file each, with the signature, the fake kernel and the choice of backend."""

from __future__ import annotations

from recsparse.ops.bpr_grow_scores import bpr_grow_scores
from recsparse.ops.bpr_step import bpr_step_
from recsparse.ops.convert_index import convert_index, fits
from recsparse.ops.device_errors import raise_device_errors
from recsparse.ops.lightgcn_step import lightgcn_grow_scores, lightgcn_step_
from recsparse.ops.lookup import lookup, sum_rows
from recsparse.ops.lookup_bag import lookup_bag
from recsparse.ops.optimizer_step import adagrad_, adam_, rowwise_adagrad_, sgd_
from recsparse.ops.pack import pack, unpack
from recsparse.ops.prune_regrow import prune_regrow_
from recsparse.ops.rank import rank, rank_packed
from recsparse.ops.sample import sample, sample_synthetic
from recsparse.ops.select import Selection, select
from recsparse.ops.soft_threshold import soft_threshold, soft_threshold_backward
from recsparse.ops.spmm import spmm

__all__ = [
    "Selection",
    "adagrad_",
    "adam_",
    "bpr_grow_scores",
    "bpr_step_",
    "convert_index",
    "fits",
    "lightgcn_grow_scores",
    "lightgcn_step_",
    "lookup",
    "lookup_bag",
    "pack",
    "prune_regrow_",
    "raise_device_errors",
    "rank",
    "rank_packed",
    "rowwise_adagrad_",
    "sample",
    "sample_synthetic",
    "select",
    "sgd_",
    "soft_threshold",
    "soft_threshold_backward",
    "spmm",
    "sum_rows",
    "unpack",
]
