"""Fail when an object could bring an instruction to a CPU that lacks it.

Weak symbols that objects of different instruction sets share: the linker keeps one copy of a weak symbol (an inline
function, a template instance), and if that is the copy of an AVX-512 object, the baseline code calls it too and dies of
an illegal instruction on an older processor. And registers beyond an object's level: AVX-512's (zmm, the upper sixteen,
masks) outside of *_avx512, any of 256 bits outside of *_avx2 and *_avx512.

    python scripts/check_isa_symbols.py [OBJECT ...]      default: every object of build/native/csrc that has CPU code
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from native import BUILD_DIR, ISA_FLAGS


def instruction_set(obj: Path) -> str:
    """The suffix that chose the flags of this object (`x_avx2.cpp.o` -> `_avx2`), or "baseline"."""
    stem = obj.name.split(".")[0]
    return next((suffix for suffix in ISA_FLAGS if stem.endswith(suffix)), "baseline")


def weak_symbols(obj: Path) -> set[str]:
    """Demangled weak and unique-global definitions of an object."""
    text = subprocess.run(["nm", "-C", "--defined-only", str(obj)], capture_output=True, text=True, check=True).stdout
    found = set()
    for line in text.splitlines():
        _, kind, name = line.split(maxsplit=2)
        # Type information and exception tables (V: data) hold no instructions.
        if kind in "Wu":
            found.add(name)
    return found


def violations(objects: list[Path]) -> list[str]:
    """One line for each weak symbol that objects of different instruction sets define."""
    owners: dict[str, dict[str, Path]] = defaultdict(dict)
    for obj in objects:
        for symbol in weak_symbols(obj):
            owners[symbol].setdefault(instruction_set(obj), obj)
    return [
        f"{symbol}: defined by {' and '.join(sorted(path.name for path in by_isa.values()))}; "
        "put it in the instruction set's own namespace or make it static or always_inline"
        for symbol, by_isa in sorted(owners.items())
        if len(by_isa) > 1
    ]


_AVX512_REGISTERS = r"%zmm\d|%[xy]mm(?:1[6-9]|2\d|3[01])\b|%k[0-7]\b"
_FOREIGN = {"baseline": re.compile(rf"%ymm\d|{_AVX512_REGISTERS}"), "_avx2": re.compile(_AVX512_REGISTERS)}


def foreign_registers(objects: list[Path]) -> list[str]:
    """One line for each object with an instruction whose registers its level does not have."""
    found = []
    for obj in objects:
        foreign = _FOREIGN.get(instruction_set(obj))
        if foreign is None:
            continue
        code = subprocess.run(["objdump", "-d", str(obj)], capture_output=True, text=True, check=True).stdout
        line = next((line for line in code.splitlines() if foreign.search(line)), None)
        if line is not None:
            found.append(
                f"{obj.name} is built for {instruction_set(obj).strip('_')} and holds {line.split(maxsplit=1)[1]}"
            )
    return found


def main(arguments: list[str]) -> int:
    objects = [Path(argument) for argument in arguments] or sorted((BUILD_DIR / "csrc").glob("**/*.cpp.o"))
    if not objects:
        print("check_isa_symbols: no objects; run `make build` first", file=sys.stderr)
        return 1
    found = violations(objects) + foreign_registers(objects)
    for line in found:
        print(f"check_isa_symbols: {line}", file=sys.stderr)
    if not found:
        print(f"check_isa_symbols: {len(objects)} objects share no weak symbol and keep to their instruction sets")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
