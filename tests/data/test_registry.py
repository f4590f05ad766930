from __future__ import annotations

import hashlib
import re

import pytest

from recsparse.data import REGISTRY, download, load_folder, registry
from recsparse.data.registry import RemoteFile, verify
from recsparse.errors import UserError


def serve(tmp_path, content: bytes, digest: str | None = None, pairs: bool = False) -> RemoteFile:
    source = tmp_path / f"{hashlib.sha256(content).hexdigest()[:8]}.bin"
    source.write_bytes(content)
    return RemoteFile(source.as_uri(), digest or f"sha256:{hashlib.sha256(content).hexdigest()}", pairs)


def test_every_address_is_pinned_and_every_digest_whole():
    assert set(REGISTRY) == {"gowalla", "yelp2018", "amazon-book", "kuairand", "lastfm"}
    for files in REGISTRY.values():
        assert {"train.txt", "test.txt"} <= set(files)
        for remote in files.values():
            assert re.search(r"^https://.*/[0-9a-f]{40}/", remote.url)
            assert re.fullmatch(r"sha256:[0-9a-f]{64}|git-blob-sha1:[0-9a-f]{40}", remote.digest)


def test_git_blob_digest():
    assert verify(b"hello\n", "git-blob-sha1:ce013625030ba8dba906f756967f9e9ca394464a")
    assert not verify(b"hello", "git-blob-sha1:ce013625030ba8dba906f756967f9e9ca394464a")


def test_download_converts_and_is_idempotent(tmp_path, monkeypatch):
    files = {
        "train.txt": serve(tmp_path, b"2\t5\t7\n1\t3\t1\n2\t4\t9\n", pairs=True),
        "test.txt": serve(tmp_path, b"0 1\n"),
    }
    monkeypatch.setitem(registry.REGISTRY, "tiny", files)
    where = download("tiny", tmp_path / "data")
    assert (where / "train.txt").read_text() == "0 2\n1 4 3\n"
    assert load_folder(where, protocol="paper").train.nnz == 3
    before = (where / "train.txt").stat().st_mtime_ns
    assert download("tiny", tmp_path / "data") == where
    assert (where / "train.txt").stat().st_mtime_ns == before


def test_wrong_content_leaves_nothing_behind(tmp_path, monkeypatch):
    files = {"train.txt": serve(tmp_path, b"0 1\n"), "test.txt": serve(tmp_path, b"0 2\n", "sha256:" + "0" * 64)}
    monkeypatch.setitem(registry.REGISTRY, "tiny", files)
    with pytest.raises(UserError, match="content differs"):
        download("tiny", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_other_mistakes(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="unknown data set 'gowala'"):
        download("gowala", tmp_path)
    monkeypatch.setitem(registry.REGISTRY, "tiny", {"train.txt": RemoteFile((tmp_path / "no").as_uri(), "sha256:0")})
    with pytest.raises(UserError, match="cannot download"):
        download("tiny", tmp_path / "data")
    (tmp_path / "data" / "tiny").mkdir()
    with pytest.raises(UserError, match="not a complete tiny"):
        download("tiny", tmp_path / "data")
