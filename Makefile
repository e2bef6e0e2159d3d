# What can be done with a checkout; CI runs the same targets. Needs Python 3.11+, and Java 17+ and Maven for Kafka.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON := .venv/bin/python
TOOLS := .venv/bin/ruff
# Further arguments: make test ARGS="tests/unit -k settings"
ARGS ?=

.PHONY: help install test bench chaos containers lint types layers audit format migrate pins clean

help: ## Show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -nE 's/^([a-z]+):.*## (.*)/  make \1   \2/p' $(MAKEFILE_LIST)

install: ## Install what is missing: Python packages, Kafka, the model, and what the tests need
	@source stack/find-python.sh; "$$python" -m stack install --dev

test: install ## Run all tests, on real parts on free ports, beside a running system
	@$(PYTHON) -m pytest $(ARGS)

# make chaos RUNS=10 SEED=7 BACKLOG=1000000; one test alone: make chaos ARGS="-k bridges"
CHAOS_OPTIONS = $(foreach name,SEED RUNS RECORDS BACKLOG AWAY,$(if $($(name)),--$(shell tr A-Z a-z <<<$(name))=$($(name))))

chaos: install ## Break every part under load, for a quarter of an hour: RUNS=, SEED=, BACKLOG=
	@$(PYTHON) -m pytest tests/chaos -m chaos -s $(CHAOS_OPTIONS) $(ARGS)

bench: install ## Measure it beside what people would use instead; ARGS="throughput --quick" is one case, small
	@$(PYTHON) -m benchmarks $(ARGS)

containers: install ## Build and run everything in containers, crash them, scale them: needs docker compose
	@$(PYTHON) -m pytest tests/e2e/test_containers.py -m containers $(ARGS)

lint: $(TOOLS) ## Check the code's style
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: $(TOOLS) ## Check the types
	@.venv/bin/mypy

layers: $(TOOLS) ## Check that imports go one way
	@.venv/bin/lint-imports

audit: $(TOOLS) ## Ask whether a pinned package has a known vulnerability
	@$(PYTHON) .ci/audit.py

format: $(TOOLS) ## Format the code, and mend what can be mended
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

migrate: $(TOOLS) ## Bring the database of the settings to the latest schema
	@$(PYTHON) -m db upgrade

# pip in hash mode wants confluent-kafka with its extras; a file used as constraints (-c) must not have any.
pins: $(TOOLS) ## Update all pinned Python packages to the latest versions that the *.in files allow
	@for name in requirements requirements-otel requirements-dev stack/kafka-ui-requirements; do \
		extras=--strip-extras; \
		case $$name in stack/*) extras=--no-strip-extras;; esac; \
		env -u PIP_FIND_LINKS CUSTOM_COMPILE_COMMAND="make pins" $(PYTHON) -m piptools compile --quiet --upgrade \
			--generate-hashes --allow-unsafe $$extras --no-emit-index-url --no-emit-find-links \
			--no-emit-trusted-host --no-emit-options --output-file $$name.txt $$name.in; \
	done

clean: ## Remove what the tools have cached; what is installed, and all data, stays
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -path ./.local -prune -o -name __pycache__ -type d -print0 | xargs -0r rm -rf

$(TOOLS):
	@$(MAKE) install
