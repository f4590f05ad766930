"""Splits of one's own: nothing lost, nothing twice, the shares of each user, and mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_runs

from recsparse.cli import main
from recsparse.data import load_folder, parse_shares, split_folder
from recsparse.errors import UserError


def pairs(folder: Path) -> dict[str, set[tuple[int, int]]]:
    found = {}
    for part in ("train", "valid", "test"):
        file = folder / f"{part}.txt"
        lines = [list(map(int, line.split())) for line in file.read_text().splitlines()] if file.is_file() else []
        found[part] = {(user, item) for user, *items in lines for item in items}
    return found


def test_every_pair_is_in_one_part_and_users_have_their_shares(tmp_path: Path) -> None:
    source = small_runs.write_folder(tmp_path / "from")
    counts = split_folder(source, tmp_path / "to", (0.5, 0.25, 0.25), seed=3)
    before, after = pairs(source), pairs(tmp_path / "to")
    assert set().union(*before.values()) == set().union(*after.values())
    assert sum(map(len, after.values())) == len(set().union(*after.values()))
    assert counts == {part: len(found) for part, found in after.items()}
    for part, share in (("valid", 4), ("test", 4), ("train", 8)):  # of 16 items each
        users = np.bincount([user for user, _ in after[part]], minlength=small_runs.USERS)
        assert set(users.tolist()) == {share}
    assert load_folder(tmp_path / "to").valid.nnz == counts["valid"]


def test_the_seed_says_which_and_users_without_enough_keep_all_in_train(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 1 2\n2 5\n")
    (tmp_path / "test.txt").write_text("1 0 1 2 3 4 5 6 7\n")
    found = []
    for number, seed in enumerate((1, 1, 2)):
        split_folder(tmp_path, tmp_path / str(number), (0.75, 0.0, 0.25), seed)
        found.append(pairs(tmp_path / str(number)))
    assert found[0] == found[1] != found[2]
    assert {(0, 1), (0, 2), (2, 5)} <= found[0]["train"]
    assert len(found[0]["test"]) == 2
    assert not (tmp_path / "0" / "valid.txt").exists()


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = small_runs.write_folder(tmp_path / "from")
    assert main(["data", "split", str(source), str(tmp_path / "new"), "--seed", "4"]) == 0
    assert "480 valid" in capsys.readouterr().out
    assert main(["data", "split", str(source), str(tmp_path / "new")]) == 2
    assert "is there already; give another folder" in capsys.readouterr().err
    assert main(["data", "split", str(tmp_path / "nowhere"), str(tmp_path / "other")]) == 2
    assert "no such folder" in capsys.readouterr().err
    for text in ("50,25", "50,25,26", "0,50,50", "100,0,0", "a,b,c", "110,-20,10"):
        with pytest.raises(UserError, match="--shares is"):
            parse_shares(text)
