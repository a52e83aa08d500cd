# make train: set up and train on real battles.  make test: everything that must hold.  make help: the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?=
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv-docs/.ready
UV_VERSION := 0.13.9
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=600
SIDE_BY_SIDE := --numprocesses=3 --dist=loadfile --no-loadscope-reorder

.PHONY: help train retrain tune check test check-release check-retrain check-shared check-nbtrack foreign check-images lab server stop env \
	images shared shared-stop backup restore reference dex dataset bench results differential chaos docs clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): requirements.lock pyproject.toml $(wildcard nbtrack/etc/*/*.json nbtrack/etc/*/*/*.json)
	@bash .ci/environment "$(PYTHON)" "$(UV_VERSION)"
	@touch $@

$(DOCS_READY): docs/requirements.lock
	@echo "building .venv-docs from docs/requirements.lock"
	@"$$(bash .ci/python "$(PYTHON)")" -m venv --clear .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

train: $(READY)  ## train v3 from the command line and show the result and its run
	@$(BIN)/python -m pokebattle server start --background
	$(BIN)/papermill notebooks/train.ipynb out.ipynb -p version v3
	@$(BIN)/python -m pokebattle report out.ipynb

retrain: export VERSION ?= v3
retrain: $(READY)  ## train VERSION (v3) and promote it through its gates, on the server of MLFLOW_TRACKING_URI
	@$(BIN)/python -m pokebattle retrain --version "$$VERSION"

tune: $(READY)  ## search better settings for v3 (100 trials, two processes); run again to continue
	@$(BIN)/python -m pokebattle server start --background
	$(BIN)/papermill notebooks/tune.ipynb out-tune.ipynb -p version v3 -p n_trials 100 -p workers 2
	@$(BIN)/python -m pokebattle report out-tune.ipynb

check: $(READY)  ## check format, lint, import rules, types, workflows and shell scripts
	$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check . && $(BIN)/lint-imports && $(BIN)/mypy
	$(BIN)/actionlint -shellcheck $(BIN)/shellcheck -pyflakes ""
	$(BIN)/zizmor --quiet --offline .github/workflows
	$(BIN)/shellcheck .ci/run .ci/environment .ci/python

test: check  ## lint, unit tests, tracking tests on a real server, nbval on every notebook
	POKEBATTLE_TRACKING=off $(BIN)/pytest $(NBVAL) $(SIDE_BY_SIDE) tests notebooks

check-release: $(READY)  ## complete ways to Production, and models of all kinds that are registered and loaded elsewhere (minutes)
	POKEBATTLE_TRACKING=off $(BIN)/pytest -m long tests/registry tests/nbtrack/test_own_battles.py \
		tests/nbtrack/test_published_model.py tests/nbtrack/test_judged_model.py
	POKEBATTLE_TRACKING=off $(BIN)/pytest tests/registry/release.py

check-retrain: $(READY)  ## retraining of the sample version for real: without a shared server, with one, refused (minutes)
	POKEBATTLE_TRACKING=off $(BIN)/pytest -m long tests/test_workflows.py tests/nbtrack/test_script_tracker.py \
		tests/nbtrack/test_train.py

check-shared: $(READY)  ## the team's server under load, with its database and itself failing, on S3, lost and restored
	POKEBATTLE_TRACKING=off $(BIN)/pytest -m long tests/team

check-nbtrack: $(READY)  ## install nbtrack's wheel alone in a new environment and track a notebook there (minutes)
	POKEBATTLE_TRACKING=off $(BIN)/pytest -m long tests/nbtrack/test_wheel.py

foreign: $(READY)  ## papermill's, nbclient's, nbval's and mlflow's tests, and 50 notebooks, with and without this package (an hour)
	$(BIN)/python tests/foreign/suites.py $(SUITES)
	$(BIN)/python tests/foreign/readonly.py

check-images: $(READY)  ## build the images with buildah from a stand-in base and run the main job in them (Debian, root)
	$(BIN)/python docker/check_images.py

lab: $(READY)  ## JupyterLab on the notebooks, every execution tracked; ARGS passes options, as in ARGS="--port 8899"
	@$(BIN)/python -m pokebattle server start --background
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/train.ipynb \
		$(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

server: $(READY)  ## start the local MLflow server and say where it is
	@$(BIN)/python -m pokebattle server start

stop: $(READY)  ## stop the local MLflow server
	@$(BIN)/python -m pokebattle server stop

env:  ## write .env with random secrets for the team's server; existing values are kept
	@$$(command -v $(BIN)/python || command -v python3) -m nbtrack.team.write_env

images: env  ## build the images with Docker Compose
	docker compose build

shared: $(READY)  ## start the team's server without Docker: PostgreSQL, and MLflow with accounts on it
	@$(BIN)/python -m pokebattle shared start

shared-stop: $(READY)  ## stop it; data stay
	@$(BIN)/python -m pokebattle shared stop

backup: $(READY)  ## write the team's server, databases and artifacts, to a file in backups/ (TO=FILE)
	@$(BIN)/python -m pokebattle backup $(if $(TO),--to "$(TO)")

restore: $(READY)  ## restore the stopped server from FROM=FILE (OVERWRITE=1 if it has runs)
	@$(BIN)/python -m pokebattle restore "$(FROM)" $(if $(OVERWRITE),--overwrite)

reference: $(READY)  ## execute the notebooks and store their outputs: the reference that nbval compares with
	POKEBATTLE_TRACKING=off $(BIN)/python -m pokebattle reference notebooks/*.ipynb

dex: $(READY)  ## extract the game tables from the battle engine
	@$(BIN)/python -m pokebattle dex

dataset: $(READY)  ## fight all battles of v3 (about a quarter of an hour on two free cores) into build/battles/v3
	$(BIN)/papermill notebooks/simulate.ipynb out-simulate.ipynb -p version v3

bench: $(READY)  ## measure generation, features, training, searches, tracking and the team's server, side by side (about two hours)
	@for what in generation features training simulation tracking tuning shared; do $(BIN)/python benchmarks/$$what.py; done

results: $(READY)  ## fit every version, protocol and feature set, and print the result tables (half an hour)
	@$(BIN)/python benchmarks/results.py

differential: $(READY)  ## search for calls of MLflow that give something else in tracked notebooks (SEQUENCES=5000)
	POKEBATTLE_TRACKING=off $(BIN)/python tests/differential/differential.py --sequences $(or $(SEQUENCES),5000)

chaos: $(READY)  ## the whole fault matrix, senders killed at random, many notebooks at once (half an hour)
	POKEBATTLE_TRACKING=off $(BIN)/python tests/nbtrack/chaos.py

docs: $(DOCS_READY)  ## build docs/ and the notebooks' stored outputs as a site in build/docs; a warning is an error
	@rm -rf build/docs build/docs-doctrees
	@.venv-docs/bin/sphinx-build --quiet --fail-on-warning --keep-going --builder html --conf-dir docs \
		--doctree-dir build/docs-doctrees . build/docs
	@echo "built build/docs/index.html"

clean:  ## remove what make produced, except the environments and the server's store
	rm -rf build out*.ipynb .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
