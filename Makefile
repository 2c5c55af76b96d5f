# make run    builds the environment and runs the main job on the embedded digits
# make test   builds the environment and passes the tests
PYTHON ?= python3
VENV   ?= .venv
LOWEST ?= .venv-lowest
BIN     = $(VENV)/bin
# Two tests at a time, a thread each: more would wait for each other.
ALONE   = OMP_NUM_THREADS=1

.PHONY: run test unit unit-lowest integration lint clean

run: $(VENV)/installed
	$(BIN)/platform run recipes/digits.yaml

test: unit integration

unit: $(VENV)/installed
	$(ALONE) $(BIN)/pytest -q -n 2 --dist worksteal tests/unit tests/recipes

# The unit tests with the lowest version of each requirement of pyproject.toml. After a requirement changed, choose the versions again:
# remove constraints-lowest.txt, and run the command in its first lines (pip install uv). All of it takes about 310 s of processor time:
# 125 s to install, 190 s for the tests.
unit-lowest: $(LOWEST)/installed
	$(ALONE) $(LOWEST)/bin/pytest -q -n 2 --dist worksteal -m "not exact_versions" tests/unit tests/recipes

integration: $(VENV)/installed
	$(ALONE) $(BIN)/pytest -q -n 2 --dist loadfile tests/integration

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/yamllint --strict docker recipes
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml docker/compose.gpu.yaml

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,postgres]'
	touch $@

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[dev,postgres]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST)
