"""Packages, their mapping to folders, and the native libraries. Everything declarative is in pyproject.toml."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

import native  # noqa: E402

# Folders at the top of the tree that are installed below `recsparse`: other projects own the bare names.
MAPPED = {"recsparse.bench": "bench", "recsparse.triton_kernels": "triton_kernels"}


class NativeBuild(build_ext):
    """Builds the libraries with ninja under build/native and copies them to where setuptools expects them."""

    def get_ext_filename(self, fullname: str) -> str:
        # _C is loaded by torch.ops.load_library, not imported: its name does not depend on the interpreter.
        if fullname.split(".")[-1] == "_C":
            return str(Path(*fullname.split(".")).with_suffix(".so"))
        return str(super().get_ext_filename(fullname))

    def build_extensions(self) -> None:
        try:
            import torch  # noqa: F401
        except ImportError:
            sys.exit("recsparse: torch is missing; install torch>=2.11 first, then build with --no-build-isolation")
        makers = {"recsparse._C": native.torch_library, "recsparse._host": native.host_library}
        libraries = []
        try:
            for extension in self.extensions:
                built = native.BUILD_DIR / Path(self.get_ext_filename(extension.name)).name
                library = makers[extension.name](built)
                if library is not None:
                    libraries.append((extension, library))
            native.build([library for _, library in libraries])
        except native.BuildError as error:
            sys.exit(f"recsparse: {error}")
        for extension, library in libraries:
            target = self.get_ext_fullpath(extension.name)
            self.mkpath(str(Path(target).parent))
            self.copy_file(str(library.output), target)


def packages() -> list[str]:
    found = ["recsparse", *(f"recsparse.{name}" for name in find_packages(str(ROOT / "recsparse")))]
    for package, folder in MAPPED.items():
        found += [package, *(f"{package}.{name}" for name in find_packages(str(ROOT / folder)))]
    return found


def extensions() -> list[Extension]:
    globs = {"recsparse._C": "csrc/torch/*.cpp", "recsparse._host": "csrc/host/*.cpp"}
    found = {name: native.sources(pattern) for name, pattern in globs.items()}
    return [Extension(name, [str(p.relative_to(ROOT)) for p in paths]) for name, paths in found.items() if paths]


setup(packages=packages(), package_dir=MAPPED, ext_modules=extensions(), cmdclass={"build_ext": NativeBuild})
