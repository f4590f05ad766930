"""Splits of one's own: all interactions of a folder dealt out anew, as some papers do (BET: 50 / 25 / 25 per user)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsparse.data.dataset import load_folder
from recsparse.errors import UserError

PARTS = ("train", "valid", "test")


def parse_shares(text: str) -> tuple[float, float, float]:
    """Shares of train, valid and test from `50,25,25`.

    Raises:
        UserError: not three numbers from 0 that add up to 100, or no train or test.
    """
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 100) > 1e-9 or not shares[0] or not shares[2]:
        raise UserError(
            f"--shares is {text!r}; expected percentages of train, valid and test that add up to 100, as 50,25,25"
        )
    return shares[0] / 100, shares[1] / 100, shares[2] / 100


def split_folder(source: Path, target: Path, shares: tuple[float, float, float], seed: int) -> dict[str, int]:
    """Write train.txt, valid.txt (where it has a share) and test.txt with the interactions of all files of `source`.

    Each user's items are shuffled; floor(share x count) go to test and to valid, the rest stay in train.

    Returns:
        Interactions of each part.

    Raises:
        UserError: `source` cannot be read, or `target` cannot be written or is there already.
    """
    if target.exists():
        raise UserError(f"{target} is there already; give another folder, or remove it")
    dataset = load_folder(source, protocol="valid", valid_fraction=0.0)
    source_of = np.random.Generator(np.random.Philox(seed))
    lines: dict[str, list[str]] = {part: [] for part in PARTS}
    counts = dict.fromkeys(PARTS, 0)
    for user in range(dataset.n_users):
        rows = [part.row(user) for part in (dataset.train, dataset.valid, dataset.test)]
        items = source_of.permutation(np.unique(np.concatenate(rows)))
        test, valid = (int(share * len(items)) for share in (shares[2], shares[1]))
        cut = {"test": items[:test], "valid": items[test : test + valid], "train": items[test + valid :]}
        for part, own in cut.items():
            counts[part] += len(own)
            if len(own):
                lines[part].append(_line(user, own))
    try:
        target.mkdir(parents=True)
        for part in PARTS:
            if lines[part]:
                (target / f"{part}.txt").write_text("".join(lines[part]), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
    return counts


def _line(user: int, items: NDArray[np.int32]) -> str:
    return " ".join(map(str, [user, *np.sort(items)])) + "\n"
