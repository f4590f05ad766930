#!/usr/bin/env bash
# Everything there is to do on a machine with an NVIDIA GPU, in under nine minutes and without a network:
# build with CUDA, stream order, bandwidth ceilings, every op against its peers, a table of 1e9 rows trained,
# `pytest -m gpu`, compute-sanitizer.
#
#   bench/gpu_check.sh            results in $OUT (default ./out): summary.json, summary.md, a log for each stage, and
#                                 bench-OP.json, which `recsparse bench report` and `compare` read
#
# PYTHON names an interpreter with a CUDA build of torch (default: .venv's if there, else python3); its packages are used
# as they are. Each stage has a time limit and all together SECONDS_LEFT (default 525); one that fails does not stop the
# next, and what is stopped half-way leaves what it had. Exit status: 0 all stages passed, 1 some failed, 2 nothing could
# be done.
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
  local name=$1 limit=$2 start=$SECONDS status=passed rc left=$((DEADLINE - SECONDS))
  shift 2
  if [ "$left" -lt 10 ]; then
    echo "no time was left for it" >"$OUT/$name.log"
    printf '%s\tskipped\t0\n' "$name" >>"$OUT/stages.tsv"
    return
  fi
  [ "$limit" -le "$left" ] || limit=$left
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
  "$PY" -m pytest -q -m gpu --ignore=tests/test_triton.py
  local rc=$?
  [ $rc -eq 5 ] && echo "no test is marked gpu" && return 77
  return $rc
}

# Ours of both backends against the peers. Rows reach the file after each op.
bench() { "$PY" -m recsparse bench run --device cuda --op "$1" --budget 4 --json "$OUT/bench-$1.json"; }

# 1e9 rows x 64 with a tenth of the weights, generated ids, one mask update; no checkpoint, which would be 90 GB.
billion() {
  "$PY" -m recsparse train --data.path billion --data.eval_users 64 --device cuda --policy.name dsl \
    --policy.density 0.1 --policy.dsl.mode fresh --policy.dsl.every "0.5 epochs" --train.epochs 1 --train.epoch_draws 200000000 \
    --train.batch_size 65536 --train.checkpoint false --run.folder "$OUT" --run.name billion
}

rm -f "$OUT"/stages.tsv "$OUT"/bench-*.json
rm -rf "$OUT/billion"
PY=build/gpu-venv/bin/python
DEADLINE=$((SECONDS + ${SECONDS_LEFT:-525}))
export OUT PY BASE PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export -f environment build sanitizer gpu_tests bench billion

stage build 200 bash -c build
stage environment 20 bash -c environment
stage stream 30 "$PY" bench/gpu_check.py stream
stage smoke 30 "$PY" bench/gpu_check.py smoke
stage ceilings 30 "$PY" bench/gpu_check.py ceilings
for op in lookup bpr_step adam select prune_regrow spmm rank lightgcn_step rows_step lookup_bag sample pack soft_threshold; do
  stage "bench-$op" 45 bash -c "bench $op"
done
stage billion 120 bash -c billion
stage tests 150 bash -c gpu_tests
stage triton 120 "$PY" -m pytest -q -m gpu tests/test_triton.py
stage sanitizer 90 bash -c sanitizer
timeout 30 "$PY" bench/gpu_check.py summary --out "$OUT"
rc=$?
rm -f "$OUT/stages.tsv"
exit $rc
