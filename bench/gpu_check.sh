#!/usr/bin/env bash
# Everything there is to do on a machine with an NVIDIA GPU, in under nine minutes and without a network:
# build with CUDA, stream order, bandwidth ceilings, compute-sanitizer, `pytest -m gpu`.
#
#   bench/gpu_check.sh            results in $OUT (default ./out): summary.json, summary.md, a log for each stage
#
# PYTHON names an interpreter with a CUDA build of torch (default: .venv's if there, else python3); its packages are used
# as they are. Each stage has a time limit; one that fails does not stop the next. Exit status: 0 all stages passed,
# 1 some failed, 2 nothing could be done.
set -uo pipefail
cd "$(dirname "$0")/.."

OUT=${OUT:-out}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
BASE=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

give_up() {
  echo "gpu_check: $*" >&2
  exit 2
}

nvidia-smi -L >/dev/null 2>&1 || give_up "no NVIDIA GPU: \`nvidia-smi -L\` fails"
"$BASE" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
  give_up "'$BASE' has no torch that sees the GPU: set PYTHON= to an interpreter with a CUDA build of torch"

# stage NAME LIMIT_SECONDS COMMAND...; status 77 means skipped, the log says why.
stage() {
  local name=$1 limit=$2 start=$SECONDS status=passed rc
  shift 2
  echo "gpu_check: $name (at most $limit s)"
  timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1
  rc=$?
  case $rc in
    0) ;;
    77) status=skipped ;;
    124 | 137) status=failed && echo "stopped after $limit s" >>"$OUT/$name.log" ;;
    *) status=failed ;;
  esac
  printf '%s\t%s\t%s\n' "$name" "$status" "$((SECONDS - start))" >>"$OUT/stages.tsv"
  [ "$status" = passed ] || { echo "gpu_check: $name $status:" && tail -n 3 "$OUT/$name.log"; }
}

environment() {
  nvidia-smi
  nvcc --version || /usr/local/cuda/bin/nvcc --version
  "$PY" -V
  "$PY" -c 'import torch; print("torch", torch.__version__, torch.version.cuda)'
}

# An editable install in an environment of its own, that sees the packages of BASE and leaves them alone.
build() {
  "$BASE" -m venv --without-pip build/gpu-venv || return 1
  "$BASE" -c 'import sys; print(*(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))), sep="\n")' \
    >"$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base-packages.pth"
  export RECSPARSE_CUDA=1
  RECSPARSE_CUDA_ARCH=${RECSPARSE_CUDA_ARCH:-$("$PY" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')}
  export RECSPARSE_CUDA_ARCH
  "$PY" setup.py build_ext --inplace || return 1
  "$PY" -m pip install --no-build-isolation --no-deps --no-index -e . ||
    echo "the editable install failed: recsparse is used from the source tree, without recsparse.bench"
}

sanitizer() {
  local tool
  tool=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  [ -x "$tool" ] || { echo "compute-sanitizer was not found" && return 77; }
  "$tool" --tool memcheck --error-exitcode 86 "$PY" bench/gpu_check.py smoke &&
    "$tool" --tool racecheck --error-exitcode 86 "$PY" bench/gpu_check.py smoke
  local rc=$?
  # It cannot attach where the driver is virtualised; that says nothing about our kernels.
  if [ $rc -ne 0 ] && [ $rc -ne 86 ] && "$PY" bench/gpu_check.py smoke; then
    echo "compute-sanitizer does not work with this driver" && return 77
  fi
  return $rc
}

gpu_tests() {
  "$PY" -m pytest -m gpu
  local rc=$?
  [ $rc -eq 5 ] && echo "no test is marked gpu" && return 77
  return $rc
}

rm -f "$OUT/stages.tsv"
PY=build/gpu-venv/bin/python
export PY BASE PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export -f environment build sanitizer gpu_tests

stage build 180 bash -c build
stage environment 20 bash -c environment
stage stream 40 "$PY" bench/gpu_check.py stream
stage ceilings 90 "$PY" bench/gpu_check.py ceilings
stage sanitizer 90 bash -c sanitizer
stage tests 150 bash -c gpu_tests
timeout 30 "$PY" bench/gpu_check.py summary --out "$OUT"
rc=$?
rm -f "$OUT/stages.tsv"
exit $rc
