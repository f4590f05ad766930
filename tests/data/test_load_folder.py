from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsparse import _host
from recsparse.data import Dataset, Interactions, load_folder
from recsparse.errors import UserError


def folder(path: Path, train: str, test: str = "0 0\n", valid: str | None = None) -> Path:
    for part, text in {"train": train, "test": test, "valid": valid}.items():
        if text is not None:
            (path / f"{part}.txt").write_bytes(text.encode())
    return path


def rows(matrix: Interactions) -> list[list[int]]:
    return [matrix.row(u).tolist() for u in range(matrix.n_users)]


def test_messy_but_legal_text(tmp_path):
    train = "\ufeff0 3 1 1  \r\n2\n\n1\t2 \n0 0 3\n"  # byte order mark, CRLF, tab, blanks, no items, repeats
    data = load_folder(folder(tmp_path, train, "3 5\n1"), protocol="paper")
    assert (data.n_users, data.n_items) == (4, 6)
    assert rows(data.train) == [[0, 1, 3], [2], [], []]
    assert rows(data.test) == [[], [], [], [5]]
    assert data.train.indptr.dtype == np.int64
    assert data.train.items.dtype == np.int32
    stats = data.stats()
    assert stats["duplicates_dropped"] == 2
    assert stats["test_users_unseen_in_train"] == 1
    assert stats["test_items_unseen_in_train"] == 1


def test_pairs_in_train_and_test_are_counted(tmp_path):
    data = load_folder(folder(tmp_path, "0 1 2\n1 4\n", "0 2 3\n1 4\n"), protocol="paper")
    assert data.stats()["test_pairs_in_train"] == 2


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("0 1\n1 x\n", 2, "malformed id 'x'"),
        ("0 1\n\n1 2.5\n", 3, "malformed id '2.5'"),
        ("0 1\n1 2,3\n", 2, "malformed id '2,3'"),
        ("0 -4\n", 1, "negative id -4"),
        ("-1 4\n", 1, "negative id -1"),
        ("0 1\n0 2147483647\n", 2, "huge id 2147483647"),
        ("99999999999999999999999 1\n", 1, "huge id"),
        ("0 1\n0 \x00\n", 2, "malformed id '?'"),
    ],
)
def test_bad_line_names_file_and_line(tmp_path, text, line, what):
    with pytest.raises(UserError) as error:
        load_folder(folder(tmp_path, text))
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'train.txt'}:{line}: {what}")
    assert "\n" not in message


def test_bad_line_after_many_buffers(tmp_path):
    text = "".join(f"{u} {u % 700} {u % 300}\n" for u in range(200_000)) + "200000 7 oops\n"
    with pytest.raises(UserError, match=r"train\.txt:200001: malformed id 'oops'"):
        load_folder(folder(tmp_path, text))


@pytest.mark.parametrize("text", ["", "\n \n", "0\n1\n"])
def test_file_without_interactions(tmp_path, text):
    with pytest.raises(UserError, match=r"train\.txt: no interactions"):
        load_folder(folder(tmp_path, text))


def test_ids_that_nobody_renumbered(tmp_path):
    with pytest.raises(UserError, match=r"test\.txt: huge user id 2000000000 for 2 interactions"):
        load_folder(folder(tmp_path, "0 1\n", "2000000000 1\n"))
    with pytest.raises(UserError, match=r"train\.txt: huge item id 1000200"):
        load_folder(folder(tmp_path, "0 1000200\n", "0 1\n"))
    assert load_folder(folder(tmp_path, "0 1000199\n", "0 1\n"), protocol="paper").n_items == 1_000_200


def test_missing_paths(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_folder(tmp_path / "absent")
    (tmp_path / "train.txt").write_text("0 1\n")
    with pytest.raises(UserError, match=r"test\.txt: no such file"):
        load_folder(tmp_path)


def test_valid_file_wins_over_hold_out(tmp_path):
    where = folder(tmp_path, "0 1 2 3 4 5 6 7 8 9\n", "0 11\n", "0 10\n")
    data = load_folder(where, valid_fraction=0.5)
    assert rows(data.valid) == [[10]]
    assert data.train.nnz == 9
    assert load_folder(where, protocol="paper").valid.nnz == 0


def test_hold_out_share_and_single_items(tmp_path):
    text = "".join(f"{u} {' '.join(str((u * 7 + j) % 500) for j in range(1 + u % 40))}\n" for u in range(2000))
    where = folder(tmp_path, text)
    whole = load_folder(where, protocol="paper").train
    data = load_folder(where, seed=3)
    merged = data.train.union(data.valid)
    assert np.array_equal(merged.indptr, whole.indptr)
    assert np.array_equal(merged.items, whole.items)
    assert data.train.degrees().min() == 1
    assert data.valid.nnz / whole.nnz == pytest.approx(0.1, abs=0.005)
    expected = whole.degrees() * 0.1
    assert (np.abs(data.valid.degrees() - expected) < 1).all()  # within stochastic rounding, for every user
    assert load_folder(where, seed=3).hash == data.hash
    assert load_folder(where, seed=4).hash != data.hash


def test_hold_out_does_not_depend_on_other_users():
    indptr, items = np.array([0, 30, 60], np.int64), np.tile(np.arange(30, dtype=np.int32), 2)
    both = _host.hold_out(indptr, items, 0.3, 9)
    first = _host.hold_out(indptr[:2], items[:30], 0.3, 9)
    assert np.array_equal(both[3][: both[2][1]], first[3])
    assert not np.array_equal(both[3][: both[2][1]], both[3][both[2][1] :])


@given(st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(0, 9), max_size=8)), min_size=1, max_size=12))
def test_build_csr_equals_sets(lines):
    users = np.array([u for u, _ in lines], np.int32)
    ends = np.cumsum([len(items) for _, items in lines], dtype=np.int64)
    flat = np.array([i for _, items in lines for i in items], np.int32)
    indptr, items, duplicates = _host.build_csr(users, ends, flat, 7)
    expected = [sorted({i for v, row in lines if v == u for i in row}) for u in range(7)]
    assert rows(Interactions(indptr, items)) == expected
    assert duplicates == len(flat) - sum(map(len, expected))


def test_dataset_refuses_unsorted_rows():
    bad = Interactions(np.array([0, 2], np.int64), np.array([3, 1], np.int32))
    with pytest.raises(UserError, match="train: items of user 0 must be ascending and unique"):
        Dataset("d", 1, 4, bad, Interactions.empty(1), Interactions.empty(1))
    outside = Interactions(np.array([0, 1], np.int64), np.array([4], np.int32))
    with pytest.raises(UserError, match=r"test: item 4 of user 0 is outside \[0, 4\)"):
        Dataset("d", 1, 4, Interactions.empty(1), Interactions.empty(1), outside)


def test_hash_tells_parts_apart():
    a = Interactions(np.array([0, 1], np.int64), np.array([2], np.int32))
    none = Interactions.empty(1)
    hashes = {Dataset("d", 1, 4, *parts).hash for parts in ((a, none, none), (none, a, none), (none, none, a))}
    hashes.add(Dataset("d", 1, 5, a, none, none).hash)
    assert len(hashes) == 4
    assert Dataset("other", 1, 4, a, none, none).hash in hashes  # the name is not content


def test_rows_picks_users_in_order():
    matrix = Interactions(np.array([0, 2, 2, 5], np.int64), np.array([1, 4, 0, 2, 3], np.int32))
    assert rows(matrix.rows(np.array([2, 1, 0]))) == [[0, 2, 3], [], [1, 4]]


def test_peak_memory_is_at_most_three_edge_lists(tmp_path):
    """Measured in a process of its own, as growth of the resident set; an edge list takes 8 bytes a pair."""
    users, degree = 20_000, 100
    base = " ".join(str(i) for i in range(100_000, 100_000 + 3 * degree, 3))
    where = folder(tmp_path, "".join(f"{u} {base}\n" for u in range(users)))
    script = (
        "import resource, sys; from recsparse.data import load_folder\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak(); data = load_folder(sys.argv[1], protocol='paper')\n"
        "print(data.train.nnz, peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(where)], capture_output=True, text=True, check=True)
    nnz, growth = map(int, run.stdout.split())
    assert nnz == users * degree
    assert growth <= 3 * 8 * nnz


@pytest.mark.parametrize(
    ("name", "users", "items", "train", "test"),
    [("gowalla", 29_858, 40_981, 810_128, 217_242), ("yelp2018", 31_668, 38_048, 1_237_259, 324_147)],
)
def test_public_sets(name, users, items, train, test):
    root = os.environ.get("RECSPARSE_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"RECSPARSE_DATA holds no {name}")
    data = load_folder(Path(root) / name, protocol="paper")
    assert (data.n_users, data.n_items, data.train.nnz, data.test.nnz) == (users, items, train, test)
    assert data.stats()["test_pairs_in_train"] == 0
