# Set-up, tests, lint and the demo. Everything lives in $(VENV); a second call reuses what is there.
#   make demo            generate data, train, evaluate and draw on the CPU
#   make test            the whole test-suite (no GPU, no network after set-up, no dataset)
#   make setup           only the environment;  PYTHON=python3.12 or VENV=/path choose others
#   make setup TORCH=2.14.1   another torch than the pinned one (docs/installation.md says which were tried)
#   FORCE_CUDA=1 make setup   build the CUDA operators too (needs the CUDA toolkit of your torch)
#   make gpu-check       on a GPU machine without network: build, test, check and time the CUDA rasteriser with $(PYTHON);
#                        or one step of it: make gpu-test
PYTHON ?= python3
VENV ?= .venv
MAX_JOBS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
EXTENSION := extensions/diff-gaussian-rasterization
EXTENSION_SOURCES := $(wildcard $(EXTENSION)/setup.py $(EXTENSION)/pyproject.toml $(EXTENSION)/csrc/*)
MMCV := mmcv==2.1.0
TORCH ?=
ifeq ($(origin CXX),default)
CXX := c++
endif
LOCKED := $(VENV)/.locked$(addprefix -,$(TORCH))
# an operator must run: one that was compiled for another torch imports, and fails only when it is called
HAS_OPS := $(BIN)/python -c "import torch; from mmcv.ops import ModulatedDeformConv2dPack as Layer; \
  Layer(2, 3, 3, padding=1)(torch.ones(1, 2, 5, 5)).sum().backward()"
# mmcv asks for C++17 behind every other flag, the headers of torch 2.14 and later for C++20
CXX_OF_MMCV = $$($(BIN)/python -c "import torch; print('$(abspath $(BIN))/c++20' if tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 14) else '$(CXX)')")

.PHONY: setup test gpu-check demo lint format clean
setup: $(VENV)/.installed

$(VENV)/.created:
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 10) <= v <= (3, 12) else 'Python 3.10, 3.11 or 3.12 is needed, %s is %d.%d: the pinned numpy 1.26 has no wheels for others; \
  use make PYTHON=python3.11' % ('$(PYTHON)', *v))"
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(LOCKED): requirements/lock.txt | $(VENV)/.created
ifeq ($(TORCH),)
	$(PIP) install -q --no-deps -r requirements/lock.txt
else
	grep -vE '^(torch|torchvision|triton|nvidia-|cuda-)' requirements/lock.txt > $(VENV)/lock-without-torch.txt
	$(PIP) install -q --no-deps -r $(VENV)/lock-without-torch.txt
	$(PIP) install -q torch==$(TORCH) torchvision
endif
	@printf '#!/bin/sh\nexec $(CXX) "$$@" -std=c++20\n' > $(BIN)/c++20 && chmod +x $(BIN)/c++20
	@touch $@

# mmcv has no wheel for this torch: it is compiled (8 to 11 minutes on two cores), and pip keeps the wheel in its cache.
# A cached wheel without operators, or for another torch, fails the check and is compiled again.
$(VENV)/.mmcv: $(LOCKED)
	@echo "Building $(MMCV) with its operators: about ten minutes on two cores the first time, seconds from pip's cache"
	CXX="$(CXX_OF_MMCV)" MMCV_WITH_OPS=1 MAX_JOBS=$(MAX_JOBS) $(PIP) install -q --no-deps --no-build-isolation $(MMCV)
	@$(HAS_OPS) 2>/dev/null || CXX="$(CXX_OF_MMCV)" MMCV_WITH_OPS=1 MAX_JOBS=$(MAX_JOBS) \
	  $(PIP) install -q --no-deps --no-build-isolation --no-cache-dir --force-reinstall $(MMCV)
	@$(HAS_OPS) || { echo "the operators of mmcv do not run: is a C++ compiler installed? (torch 2.14 needs one that knows C++20)"; exit 1; }
	@touch $@

$(VENV)/.extension: $(EXTENSION_SOURCES) $(LOCKED)
	MAX_JOBS=$(MAX_JOBS) $(PIP) install -q --no-deps --no-build-isolation -e $(EXTENSION)
	@touch $@

$(VENV)/.installed: setup.py pyproject.toml $(VENV)/.mmcv $(VENV)/.extension
	$(PIP) install -q --no-deps --no-build-isolation -e .
	$(BIN)/python tools/check_install.py
	@touch $@

$(VENV)/.lint: requirements/lint.txt | $(VENV)/.created
	$(PIP) install -q --no-deps -r requirements/lint.txt
	@touch $@

# TEST_JOBS=2 deals the files of tests to two processes of one thread each: faster, but some tests still meet what others leave behind.
TEST_JOBS ?= 0
test: setup
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile

# With a Python that has torch, numpy, pytest and matplotlib; builds into build/gpu-check, not into the source tree. Every step is
# limited, writes its result into $(OUT) and runs alone, too: make gpu-compare gpu-test ...; gpu-long: the long ones.
# make gpu-check REHEARSE=--rehearse runs all steps in small on a machine without a GPU.
OUT ?= docs/benchmarks
GPU_STEPS := build figures compare test profile nuscenes peers memcheck racecheck kitti360 fuzz long
GPU_CHECK = $(PYTHON) $(EXTENSION)/tests/gpu_check.py --out $(OUT) $(REHEARSE)
gpu-check:
	$(GPU_CHECK)
.PHONY: $(addprefix gpu-,$(GPU_STEPS))
$(addprefix gpu-,$(GPU_STEPS)): gpu-%:
	$(GPU_CHECK) $*

demo: setup
	$(BIN)/python tools/demo.py

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@files=$$(git ls-files '*.cpp' '*.cu' '*.cuh' '*.h' '*.inl'); [ -z "$$files" ] || $(BIN)/clang-format --dry-run --Werror $$files

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@files=$$(git ls-files '*.cpp' '*.cu' '*.cuh' '*.h' '*.inl'); [ -z "$$files" ] || $(BIN)/clang-format -i $$files

clean:
	rm -rf $(VENV) build *.egg-info $(EXTENSION)/build $(EXTENSION)/*.egg-info
	find . -name '__pycache__' -prune -exec rm -rf {} +
