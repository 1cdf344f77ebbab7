# make lab         JupyterLab on the notebooks, filled from what comes with the kit
# make reproduce   computes one replicate of everything anew, and compares it with what came along: notebooks,
#                  scorecard, report; SEEDS=all computes all of them
# make test        the tests                                     make lint   ruff
# make gpu         what a GPU says of the kit, in eight minutes: GPU="--out OUT" (docs/gpu.md)
#
# PYTHON chooses the interpreter (3.11 or newer), PRESET the world and budget (smoke, glyphs, glyphs-full).

PYTHON ?= python3
PRESET ?= glyphs
BIN := .venv/bin
# Before torch is loaded anywhere; rtkit/__init__.py says why.
export OMP_WAIT_POLICY ?= PASSIVE
# Jupyter refuses to serve root unless told so; in a container everybody is root.
LAB_OPTIONS := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: lab reproduce test lint gpu clean

lab: .venv/ready
	$(BIN)/jupyter lab --ip=127.0.0.1 --ServerApp.root_dir=. $(LAB_OPTIONS) notebooks/00_start_here.ipynb

reproduce: .venv/ready
	$(BIN)/rtkit run --preset $(PRESET) -p run mine $(if $(filter all,$(SEEDS)),,--first); status=$$?; $(BIN)/rtkit compare --preset $(PRESET); \
	    $(BIN)/rtkit report --preset $(PRESET) && exit $$status

test: .venv/ready
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# With an interpreter that has torch and what the tests need; no environment is made and nothing is downloaded.
gpu:
	PYTHONPATH=. $(PYTHON) scripts/gpu.py $(GPU)

# Rebuilt when what is to be installed changes; a half-finished installation leaves no mark and is taken up again.
.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "rtkit needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[test]'
	mkdir -p .venv/share/jupyter/lab/settings  # JupyterLab asks no questions at its first start
	echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
	    > .venv/share/jupyter/lab/settings/overrides.json
	touch $@

clean:
	rm -rf .venv runs
