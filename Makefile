# Everything runs in .venv, which uv makes from requirements.lock. uv itself is installed there if the
# machine has none.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)
STAMP := .venv/.installed

.PHONY: help demo up down test test-unit test-faults test-attacks test-clients test-containers test-kubernetes test-memory test-corpus test-monitoring test-wheel soak bench lint audit docs docs-site docs-serve format lock release

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Upload pictures to a real MinIO and watch them become renditions
	@$(BIN)/resize-pipeline demo

up: $(STAMP) ## Start Kafka, MinIO and Dagster and keep them running (Ctrl-C stops)
	@$(BIN)/resize-pipeline up

down: $(STAMP) ## Stop what `make up` started
	@$(BIN)/resize-pipeline down

test: test-unit lint ## Run all tests, on a real Kafka and a real MinIO
	$(BIN)/pytest --numprocesses auto tests/dagster tests/fidelity
	$(BIN)/pytest --numprocesses 2 --dist loadfile --ignore tests/unit --ignore tests/dagster --ignore tests/fidelity

test-unit: $(STAMP) ## Run the tests that need no server, in under a minute
	$(BIN)/pytest --numprocesses auto tests/unit

test-faults: $(STAMP) ## Break a real stack in every known way and check that nothing is lost
	$(BIN)/pytest -m faults tests/faults

test-attacks: $(STAMP) ## Attack a running pipeline: UI, messages, pictures, children, servers
	$(BIN)/pytest -m attacks tests/attacks

test-clients: $(STAMP) ## Upload with boto3, aws, rclone and s3cmd, and to two pipelines at once
	@sh tests/clients/install.sh $(UV) .local/clients
	$(BIN)/pytest -m clients tests/clients

test-containers: $(STAMP) ## Build the image, bring the compose file up, and kill each service (root, Debian)
	@sh tests/containers/install.sh $(UV) .local/containers
	CONTAINERS_BIN=$(CURDIR)/.local/containers/bin $(BIN)/pytest -m containers tests/containers

KUBERNETES_PACKAGES := podman:podman runc:runc debootstrap:debootstrap iptables:iptables catatonit:catatonit \
  netavark:/usr/lib/podman/netavark etcd-server:etcd kubernetes-client:kubectl containerd:containerd \
  containernetworking-plugins:/usr/lib/cni/bridge
test-kubernetes: $(STAMP) ## Run the manifests on a real Kubernetes, and kill its pods (root, Debian, Go)
	@sh tests/containers/packages.sh $(KUBERNETES_PACKAGES)
	$(BIN)/pytest -m kubernetes tests/kubernetes

test-memory: $(STAMP) ## Watch with Valgrind that the resampler stays inside the memory of images
	$(BIN)/pytest -m memory tests/memory

test-corpus: $(STAMP) ## Compare some 800 pictures of other packages' source archives with libvips
	$(BIN)/pytest -m corpus tests/corpus

test-wheel: $(STAMP) ## Run the demonstration from a wheel in an empty environment
	$(BIN)/pytest -m wheel tests/wheel

test-monitoring: $(STAMP) ## Build promtool and Prometheus, and run rules and queries on them
	$(BIN)/pytest -m monitoring tests/monitoring

MINUTES ?= 20
SEED ?= 1
soak: $(STAMP) ## Change objects for MINUTES=20 while everything is killed in turn, and count
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --seed $(SEED)

bench: $(STAMP) ## Measure rendering, planning, a backlog and latency side by side, in 40 minutes
	@$(BIN)/python -m benchmarks

lint: $(STAMP) ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

audit: $(STAMP) ## Ask for known vulnerabilities of every pinned dependency
	@$(BIN)/python .ci/audit.py $(UV)

docs: $(STAMP) ## Generate docs/settings.md and docs/api.md from the code
	$(BIN)/python .ci/settings_doc.py
	$(BIN)/python .ci/api_doc.py

docs-site: $(STAMP) ## Build the documentation as a site in .local/site/html, with its links checked
	@$(BIN)/python .ci/docs_site.py build

docs-serve: $(STAMP) ## Serve the documentation at http://127.0.0.1:8000
	@$(BIN)/python .ci/docs_site.py serve

release: $(STAMP) ## Release VERSION=X.Y.Z from a clean main: test, commit, tag and build; uploads nothing
	@$(BIN)/python .ci/release.py check "$(VERSION)"
	$(MAKE) test test-wheel audit
	@$(BIN)/python .ci/release.py make "$(VERSION)"

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(STAMP) ## Pin the newest allowed versions of all dependencies
	$(UV) pip compile --quiet --universal --generate-hashes --upgrade --all-extras --group dev \
	  --no-emit-index-url --no-emit-find-links --output-file requirements.lock pyproject.toml

# Bytecode is compiled once: with PYTHONDONTWRITEBYTECODE each of Dagster's processes would compile it at
# every start. Dagster's own commands find the instance by .env, so make creates one at once.
$(STAMP): pyproject.toml requirements.lock .env.example
	@$(PYTHON) -c 'import sys; sys.exit("resize_pipeline needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": set PYTHON to a newer one" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null 2>&1 || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@echo "installing dependencies into .venv"
	@VIRTUAL_ENV=.venv $(UV) pip install --quiet --compile-bytecode --require-hashes --requirement requirements.lock
	@VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --editable .
	@umask 077 && mkdir -p .local && { test -e .env || sed 's#$${PWD}#$(CURDIR)#' .env.example > .env; }
	@touch $@
