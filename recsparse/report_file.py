"""What every report needs: its file, and pyplot for the picture beside it."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from recsparse.errors import UserError

NO_PLOT = "No plot: matplotlib is not installed (`pip install 'recsparse[plot]'`)."


def write(file: Path, text: str) -> None:
    """Replaces the file in one step, so that a kill leaves the old or the new one.

    Raises:
        UserError: the disk is full or not writable.
    """
    staged = file.with_name(file.name + ".partial")
    try:
        staged.write_text(text, encoding="utf-8")
        os.replace(staged, file)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from None


def pyplot() -> ModuleType | None:
    """matplotlib.pyplot, which draws into files; None where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot as module

    return module
