# make setup | demo | test | soak | lint | bench | bench-gpu | plot | picture | docs | wheel | wheel-check | test-floor: each works as the first command in a fresh clone.
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
STAMP := $(VENV)/.setup-done
SOURCES := pyproject.toml setup.py requirements.lock $(wildcard csrc/*)
PYTEST := $(BIN)/python -m pytest
# Two processes; their OpenMP threads sleep while they wait, or they would take the cores from one another.
# Files in the order of tests/conftest.py, slow ones first; pytest-xdist's own order has files of few tests last.
PARALLEL := OMP_WAIT_POLICY=passive $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder

# Setup keeps the bytecode of these, whatever PYTHONDONTWRITEBYTECODE says: a process imports PyHealth in 8 s, not in 18.
COMPILED := captum.attr, distributed, hypothesis, matplotlib.pyplot, pyarrow.dataset, pyhealth.datasets, \
    pyhealth.interpret.methods, pyhealth.models, pytest, scipy.stats, sklearn.ensemble, torch._inductor, xdist

.PHONY: setup demo test soak lint format bench bench-gpu plot picture docs wheel wheel-check test-floor lock clean

setup: $(STAMP)

$(STAMP): $(SOURCES) | $(BIN)/uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -W ignore -c "import $(COMPILED)"
	$(BIN)/deeplift-fast doctor
	touch $@

$(BIN)/uv:
	@for python in $(PYTHON) python3.12 python3.13 python3 python; do \
	    "$$python" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue; \
	    "$$python" -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv==$(UV_VERSION) && exit 0; \
	    echo "make: $$python could not make $(VENV) (on Debian: apt-get install python3-venv)" >&2; exit 1; \
	done; \
	echo "make: no Python 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1

demo: setup
	$(BIN)/deeplift-fast demo $(ARGS)

test: setup
	$(PARALLEL) tests --ignore=tests/ops/triton
	TRITON_INTERPRET=1 $(PARALLEL) tests/ops/triton -m triton
	$(PARALLEL) tests/ops/triton -m "not triton"

soak: setup
	nice env $(PARALLEL) tests/faults --soak $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror csrc/*.cpp csrc/*.h
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i csrc/*.cpp csrc/*.h

bench: setup
	mkdir -p benchmarks/results
	$(PYTEST) benchmarks --benchmark-json=benchmarks/results/latest.json $(ARGS)

# Without make setup, a Python with torch, Triton and a GPU suffices: a machine with a GPU may have no package registry.
BARE := $(or $(PYTHON),python3)
bench-gpu:
	@if [ ! -e $(STAMP) ] && $(BARE) -c 'import torch, triton; assert torch.cuda.is_available()' 2>/dev/null; then \
	    $(BARE) benchmarks/gpu.py $(ARGS); \
	else \
	    $(MAKE) --no-print-directory setup && $(BIN)/python benchmarks/gpu.py $(ARGS); \
	fi

plot: setup
	$(BIN)/python benchmarks/plot.py

picture: setup
	$(BIN)/python benchmarks/timeline_picture.py

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

wheel: setup
	PYTHON= .ci/wheel dist

wheel-check: setup
	.ci/wheel-check

test-floor: setup
	.ci/test-floor $(ARGS)

lock: $(BIN)/uv
	$(BIN)/uv pip compile --universal --no-emit-index-url --no-header --python-version 3.12 \
	    --all-extras pyproject.toml -c constraints.txt -o requirements.lock

clean:
	rm -rf build dist *.egg-info deeplift_fast/*.so
