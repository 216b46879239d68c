# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DATA   ?= ../shared/data

.PHONY: quickstart test lint types docs bench hh-small clean

quickstart: $(VENV)/installed      ## base model -> SFT -> reward model -> PPO and DPO -> comparison, offline, in minutes
	$(BIN)/accord run recipes/quickstart.toml

test: lint types                   ## style, types, tests
	$(BIN)/python -m pytest -q -n auto --durations=10

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/basedpyright

docs: $(VENV)/installed            ## tables of options and sources in docs/methods, as the code has them
	$(BIN)/python docs/methods/generate.py

bench: $(VENV)/installed           ## accord against TRL, plain PyTorch and transformers, here; MORE="--only sft --size 124m"
	$(BIN)/python -m benchmarks $(MORE)

hh-small: $(VENV)/installed        ## a real pre-trained model on real preferences (recipes/hh-small.toml); DATA names the data
	$(BIN)/python recipes/stories260k.py $(DATA)/stories260k runs/stories260k
	$(BIN)/accord run recipes/hh-small.toml

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
