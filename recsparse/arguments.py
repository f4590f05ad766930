"""Types of command-line options, for argparse's ``type=``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

from recsparse.errors import UserError

T = TypeVar("T")

_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def count(text: str) -> int:
    """A whole number from 1 to 2^40, also as 1e8, 16k, 4M or 1G (powers of ten)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:[eE]\+?\d+)?)([kMG]?)", text.strip())
    value = float(match.group(1)) * _SCALE[match.group(2)] if match else 0.0
    if not 1 <= value <= 2**40 or value != int(value):
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1 to 2^40 such as 16384, 1e8 or 4M, got {text!r}"
        )
    return int(value)


def density(text: str) -> float:
    """A number in (0, 1]."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1] such as 0.1, got {text!r}")
    return value


def seconds(text: str) -> float:
    """A positive number of seconds, below 1e6."""
    value = _number(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value


def parse(flag: str, kind: Callable[[str], T], text: str) -> T:
    """The value of a flag outside of argparse. Raises UserError, which names the flag."""
    try:
        return kind(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{flag}: {error}") from None


def listed(parse: Callable[[str], T]) -> Callable[[str], list[T]]:
    """A type for lists such as ``0.05,0.1,0.2``, whose parts have the type ``parse``; repeated parts count once."""

    def parse_all(text: str) -> list[T]:
        return list(dict.fromkeys(parse(part) for part in text.split(",")))

    return parse_all


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
