# Every target works from a fresh clone: it makes .venv where no virtual environment is active.
# Choose another with `make VENV=/path test`, another Python with `make PYTHON=python3.12 install`.

VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
JOBS ?= 2
DEMO_OUT ?= demo-out
# The environments of test-lowest, made anew each time.
LOWEST ?= .venv-lowest
LOWEST_PYTHON ?= python3.11
# The environment of test-newest, made anew each time.
NEWEST ?= .venv-newest
# The environment of test-napari, made anew each time.
NAPARI ?= .venv-napari

# The first Python that is new enough and can make virtual environments.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14 python; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)

PACKAGES := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml examples/simmat-plugin-*/pyproject.toml))
# The checks for plugins and the model `tiny`, which all tests use, and what they need.
KIT := $(addprefix plugins/simmat-,plugin-baselines plugin-scenes testing)
# Extras of plugins that their tests need.
EXTRAS_simmat-plugin-annotate := [dev]
EXTRAS_simmat-plugin-depth := [exr]
EXTRAS_simmat-plugin-lite := [pretrain]
EXTRAS_simmat-plugin-microscopy := [all]
EXTRAS_simmat-plugin-sequences := [all]
editable = $(foreach package,$(1),-e './$(package)$(EXTRAS_$(notdir $(package)))')
named = $(foreach package,$(1),'$(notdir $(package))$(EXTRAS_$(notdir $(package)))')
CORE := -e '.[dev]'
CORE_ALL := -e '.[dev,docs,wandb]'
# These need newer libraries than the core's lower bounds allow: they are run in an environment of their own.
APART := $(patsubst %,plugins/simmat-plugin-%,timm transformers)
PYPROJECTS := pyproject.toml $(addsuffix /pyproject.toml,$(PACKAGES))
STAMP := $(VENV)/.simmat-installed
DEMO_STAMP := $(VENV)/.simmat-demo-installed

.PHONY: install page lint test test-slow test-lowest test-newest test-napari qgis test-qgis release bump smoke smoke-newest fuzz kill demo \
	docs clean

install: $(STAMP)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer with venv found (Debian: apt-get install python3-venv)"; exit 2; }
	$(PYTHON) -m venv "$(VENV)"

$(STAMP): install.py $(PYPROJECTS) | $(BIN)/python
	"$(BIN)/python" install.py --editable --uv 'simmat[dev]' $(call named,$(PACKAGES))
	@touch "$@" "$(DEMO_STAMP)"

# The part of it that the demo needs. Compiling every module of torch would take longer than compiling those in use.
$(DEMO_STAMP): install.py $(PYPROJECTS) | $(BIN)/python
	@echo "Installing SimMAT and what the demo needs into $(VENV): 360 MB to download"
	"$(BIN)/python" install.py --editable --uv --no-compile multispectral
	@touch "$@"

# The core, and the plugins that start processes, once more as on Windows: what of Python's library is for POSIX alone.
lint: install
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/mypy" $(wildcard plugins/*/src plugins/*/pretraining plugins/*/conversion examples/*/src)
	"$(BIN)/mypy" --platform win32 --cache-dir .mypy_cache/win32 simmat $(patsubst %,plugins/simmat-plugin-%/src,annotate bench)
	"$(BIN)/lint-imports"

# The tests of a file share what it trains, so they are run by one process.
test: install
	"$(BIN)/python" -m pytest -n $(JOBS) --dist loadfile

test-slow: install
	"$(BIN)/python" -m pytest -m slow -n $(JOBS)

# Make an environment $(1) of the Python $(2) with uv, and install $(3) into it; what the packages in the folders $(4) need
# directly, at its lower bound.
define fresh
	"$(BIN)/python" -m pip install --disable-pip-version-check --quiet packaging uv
	"$(BIN)/uv" venv --quiet --clear --python "$(2)" "$(1)"
	sed -n 's/^requires = \["\(.*\)>=\(.*\)"\]/\1==\2/p' pyproject.toml > "$(1)/lowest-build.txt"
	"$(BIN)/python" .ci/lowest_bounds.py $(4) > "$(1)/lowest.txt"
	"$(BIN)/uv" pip install --quiet --compile-bytecode --python "$(1)" --constraints "$(1)/lowest.txt" $(3)
endef

# Every direct dependency, those of the build too, at its lower bound.
# uv takes PyPI's torch of that version, on x86-64 a CUDA build of 3 GB, which runs without a GPU.
# The readers of microscopes' files need numpy 2, and napari much else.
AWAY := $(APART) plugins/napari-simmat plugins/simmat-plugin-microscopy
TOGETHER := $(filter-out $(AWAY),$(PACKAGES))
AT_LOWEST := --resolution lowest-direct --build-constraints "$(LOWEST)/lowest-build.txt"
# Left out there, since other rooms call the same libraries: `test` runs these, too.
NO_LIBRARY := $(addprefix tests/,docs packages plugins properties) \
	$(addprefix plugins/simmat-plugin-,aims align baselines distill nir polarization sar scenes thermal)
test-lowest: | $(BIN)/python
	$(call fresh,$(LOWEST),$(LOWEST_PYTHON),$(AT_LOWEST) $(CORE_ALL) $(call editable,$(TOGETHER)),. $(TOGETHER))
	"$(LOWEST)/bin/python" -m pytest -n $(JOBS) $(addprefix --ignore=,$(AWAY) $(NO_LIBRARY))
	"$(LOWEST)/bin/mkdocs" build --quiet --strict --site-dir "$(LOWEST)/site"
	$(call fresh,$(LOWEST),$(LOWEST_PYTHON),$(AT_LOWEST) $(CORE) $(call editable,$(KIT) plugins/simmat-plugin-sam $(APART)),$(APART))
	"$(LOWEST)/bin/python" -m pytest -n $(JOBS) $(APART)

# The newest releases, whatever pip is told to keep to: one training from simulated data to a mask, then the tests.
# Another Python with `make PYTHON=python3.13 test-newest`.
smoke-newest: | $(BIN)/python
	$(call fresh,$(NEWEST),$(PYTHON),$(CORE) $(call editable,$(PACKAGES)))
	$(call smoke,$(NEWEST)/bin,$(NEWEST)/bin)

test-newest: smoke-newest
	"$(NEWEST)/bin/python" -m pytest -n $(JOBS)

# The window of napari-simmat in a real napari, which no other target installs: without napari its tests are skipped. It
# needs a display, such as that of `xvfb-run make test-napari`.
test-napari: | $(BIN)/python
	$(call fresh,$(NAPARI),$(PYTHON),$(CORE) pytest-qt \
		$(call editable,$(KIT) plugins/simmat-plugin-sequences plugins/simmat-plugin-annotate) -e './plugins/napari-simmat[all]')
	"$(NAPARI)/bin/python" -m pytest plugins/napari-simmat

# The plugin of QGIS as a zip, of the last commit.
ANNOTATE := plugins/simmat-plugin-annotate/src/simmat_plugin_annotate
qgis:
	git archive --format=zip --output=simmat_qgis.zip --prefix=simmat_qgis/ --add-file=LICENSE \
		--add-file=$(ANNOTATE)/client.py --add-file=$(ANNOTATE)/static/icon.svg \
		HEAD:plugins/qgis-simmat/simmat_qgis

# In the QGIS of this machine: `xvfb-run make test-qgis`. Without QGIS or a display, the tests are skipped.
test-qgis: install
	"$(BIN)/python" -m pytest -m slow -rs plugins/qgis-simmat

# The page of `simmat export --html`, into the sources of its package: from TypeScript, with nodejs and npm.
PAGE := plugins/simmat-plugin-export/web
page:
	@command -v npm >/dev/null || { echo "error: npm not found (Debian: apt-get install nodejs npm)"; exit 2; }
	cd "$(PAGE)" && npm ci --no-audit --no-fund && npm run check && npm run build

# All packages as they are published, in RELEASE/dist: sdists, the wheels built from them, checked, and tried in empty
# environments of the Pythons in TRY, of which those that are not here are skipped.
RELEASE ?= $(VENV)/release
TRY ?= 3.11 3.12 3.13
URL ?=
release: page | $(BIN)/python
	rm -rf "$(RELEASE)"
	"$(BIN)/python" -m pip install --disable-pip-version-check --quiet \
		check-wheel-contents packaging "readme_renderer[md]" "setuptools>=77.0.1" tomli-w twine uv "validate-pyproject[all]"
	"$(BIN)/python" .ci/release.py build "$(RELEASE)" $(if $(URL),--url "$(URL)")
	"$(BIN)/validate-pyproject" "$(RELEASE)"/source/*/pyproject.toml
	"$(BIN)/twine" check --strict "$(RELEASE)"/dist/*
	"$(BIN)/check-wheel-contents" "$(RELEASE)"/dist/*.whl
	$(if $(TRY),"$(BIN)/python" .ci/try_wheels.py "$(RELEASE)/dist" $(TRY))

# The version of all packages, and the range in which they need each other: `make bump VERSION=0.2.0`.
bump: | $(BIN)/python
	"$(BIN)/python" -m pip install --disable-pip-version-check --quiet packaging tomli-w
	"$(BIN)/python" .ci/release.py bump "$(VERSION)"

smoke: install
	$(call smoke,$(BIN),$(BIN))

# A training of a few steps, from simulated data to a mask, with the commands in $(1); what it exports runs with those in
# $(2), which need no torch.
define smoke
	out="$$(mktemp -d)" && trap 'rm -rf "$$out"' EXIT && \
	"$(1)/simmat" data simulate --modality thermal --count 12 --size 96 96 --out "$$out/data" && \
	"$(1)/simmat" train --modality thermal --data "$$out/data" --foundation lite \
		--image-size 64 --steps 4 --batch-size 2 --out "$$out/run" && \
	test -s "$$out/run/report.html" && \
	"$(1)/simmat" eval "$$out/run/bundle.safetensors" --data "$$out/data" --split test && \
	"$(1)/simmat" predict "$$out/run/bundle.safetensors" "$$(ls "$$out"/data/images/* | head -n 1)" --point 48,48 --out "$$out/masks" && \
	"$(1)/simmat" predict "$$out/run/bundle.safetensors" "$$out/data/images" --everything --semantic --out "$$out/objects" && \
	"$(1)/simmat" export "$$out/run" --out "$$out/onnx" && \
	"$(2)/python" -c 'import numpy, sys; numpy.save(sys.argv[1], 20 * numpy.random.rand(1, 96, 96) + 280)' "$$out/a.npy" && \
	"$(2)/simmat-runtime" predict "$$out/onnx" "$$out/a.npy" --point 48,48 --out "$$out/mask.npy"
endef

# Damaged files against every reader: CASES of each, the same for one SEED. SECONDS ends it at that time:
# `make fuzz SECONDS=600`.
CASES ?= 20000
SEED ?= 0
LIMIT = $(if $(SECONDS),--seconds $(SECONDS))
fuzz: install
	"$(BIN)/python" tests/fuzz --cases $(CASES) --seed $(SEED) --jobs $(JOBS) $(LIMIT)

# Commands killed at random moments: KILLS of them, or as many as SECONDS allow.
KILLS ?= 50
kill: install
	"$(BIN)/python" tests/kill --kills $(KILLS) --seed $(SEED) $(LIMIT)

demo: $(DEMO_STAMP)
	"$(BIN)/python" examples/demo.py --out "$(DEMO_OUT)"

docs: install
	"$(BIN)/python" -m pip install --disable-pip-version-check --quiet -e '.[docs]'
	"$(BIN)/mkdocs" build --strict

clean:
	rm -rf build dist site $(DEMO_OUT) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -rf plugins/*/build examples/*/build
