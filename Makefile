# Needs python3 (3.11 or newer, with venv) and make; everything else goes into .venv.
#
#   make test   lint, format, types and tests: all that must pass
#   make demo   encode and decode the demo clip, and measure it
#   make benchmark CLIPS=DIR SMALL=DIR HD=DIR   the tables of docs/results/hybrid.md, anew: more than an hour

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo-out

.PHONY: setup test check lint types unit demo benchmark clean
.DEFAULT_GOAL := test
.DELETE_ON_ERROR:

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "nvcodec needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

test check: lint types unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# Two processes of one thread each; a file of tests stays in one of them.
unit: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

demo: $(READY)
	mkdir -p $(DEMO)
	$(BIN)/cwrv encode tests/data/bunny_demo.mkv -o $(DEMO)/bunny_demo.cwrv --bpp 0.15 --effort fast -y
	$(BIN)/cwrv decode $(DEMO)/bunny_demo.cwrv -o $(DEMO)/bunny_demo.mp4 -y
	$(BIN)/cwrv encode tests/data/bunny_demo.mkv -o $(DEMO)/bunny_cwrnn.cwrv --model cwrnn --bpp 0.15 --effort fast --frames 0:9 -y
	$(BIN)/cwrv decode $(DEMO)/bunny_cwrnn.cwrv -o $(DEMO)/bunny_cwrnn.mp4 -y
	@$(BIN)/python tools/measure.py $(DEMO)/bunny_demo.cwrv tests/data/bunny_demo.mkv
	@$(BIN)/python tools/measure.py $(DEMO)/bunny_cwrnn.cwrv tests/data/bunny_demo.mkv --frames 0:9
	@echo "decoded videos: $(DEMO)/bunny_demo.mp4 (hybrid), $(DEMO)/bunny_cwrnn.mp4 (cwrnn)"

# Folders of clips: CLIPS and HD for effort fast, SMALL for all three. What is finished in BENCHMARK is not computed again.
CLIPS ?= clips
SMALL ?= $(CLIPS)
HD ?= hd
BENCHMARK ?= benchmark-out
MEASURE := $(BIN)/python tools/benchmark.py --threads 1 --jobs 2 --anchors x264:medium,x265:medium,svtav1:4 \
	--update docs/results/hybrid.md

benchmark: $(READY)
	$(MEASURE) $(CLIPS) -o $(BENCHMARK)/fast --effort fast
	$(MEASURE) $(HD) -o $(BENCHMARK)/hd-fast --effort fast --bpp 0.01,0.02,0.04,0.08 --table hd-fast
	for effort in medium slow; do $(MEASURE) $(SMALL) -o $(BENCHMARK)/$$effort --effort $$effort || exit; done

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find nvcodec tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
