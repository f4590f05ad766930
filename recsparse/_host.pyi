from typing import Any

from numpy import float32, float64, int32, int64
from numpy.typing import NDArray

class DataError(ValueError): ...

def parse_text(path: str) -> tuple[NDArray[int32], NDArray[int64], NDArray[int32], int, int]: ...
def build_csr(
    line_users: NDArray[int32], line_ends: NDArray[int64], items: NDArray[int32], n_users: int
) -> tuple[NDArray[int64], NDArray[int32], int]: ...
def hold_out(
    indptr: NDArray[int64], items: NDArray[int32], fraction: float, seed: int
) -> tuple[NDArray[int64], NDArray[int32], NDArray[int64], NDArray[int32]]: ...
def count_common(
    indptr_a: NDArray[int64], items_a: NDArray[int32], indptr_b: NDArray[int64], items_b: NDArray[int32]
) -> int: ...
def build_graph(
    indptr: NDArray[int64], items: NDArray[int32], n_items: int, wide: bool
) -> tuple[NDArray[int64], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[float32], NDArray[int64]]: ...
def check_csr(indptr: NDArray[int64], items: NDArray[int32], n_items: int) -> None: ...
def ranking_metrics(
    ranking: NDArray[int32], indptr: NDArray[int64], items: NDArray[int32], ks: NDArray[int64]
) -> NDArray[float64]: ...
def philox(seed: int, counter: int, counter2: int, stream: int) -> tuple[int, int, int, int]: ...
def materialise_synthetic(
    n_users: int, n_items: int, min_degree: int, max_degree: int, seed: int, pairs: int
) -> tuple[NDArray[int64], NDArray[int32]]: ...
def streamed_rows(
    n_users: int,
    n_items: int,
    min_degree: int,
    max_degree: int,
    seed: int,
    users: NDArray[int64],
    skip: int,
    count: int,
) -> tuple[NDArray[int64], NDArray[int32]]: ...
