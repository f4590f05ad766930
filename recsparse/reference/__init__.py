"""Slow, obvious versions of the ops, in torch alone: the specification that kernels are tested against."""

from __future__ import annotations

from recsparse.reference.bpr_grow_scores import bpr_grow_scores
from recsparse.reference.bpr_step import bpr_step_
from recsparse.reference.convert_index import convert_index, misfit_row, pack
from recsparse.reference.init import init_index_, init_values_
from recsparse.reference.inspect import column_mask, row_counts
from recsparse.reference.lightgcn_step import lightgcn_grow_scores, lightgcn_step_
from recsparse.reference.lookup import lookup
from recsparse.reference.lookup_bag import lookup_bag
from recsparse.reference.optimizer_step import adagrad_, adam_, rowwise_adagrad_, sgd_
from recsparse.reference.prune_regrow import prune_regrow_
from recsparse.reference.rank import rank, rank_packed
from recsparse.reference.rows import unpack
from recsparse.reference.sample import sample, sample_synthetic
from recsparse.reference.select import select
from recsparse.reference.soft_threshold import soft_threshold, soft_threshold_backward
from recsparse.reference.spmm import spmm

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
    "lookup_bag",
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
