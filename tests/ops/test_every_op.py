"""No op is forgotten: each one that takes part in a graph is opchecked, has a fake kernel and a reference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from recsparse import _native, ops, reference

_native.load()
HERE = Path(__file__).resolve().parent

# Facts about the machine or the format, checks that return text, and probes: they take no part in a graph.
OUTSIDE_GRAPHS = {
    "advise_huge_pages",
    "ceiling_copy_",
    "ceiling_gather",
    "ceiling_read",
    "check_index",
    "column_mask",
    "cpu_isa",
    "index_words",
    "misfit_row",
    "probe_copy_",
    "probe_fill_",
    "probe_gather",
    "raise_device_errors",
    "row_counts",
}
# They make a table before anything is traced.
SET_UP = {"init_index_", "init_values_"}
# The C++ autograd of an op calls them; the reference differentiates through the op itself.
GRADIENTS = {"lookup_backward", "lookup_bag_backward", "lookup_bag_weights_backward"}


def registered() -> set[str]:
    """Names of the ops of this library, without overloads."""
    names = torch._C._dispatch_get_all_op_names()
    return {re.split(r"::|\.", name)[1] for name in names if name.startswith("recsparse::")}


IN_GRAPHS = sorted(registered() - OUTSIDE_GRAPHS)


def test_the_lists_name_ops_that_exist() -> None:
    assert registered() >= OUTSIDE_GRAPHS | SET_UP | GRADIENTS
    assert {"lookup", "bpr_step_", "select"} <= set(IN_GRAPHS) & set(ops.__all__)


@pytest.mark.parametrize("name", IN_GRAPHS)
def test_is_opchecked(name: str) -> None:
    wanted = name.removesuffix("_")
    files = [path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py") if path != Path(__file__).resolve()]
    assert any("library.opcheck(" in text and re.search(rf"\b{wanted}_?\b", text) for text in files)


@pytest.mark.parametrize("name", sorted(set(IN_GRAPHS) - SET_UP))
def test_has_a_fake_kernel(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"recsparse::{name}", "Meta") or (
        torch._library.simple_registry.singleton.find(f"recsparse::{name}").fake_impl.kernel is not None
    )


@pytest.mark.parametrize("name", IN_GRAPHS)
def test_has_a_triton_kernel(name: str) -> None:
    pytest.importorskip("triton")
    from recsparse import triton_kernels

    assert name in triton_kernels.__all__


@pytest.mark.parametrize("name", sorted(set(IN_GRAPHS) - GRADIENTS))
def test_has_a_reference(name: str) -> None:
    assert callable(getattr(reference, name))
