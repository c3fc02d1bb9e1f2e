# Set-up, tests, lint and the demo. Everything lives in $(VENV); a second call reuses what is there.
#   make demo            generate data, train, evaluate and draw on the CPU
#   make test            the whole test-suite (no GPU, no network after set-up, no dataset)
#   make setup           only the environment;  PYTHON=python3.12 or VENV=/path choose others
#   FORCE_CUDA=1 make setup   build the CUDA operators too (needs the CUDA toolkit of your torch)
#   make gpu-check       on a GPU machine without network: build, test, sanitize and time the CUDA rasteriser with $(PYTHON)
PYTHON ?= python3
VENV ?= .venv
MAX_JOBS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
EXTENSION := extensions/diff-gaussian-rasterization
EXTENSION_SOURCES := $(wildcard $(EXTENSION)/setup.py $(EXTENSION)/pyproject.toml $(EXTENSION)/csrc/*)
MMCV := mmcv==2.1.0
HAS_OPS := $(BIN)/python -c "import mmcv.ops; from mmcv.ops import ModulatedDeformConv2d"

.PHONY: setup test gpu-check demo lint format clean
setup: $(VENV)/.installed

$(VENV)/.created:
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 10) <= v <= (3, 12) else 'Python 3.10, 3.11 or 3.12 is needed, %s is %d.%d; use make PYTHON=python3.11' % ('$(PYTHON)', *v))"
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.locked: requirements/lock.txt | $(VENV)/.created
	$(PIP) install -q --no-deps -r requirements/lock.txt
	@touch $@

# mmcv has no wheel for this torch: it is compiled (8 to 11 minutes on two cores), and pip keeps the wheel in its cache.
# A cached wheel without operators, or for another torch, fails the check and is compiled again.
$(VENV)/.mmcv: $(VENV)/.locked
	@echo "Building $(MMCV) with its operators: about ten minutes on two cores the first time, seconds from pip's cache"
	MMCV_WITH_OPS=1 MAX_JOBS=$(MAX_JOBS) $(PIP) install -q --no-deps --no-build-isolation $(MMCV)
	@$(HAS_OPS) 2>/dev/null || MMCV_WITH_OPS=1 MAX_JOBS=$(MAX_JOBS) \
	  $(PIP) install -q --no-deps --no-build-isolation --no-cache-dir --force-reinstall $(MMCV)
	@$(HAS_OPS) || { echo "mmcv was built without its operators: is a C++ compiler installed?"; exit 1; }
	@touch $@

$(VENV)/.extension: $(EXTENSION_SOURCES) $(VENV)/.locked
	MAX_JOBS=$(MAX_JOBS) $(PIP) install -q --no-deps --no-build-isolation -e $(EXTENSION)
	@touch $@

$(VENV)/.installed: setup.py pyproject.toml $(VENV)/.mmcv $(VENV)/.extension
	$(PIP) install -q --no-deps --no-build-isolation -e .
	$(BIN)/python tools/check_install.py
	@touch $@

$(VENV)/.lint: requirements/lint.txt | $(VENV)/.created
	$(PIP) install -q --no-deps -r requirements/lint.txt
	@touch $@

test: setup
	$(BIN)/python -m pytest

# Builds into $(GPU_BUILD), not into the source tree, with a Python that has torch, numpy and pytest (matplotlib draws the timings).
GPU_BUILD := build/gpu-check
gpu-check: export PYTHONPATH := $(abspath $(GPU_BUILD))
gpu-check:
	cd $(EXTENSION) && FORCE_CUDA=1 MAX_JOBS=$(MAX_JOBS) $(PYTHON) setup.py build_ext \
	  --build-lib $(abspath $(GPU_BUILD)) --build-temp $(abspath $(GPU_BUILD))/objects
	cp $(EXTENSION)/gaussian_rasterization/*.py $(GPU_BUILD)/gaussian_rasterization/
	$(PYTHON) -c "import torch, gaussian_rasterization as g; print(g.build_config()); assert g.build_config()['cuda'] and torch.cuda.is_available()"
	cd $(EXTENSION) && $(PYTHON) -m pytest --import-mode=importlib -ra -m cuda tests
	@if command -v compute-sanitizer > /dev/null; then \
	  for tool in memcheck racecheck synccheck; do \
	    compute-sanitizer --tool $$tool --error-exitcode 1 $(PYTHON) $(EXTENSION)/tests/fuzz.py --backend cuda --scenes 15 || exit 1; \
	  done; \
	else echo "compute-sanitizer is not installed: skipped"; fi
	$(PYTHON) $(EXTENSION)/tests/fuzz.py --backend cuda --seconds 30
	mkdir -p docs/benchmarks
	$(PYTHON) $(EXTENSION)/benchmarks/bm_rasterize.py --backend cuda --threads 1 --out docs/benchmarks/rasterizer_cuda

demo: setup
	$(BIN)/python tools/demo.py

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@files=$$(git ls-files '*.cpp' '*.cu' '*.cuh' '*.h'); [ -z "$$files" ] || $(BIN)/clang-format --dry-run --Werror $$files

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@files=$$(git ls-files '*.cpp' '*.cu' '*.cuh' '*.h'); [ -z "$$files" ] || $(BIN)/clang-format -i $$files

clean:
	rm -rf $(VENV) build *.egg-info $(EXTENSION)/build $(EXTENSION)/*.egg-info
	find . -name '__pycache__' -prune -exec rm -rf {} +
