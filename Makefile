# Every target sets up what it needs: .venv, torch, the package and its native libraries (scripts/bootstrap.sh).
# PYTHON=python3.12 make run    chooses the interpreter
# PYTEST_ARGS="-k lookup"       is passed on to pytest by `make test`, which starts a process for each processor

BIN := .venv/bin
# Tools run as modules: they may come from the packages of the interpreter behind .venv, which has its own bin folder.
CLANG_FORMAT := $(BIN)/python -c 'from clang_format import clang_format as run; run()'
CXX_FILES = $(shell find csrc tests/cpp -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: run test build lint format bench-quick bench-peers sanitize clean

run:
	@scripts/bootstrap.sh plot
	@$(BIN)/recsparse demo

test:
	@scripts/bootstrap.sh plot test
	@OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

build:
	@scripts/bootstrap.sh

lint:
	@scripts/bootstrap.sh dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(CLANG_FORMAT) --dry-run -Werror $(CXX_FILES)
	$(BIN)/python -m mypy

format:
	@scripts/bootstrap.sh dev
	$(BIN)/python -m ruff check --fix-only .
	$(BIN)/python -m ruff format .
	$(CLANG_FORMAT) -i $(CXX_FILES)

bench-quick:
	@scripts/bootstrap.sh plot
	$(BIN)/recsparse bench run --quick --json out/bench-quick.json

# What cannot be installed is named, and left out of the benchmark.
bench-peers:
	@scripts/bootstrap.sh plot
	-$(BIN)/python scripts/bench_peers.py

# The kernels, without torch, under ASan + UBSan and under TSan, on every instruction set of this CPU.
sanitize:
	@scripts/bootstrap.sh
	$(BIN)/python scripts/sanitize.py

clean:
	rm -rf build .venv recsparse/*.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
