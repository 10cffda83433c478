# Needs Python 3.11 or later with venv and pip, and nothing else. See CONTRIBUTING.md.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin

.PHONY: test test-long check format demo venv lock clean
.DEFAULT_GOAL := test

test: check
	$(BIN)/python -m pytest

test-long: venv
	$(BIN)/python -m pytest -m long

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: venv
	$(BIN)/modelwarden demo

venv: $(VENV)/.installed

# The exact packages of the lock: made anew when the lock changes.
$(VENV)/.locked: requirements.lock
	@test -n "$(PYTHON)" || { echo "no python3 on the PATH: install Python 3.11 or later" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than Python 3.11: say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

# This tree, editable; hatchling comes from the lock, so nothing unlocked is fetched.
$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Newest versions that pyproject.toml allows. Needs uv (https://docs.astral.sh/uv/).
lock:
	$(UV) pip compile pyproject.toml --upgrade --universal --python-version 3.11 --generate-hashes \
	  --extra dev --extra fast --extra postgres --extra demo \
	  --no-header --no-emit-index-url --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .grimp_cache .hypothesis
