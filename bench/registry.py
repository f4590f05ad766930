"""What a benchmark is made of: cases, traffic models, trials, providers and ops, and the table that holds them."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch

from recsparse.errors import UserError
from recsparse.table import DTYPES

OURS = "recsparse"
CPU, CUDA, ANYWHERE = ("cpu",), ("cuda",), ("cpu", "cuda")
_OP_MODULES = (
    "lookup",
    "lookup_bag",
    "rows_step",
    "dlrm_step",
    "bpr_step",
    "adam",
    "select",
    "prune_regrow",
    "sample",
    "rank",
    "pack",
    "spmm",
    "lightgcn_step",
    "soft_threshold",
)
OP_NAMES = (*_OP_MODULES, "unpack")
_PROVIDER_MODULES = (
    "ours",
    "torch_lookup",
    "bags",
    "rows_step",
    "full_adam",
    "dlrm",
    "torch_bpr",
    "torch_pack",
    "dense_update",
    "fbgemm",
    "numba_csr",
    "scipy_csr",
    "implicit_bpr",
    "numpy_select",
    "numpy_sample",
    "propagation",
    "rank",
    "soft_threshold",
)


@dataclass(frozen=True)
class Case:
    """One point of measurement. A field that an op does not use keeps its default and is not shown."""

    rows: int = 0
    dim: int = 1
    density: float = 1.0
    batch: int = 0
    bag: int = 1
    ids: str = "uniform"
    dtype: str = "float32"
    cold: bool = True
    kind: str = "bits"
    optimizer: str = "adam"
    graph: str = ""
    device: str = "cpu"

    @property
    def value_type(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def slots(self) -> int:
        return self.rows * self.dim

    @property
    def kept(self) -> int:
        """Number of kept weights the density asks for; a drawn table may differ by sampling noise."""
        return round(self.slots * self.density)

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Traffic:
    """Bytes that one call has to move between the cores and memory, in the write-up of the provider.

    ``gather`` counts bytes of random lines, each ``line`` bytes long, in arrays of ``table`` bytes; ``stream`` counts
    bytes read or written in order.
    """

    gather: int = 0
    line: int = 64
    table: int = 0
    stream: int = 0

    @property
    def total(self) -> int:
        return self.gather + self.stream


class Unsuited(Exception):
    """Raised by a provider that has no way to do a case; the message says what it lacks."""


@dataclass
class Trial:
    """A provider made ready for one case.

    ``run(i)`` is timed and uses input set ``i``; ``before(i)`` runs before it, untimed (for ops that change their
    input). ``answer(i)`` gives the result for input set ``i`` in the form the op's ``check`` compares; it is never
    timed. ``units`` is the work of one call in the op's unit, and ``steps`` divides the reported times, for providers
    that do several steps in one call. ``dtype`` is the type that the provider keeps the weights in: its row says so if
    the case asks for another.
    """

    run: Callable[[int], Any]
    answer: Callable[[int], Any]
    traffic: Traffic
    held_bytes: int
    units: int
    steps: int = 1
    before: Callable[[int], Any] | None = None
    backend: str = "cpu"
    note: str = ""
    dtype: str = "float32"


@dataclass(frozen=True)
class Provider:
    op: str
    name: str
    prepare: Callable[[Any], Trial]
    available: Callable[[], str | None]
    """Reason why the provider cannot run here, or None."""
    devices: tuple[str, ...] = ("cpu",)
    """Types of the devices that its tensors may lie on."""


class Problem(Protocol):
    """Inputs of one case, shared by all providers."""

    case: Case
    n_sets: int


class Op(Protocol):
    """One benchmarked op; an object per op lives in ``bench/ops``."""

    name: str
    unit: str

    @property
    def shown(self) -> tuple[str, ...]:
        """Fields of the case that matter to the op: its axes on the command line. Others keep their defaults."""

    def cases(self, quick: bool, device: str = "cpu") -> list[Case]:
        """The default cases, of the sizes that suit the device; `cases` of `axes` puts the device in."""

    def problem(self, case: Case, providers: int) -> Problem: ...

    def check(self, problem: Any, trial: Trial) -> str | None:
        """None if the provider's answer is right, else what is wrong with it."""


_ops: dict[str, Op] = {}
_providers: dict[str, dict[str, Provider]] = {}


def register_op(op: Op) -> None:
    _ops[op.name] = op


def always() -> str | None:
    return None


def needs(module: str) -> Callable[[], str | None]:
    """An ``available`` function for providers that need an optional package."""

    def reason() -> str | None:
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            return f"{module} cannot be imported ({str(error).splitlines()[0]}); `make bench-peers` installs the peers"
        return None

    return reason


def provider(
    op: str, name: str, available: Callable[[], str | None] = always, devices: tuple[str, ...] = CPU
) -> Callable[[Callable[[Any], Trial]], Callable[[Any], Trial]]:
    """Register ``prepare(problem) -> Trial`` as provider ``name`` of ``op``; it may raise `Unsuited`.

    Problem, ``prepare`` and ``answer`` run with the case's device as torch's default, ``run`` does not: that would
    cost each call of torch a microsecond.
    """

    def register(prepare: Callable[[Any], Trial]) -> Callable[[Any], Trial]:
        _providers.setdefault(op, {})[name] = Provider(op, name, prepare, available, devices)
        return prepare

    return register


def load() -> None:
    """Import every op and provider module, which registers them."""
    for name in _OP_MODULES:
        importlib.import_module(f"{__package__}.ops.{name}")
    for name in _PROVIDER_MODULES:
        importlib.import_module(f"{__package__}.providers.{name}")


def get_op(name: str) -> Op:
    load()
    if name not in _ops:
        raise UserError(f"--op: unknown op {name!r}; choose from {', '.join(OP_NAMES)}")
    return _ops[name]


def providers_of(op: str, names: Sequence[str] | None = None, device: str = "cpu") -> list[Provider]:
    """Providers of an op on a device, ours first; with ``names`` only those. Raises UserError for an unknown name."""
    load()
    known = {name: each for name, each in _providers.get(op, {}).items() if device in each.devices}
    for name in names or ():
        if not any(name in table for table in _providers.values()):
            raise UserError(f"--provider: unknown provider {name!r} for op {op}; choose from {', '.join(known)}")
    chosen = [p for p in known.values() if names is None or p.name in names]
    return sorted(chosen, key=lambda p: not is_ours(p.name))


def is_ours(name: str) -> bool:
    return name == OURS or name.startswith(OURS + "[")


def override(cases: Sequence[Case], **fields: Sequence[Any]) -> list[Case]:
    """Cases with the given fields replaced, each by all of its values in turn, without duplicates, in order."""
    points = [dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())]
    return list(dict.fromkeys(replace(case, **point) for case in cases for point in points))
