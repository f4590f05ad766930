"""Slow, obvious versions of the ops, in torch alone: the specification that kernels are tested against."""

from __future__ import annotations

from recsparse.reference.bpr_grow_scores import bpr_grow_scores
from recsparse.reference.bpr_step import bpr_step_
from recsparse.reference.convert_index import convert_index
from recsparse.reference.lookup import lookup
from recsparse.reference.lookup_bag import lookup_bag
from recsparse.reference.optimizer_step import adagrad_, adam_, rowwise_adagrad_, sgd_
from recsparse.reference.prune_regrow import prune_regrow_
from recsparse.reference.rows import unpack
from recsparse.reference.sample import sample, sample_synthetic
from recsparse.reference.select import select

__all__ = [
    "adagrad_",
    "adam_",
    "bpr_grow_scores",
    "bpr_step_",
    "convert_index",
    "lookup",
    "lookup_bag",
    "prune_regrow_",
    "rowwise_adagrad_",
    "sample",
    "sample_synthetic",
    "select",
    "sgd_",
    "unpack",
]
