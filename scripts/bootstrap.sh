#!/usr/bin/env bash
# Set up .venv with torch, this package (editable) and the extras named as arguments; build the native libraries.
#
#   scripts/bootstrap.sh [plot] [test] [dev]
#
# Safe to call again and from several shells at once: a lock serialises the calls, and stamps in .venv (hashes of all
# that goes into a step) make a call that has nothing to do return at once.
#   PYTHON   the interpreter to build .venv from (default: python3)
# An importable torch >= 2.11 of that interpreter is used as it is; else pip fetches one, from the indexes that pip
# itself is configured with (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS).
set -euo pipefail
cd "$(dirname "$0")/.."

BASE=${PYTHON:-python3}
VENV=.venv
PY=$VENV/bin/python
EXTRAS=$(IFS=,; echo "$*")

fail() {
  echo "recsparse: $*" >&2
  exit 1
}

has_torch() {
  "$1" - 2>/dev/null <<'PYTHON'
import re, sys
import torch
sys.exit(tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < (2, 11))
PYTHON
}

# Without importing torch: this runs on every `make`.
torch_version() { "$PY" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || echo none; }

environment_stamp() { { echo "$EXTRAS $(torch_version)"; cat pyproject.toml setup.py scripts/bootstrap.sh; } | sha256sum; }

native_stamp() {
  {
    echo "$(torch_version) ${RECSPARSE_CUDA-} ${RECSPARSE_CUDA_ARCH-} ${CXX-} ${CUDA_HOME-}"
    find csrc setup.py scripts/native.py -type f -print0 | sort -z | xargs -0 sha256sum
  } | sha256sum
}

check_tools() {
  command -v "$BASE" >/dev/null || fail "'$BASE' was not found: install Python 3.10 or later, or set PYTHON="
  "$BASE" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "Python 3.10 or later is needed, but '$BASE' is $("$BASE" -V 2>&1); set PYTHON="
  "$BASE" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "'$BASE' cannot make virtual environments: install its venv package (on Debian and Ubuntu: python3-venv)"
  "$BASE" -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' ||
    fail "the headers of '$BASE' are missing: install its development package (on Debian and Ubuntu: python3-dev)"
  command -v "${CXX:-g++}" >/dev/null || fail "'${CXX:-g++}' was not found: install g++ 9 or later, or set CXX="
}

make_venv() {
  check_tools
  echo "recsparse: setting up $VENV from $("$BASE" -V)"
  rm -rf "$VENV"
  "$BASE" -m venv "$VENV"
  # Searched after .venv's own packages. Unlike --system-site-packages this also works when BASE is itself a venv.
  if has_torch "$BASE"; then
    "$BASE" -c 'import sys; print(*(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))), sep="\n")' \
      >"$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base-packages.pth"
  fi
}

install_torch() {
  has_torch "$PY" && return
  if nvidia-smi -L >/dev/null 2>&1; then
    "$PY" -m pip install --disable-pip-version-check torch
  else
    "$PY" -m pip install --disable-pip-version-check torch==2.13.0
  fi
  has_torch "$PY" || fail "torch was installed in $VENV but does not import: try \`$PY -c 'import torch'\`"
}

install_package() {
  local pip=("$PY" -m pip install --quiet --disable-pip-version-check)
  "${pip[@]}" "pip>=22.3" "setuptools>=77" wheel ninja "pybind11>=2.12" numpy
  # Outside pip first: it would hide the compiler's messages until the end.
  build_native
  "${pip[@]}" --no-build-isolation -e ".${EXTRAS:+[$EXTRAS]}"
}

build_native() {
  "$PY" setup.py --quiet build_ext --inplace
  native_stamp >"$VENV/.stamp-native"
}

mkdir -p build
exec 9>build/.bootstrap.lock
flock 9

"$PY" -c '' 2>/dev/null || make_venv
ENVIRONMENT_STAMP=$VENV/.stamp-environment-${EXTRAS:-base}
if [ "$(cat "$ENVIRONMENT_STAMP" 2>/dev/null)" != "$(environment_stamp)" ]; then
  install_torch
  install_package
  environment_stamp >"$ENVIRONMENT_STAMP"
elif [ "$(cat "$VENV/.stamp-native" 2>/dev/null)" != "$(native_stamp)" ]; then
  build_native
fi
