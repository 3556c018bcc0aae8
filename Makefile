# Every target works from a fresh clone: it makes .venv where no virtual environment is active.
# Choose another with `make VENV=/path test`, another Python with `make PYTHON=python3.12 install`.

VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
JOBS ?= 2
DEMO_OUT ?= demo-out

# The first Python that is new enough and can make virtual environments.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)

PACKAGES := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml examples/simmat-plugin-*/pyproject.toml))
# Extras of plugins that their tests need.
EXTRAS_simmat-plugin-depth := [exr]
EXTRAS_simmat-plugin-thermal := [flir]
STAMP := $(VENV)/.simmat-installed

.PHONY: install lint test test-slow demo docs clean

install: $(STAMP)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer with venv found (Debian: apt-get install python3-venv)"; exit 2; }
	$(PYTHON) -m venv "$(VENV)"

$(STAMP): pyproject.toml $(addsuffix /pyproject.toml,$(PACKAGES)) | $(BIN)/python
	"$(BIN)/python" -m pip install --disable-pip-version-check -e '.[dev]' \
		$(foreach package,$(PACKAGES),-e './$(package)$(EXTRAS_$(notdir $(package)))')
	@touch "$@"

lint: install
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/mypy" $(wildcard plugins/*/src examples/*/src)
	"$(BIN)/lint-imports"

test: install
	"$(BIN)/python" -m pytest -n $(JOBS)

test-slow: install
	"$(BIN)/python" -m pytest -m slow -n $(JOBS)

demo: install
	"$(BIN)/python" examples/demo.py --out "$(DEMO_OUT)"

docs: install
	"$(BIN)/python" -m pip install --disable-pip-version-check --quiet -e '.[docs]'
	"$(BIN)/mkdocs" build --strict

clean:
	rm -rf build dist site $(DEMO_OUT) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -rf plugins/*/build examples/*/build
