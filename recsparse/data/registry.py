"""Public data sets: where they are and what their bytes must be. Nothing here runs unless a user asks for it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from recsparse.errors import UserError

_TIMEOUT_S = 60
_LIGHTGCN = "https://raw.githubusercontent.com/kuandeng/LightGCN/b067ec05f16a24e0e1efe63cd82385f0c469af20/Data"
_KUAIRAND = "https://raw.githubusercontent.com/LehengTHU/CF_Rec/91cd878da70ac113077d49b2cac88f124afad06e/data/KuaiRand"
_LASTFM = (
    "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/947ca2b3b1d2d3545b114145710cb06c4e57b3d2/data/lastfm"
)


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set.

    Attributes:
        url: address with a pinned commit.
        digest: `sha256:` or, where only that is published, `git-blob-sha1:` and the hex digest.
        pairs: the file holds `user item weight` lines with ids from 1 and is rewritten to the LightGCN format.
    """

    url: str
    digest: str
    pairs: bool = False


REGISTRY: dict[str, dict[str, RemoteFile]] = {
    "gowalla": {
        "train.txt": RemoteFile(
            f"{_LIGHTGCN}/gowalla/train.txt",
            "sha256:7244696fdeb23911319cf7b689f2e15a3c4c92549c873a5677b44e3f13cc3e62",
        ),
        "test.txt": RemoteFile(
            f"{_LIGHTGCN}/gowalla/test.txt",
            "sha256:099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
        ),
    },
    "yelp2018": {
        "train.txt": RemoteFile(
            f"{_LIGHTGCN}/yelp2018/train.txt",
            "sha256:1e9568725a9e833d0ac3bae01c94cd95367f73b3bb6104fd26b5f65ea5054093",
        ),
        "test.txt": RemoteFile(
            f"{_LIGHTGCN}/yelp2018/test.txt",
            "sha256:9cd9b37926cd1447a06625ffa7914527573fb097c10cb0bbdb1d1b8ded3742fe",
        ),
    },
    "amazon-book": {
        "train.txt": RemoteFile(
            f"{_LIGHTGCN}/amazon-book/train.txt",
            "git-blob-sha1:6ef55159c5f1fd7f6d86eb9ff290d0cc2854ac99",
        ),
        "test.txt": RemoteFile(
            f"{_LIGHTGCN}/amazon-book/test.txt",
            "sha256:6250754994dd953b91b48dccdd77a73f318e0634b4757c2abfcc9d33a54ab0f5",
        ),
    },
    "kuairand": {
        "train.txt": RemoteFile(
            f"{_KUAIRAND}/train.txt",
            "sha256:b85bd6361b4fd26ff72cf49ac65d0f3375bb7e5dc2b9da04402a5c7de3033c30",
        ),
        "valid.txt": RemoteFile(
            f"{_KUAIRAND}/valid.txt",
            "sha256:3c41ffe7b258220cc403b22d195ae19c244eacaade8360d9ba61c20c3db6c410",
        ),
        "test.txt": RemoteFile(
            f"{_KUAIRAND}/test_id.txt",
            "sha256:be100d8655fb1fca61824d80e4af05f9fe16bb6919904982be79540e0f759a15",
        ),
    },
    "lastfm": {
        "train.txt": RemoteFile(
            f"{_LASTFM}/data1.txt",
            "sha256:c82af3228cbbda2f55a39244de09ed93292894f1d0d9f1908ebb57e27598fded",
            pairs=True,
        ),
        "test.txt": RemoteFile(
            f"{_LASTFM}/test1.txt",
            "sha256:de4417c0e6123284ce59a0934bcf5288ec1ec8774a18a1eef453c9952dfa48f9",
            pairs=True,
        ),
    },
}


def download(name: str, folder: str | Path) -> Path:
    """Fetch a public data set into `folder/name`; a set that is already there and intact is not fetched again.

    Every file is checked before it gets its final name, and the data set appears as a whole or not at all.

    Returns:
        The folder, ready for `load_folder`.

    Raises:
        UserError: unknown name, no connection, content that differs from the registered one, or a folder that exists
            with other content.
    """
    if name not in REGISTRY:
        raise UserError(f"unknown data set {name!r}; expected one of {', '.join(REGISTRY)}")
    target = Path(folder) / name
    if target.is_dir():
        if all((target / file).is_file() for file in REGISTRY[name]):
            return target
        raise UserError(f"{target}: exists but is not a complete {name}; move it away and download again")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    except OSError as error:
        raise UserError(f"{target.parent}: cannot write: {error.strerror or error}") from None
    try:
        for file, remote in REGISTRY[name].items():
            content = _fetch(remote)
            (staging / file).write_bytes(_to_lightgcn(content) if remote.pairs else content)
        staging.chmod(0o755)  # mkdtemp makes it private
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def verify(content: bytes, digest: str) -> bool:
    """Whether `content` has the registered digest (`sha256:...` or `git-blob-sha1:...`)."""
    kind, expected = digest.split(":")
    if kind == "sha256":
        return hashlib.sha256(content).hexdigest() == expected
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == expected


def _fetch(remote: RemoteFile) -> bytes:
    try:
        with urllib.request.urlopen(remote.url, timeout=_TIMEOUT_S) as response:
            content: bytes = response.read()
    except (urllib.error.URLError, OSError) as error:
        raise UserError(f"{remote.url}: cannot download: {getattr(error, 'reason', error)}") from None
    if not verify(content, remote.digest):
        raise UserError(f"{remote.url}: content differs from the registered {remote.digest}; nothing was kept")
    return content


def _to_lightgcn(content: bytes) -> bytes:
    """`user item weight` lines with ids from 1 -> `user item item ...` lines with ids from 0."""
    rows: dict[int, list[int]] = {}
    for line in content.decode("ascii").splitlines():
        if line.strip():
            user, item = line.split()[:2]
            rows.setdefault(int(user) - 1, []).append(int(item) - 1)
    return "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in sorted(rows.items())).encode()
