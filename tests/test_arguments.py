from __future__ import annotations

import argparse

import pytest

from recsparse import arguments


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("16384", 16384), ("1e8", 10**8), ("4M", 4_000_000), ("1.5k", 1500), ("2G", 2 * 10**9), ("8.0", 8)],
)
def test_counts(text: str, value: int) -> None:
    assert arguments.count(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1e13", "nan", "inf", "4m", "M", "1_0", "0x10", "1e-3k"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
        arguments.count(text)


def test_density_and_seconds() -> None:
    assert arguments.density("0.25") == 0.25
    assert arguments.seconds("1.5") == 1.5
    for text in ("0", "-1", "1.01", "nan", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            arguments.density(text)
    for text in ("0", "-1", "inf", "nan", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            arguments.seconds(text)


def test_lists_drop_repeated_parts_and_refuse_empty_ones() -> None:
    assert arguments.listed(arguments.count)("1k,2k,1000") == [1000, 2000]
    for text in ("", "1,", "1,,2"):
        with pytest.raises(argparse.ArgumentTypeError):
            arguments.listed(arguments.count)(text)
