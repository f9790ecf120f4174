# make demo: patch the demo model with both kinds of pair and say where the pictures are
# make test: lint, format, types and tests, in two processes; WORKERS=0 make test has one, WORKERS=8 as many as that
# Each needs Python 3.11 or 3.12 and nothing else; PYTHON=python3.12 make test chooses one.
# make ray-test: experiments on two real workers, which Ray starts
# make tutorial-test: docs/tutorial.ipynb is executed and compared with the outputs in it; make tutorial writes them again
# make datasets-test: Hugging Face data sets, read with the package datasets
# make peft-test: adapters of every kind, merged with the package peft
# make gpu-test: on a CUDA device, the tests of engines, experiments and families, the benchmark at the real size, and 20 pairs
# make browser-test: the report in headless Chromium, which must be there with its driver (Debian: chromium-driver)

PYTHON ?= python3
VENV ?= .venv
# Each loads torch, about 1 GB. A file's tests stay with one of them, for what they share, and files keep their order.
WORKERS ?= 2
BIN = $(VENV)/bin

.PHONY: demo test tutorial tutorial-test ray-test datasets-test peft-test browser-test gpu-test format clean
demo: $(VENV)/run.done
	$(BIN)/python cli.py patch --kind prosody
	$(BIN)/python cli.py patch --kind semantic

test: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

tutorial: $(VENV)/dev.done
	$(BIN)/python -m tests.tutorial

tutorial-test: $(VENV)/dev.done
	$(BIN)/python -m pytest -m tutorial tests/test_tutorial.py

ray-test: $(VENV)/ray.done
	$(BIN)/python -m pytest -m ray tests/workers

datasets-test: $(VENV)/datasets.done
	$(BIN)/python -m pytest -m datasets tests/pairs

peft-test: $(VENV)/peft.done
	$(BIN)/python -m pytest -m peft tests/models

browser-test: $(VENV)/dev.done
	$(BIN)/python -m pytest -m browser tests/browser

gpu-test: $(VENV)/dev.done
	$(BIN)/python -m tests.gpu

format: $(VENV)/dev.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/run.done: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/dev.done: requirements-dev.txt $(VENV)/run.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/ray.done: requirements-ray.txt $(VENV)/dev.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-ray.txt
	touch $@

$(VENV)/datasets.done: requirements-datasets.txt $(VENV)/dev.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-datasets.txt
	touch $@

$(VENV)/peft.done: requirements-peft.txt $(VENV)/dev.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-peft.txt
	touch $@

clean:
	rm -rf $(VENV)
