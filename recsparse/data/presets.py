"""Named generated data sets.

`kwai-paper` and `tiktok-paper` have the numbers of users, items and interactions that the lottery-ticket paper for
recommenders (LTH-MRS, section on data) publishes for Kwai and TikTok, split 7:1:2 as there. The interactions are
generated: the original sets are no longer public.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsparse.data.dataset import Dataset, Protocol
from recsparse.data.streamed import StreamedDataset
from recsparse.data.synthetic import SyntheticStream
from recsparse.errors import UserError


@dataclass(frozen=True)
class Preset:
    """A generated data set; without `pairs` it is too large to materialise and can only be streamed."""

    n_users: int
    n_items: int
    min_degree: int
    max_degree: int
    pairs: int | None
    valid_fraction: float = 0.125  # of what test leaves: 7:1:2
    test_fraction: float = 0.2


PRESETS = {
    "demo": Preset(6_000, 4_000, 10, 130, 200_000),
    "kwai-paper": Preset(7_010, 80_631, 8, 175, 292_042),
    "tiktok-paper": Preset(36_638, 97_117, 5, 80, 746_546),
    "kuairand-size": Preset(19_685, 5_169, 10, 100, 628_545),
    "tiktok-scale": Preset(100_000_000, 10_000_000, 5, 72, None),
    "billion": Preset(900_000_000, 100_000_000, 5, 72, None),
}


def stream(name: str, *, seed: int = 0) -> SyntheticStream:
    """The generated stream of a preset.

    Raises:
        UserError: no preset of that name.
    """
    preset = _preset(name)
    return SyntheticStream(preset.n_users, preset.n_items, seed, preset.min_degree, preset.max_degree, name)


def streamed(name: str, *, protocol: Protocol = "valid", seed: int = 0, eval_users: int = 10_000) -> StreamedDataset:
    """A preset as a data set that is never materialised.

    Raises:
        UserError: no preset of that name.
    """
    return StreamedDataset(stream(name, seed=seed), eval_users, protocol)


def generate(name: str, *, protocol: Protocol = "valid", seed: int = 0) -> Dataset:
    """Materialise a preset; a pure function of its arguments.

    Raises:
        UserError: no preset of that name, or one that is only streamed.
    """
    preset = _preset(name)
    if preset.pairs is None:
        raise UserError(f"preset {name} is streamed, never materialised; use `recsparse train` or `bench scale`")
    return stream(name, seed=seed).materialise(
        preset.pairs,
        test_fraction=preset.test_fraction,
        valid_fraction=preset.valid_fraction,
        protocol=protocol,
    )


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
