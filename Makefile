# make run    builds the environment and runs the main job on the embedded digits
# make test   builds the environment and passes the tests
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
# Two tests at a time, a thread each: more would wait for each other.
ALONE   = OMP_NUM_THREADS=1

.PHONY: run test unit integration lint clean

run: $(VENV)/installed
	$(BIN)/platform run recipes/digits.yaml

test: unit integration

unit: $(VENV)/installed
	$(ALONE) $(BIN)/pytest -q -n 2 --dist worksteal tests/unit tests/recipes

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

clean:
	rm -rf $(VENV)
