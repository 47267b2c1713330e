# `make demo` and `make test` do everything from nothing; ARGS="..." is handed to the program.
SHELL  := bash
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
ARGS   ?=

.PHONY: help setup weights demo page test test-page test-all train-math train-math-rewards results bench tutorials figures clean

## help: list the targets (default)
help:
	@sed -n 's/^## /  make /p' Makefile

## setup: create .venv and install the six packages (a minute or two)
setup: $(VENV)/.installed

# The stamp is touched last: an interrupted install is done again.
$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "t2mini needs Python 3.10 or later; try: make setup PYTHON=python3.11"; exit 1; }
	@echo "creating $(VENV) and installing requirements.txt (a minute or two, mostly torch) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt \
	  | { grep --line-buffered -E '^(Collecting|Installing)|^ *Downloading .*(whl|gz) ' || true; }; exit $${PIPESTATUS[0]}
	@$(PY) -c 'import torch, numpy, tiktoken, safetensors, matplotlib, pytest' && touch $@

## weights: fetch SmolLM2-135M-Instruct (98 MB) into weights/
weights: setup
	@$(PY) -m t2mini download

## demo: two-pass adaptation on twelve questions, beside the base model's answers (runs model-written code, sandboxed)
demo: weights
	@$(PY) -m t2mini demo --allow-code $(ARGS)

## page: turn the dials in your browser, at http://127.0.0.1:8000/
page: weights
	@$(PY) -m t2mini page $(ARGS)

## test: run all tests on tiny models (no network beyond pip), in two processes; with ARGS in one
test: setup
	@$(PY) $(if $(ARGS),-m pytest $(ARGS),tests/halves.py)

## test-page: the page in a real browser (headless Chromium) on the real model
test-page: weights
	@$(PY) -m pytest -m page -rs $(ARGS)

## test-all: the slow ones too: more kills, more damaged files, several processes
test-all: setup
	@$(PY) -m pytest -m "not page" $(ARGS)

## train-math: a math expert from scratch in out/math.safetensors, which copies worked solutions (8 minutes on two quiet cores with bfloat16; stopped? ARGS=--resume goes on); see tutorials/own_data.md
train-math: weights
	@$(PY) -m t2mini train --task=math-worked --objective=next-token --prompts=32 --steps=100 \
	  --val-every=20 --val-n=256 --out=out/math.safetensors $(ARGS)

## train-math-rewards: one in out/math-rewards.safetensors by rewards alone, as the shipped one was made (200 updates; 82 minutes were measured on two cores without bfloat16, partly beside other work)
train-math-rewards: weights
	@$(PY) -m t2mini train --task=math --max-tokens=96 --must-stop --prompts=32 --samples=8 \
	  --steps=200 --val-every=15 --val-n=256 --patience=6 --seed=1 --out=out/math-rewards.safetensors $(ARGS)

## results: every score of the README again, into out/results (30 minutes; runs model-written code, sandboxed); DATA=folder adds the routing of real questions
results: weights
	@$(PY) tutorials/foundation.py --out=out/results --allow-code $(if $(DATA),--data=$(DATA)) $(ARGS)

## bench: how fast each part runs here, beside this machine's limits (run nothing else meanwhile)
bench: weights
	@$(PY) -m t2mini bench $(ARGS)

## tutorials: run every chapter and compare its output with its page (23 minutes on 2 quiet cores, as tutorials/README.md has them; runs model-written code, sandboxed)
tutorials: weights
	@$(PY) tutorials/pages.py --allow-code $(ARGS)

## figures: draw the chapters' pictures again in tutorials/figures (23 minutes, as for tutorials; ARGS=03 for one; the page's needs a Chromium; runs model-written code, sandboxed)
figures: weights
	@$(PY) tutorials/draw_method.py
	@$(PY) tutorials/draw_rooms.py
	@$(PY) tutorials/draw_experts.py
	@$(if $(ARGS),true,$(PY) tutorials/draw_page.py || true)
	@$(PY) tutorials/pages.py --allow-code --figures $(ARGS)

## clean: remove caches; weights and your experts in out/ stay
clean:
	@find t2mini tests tutorials -name __pycache__ -type d -exec rm -rf {} +
	@rm -rf weights/svd out/reproduce/*/svd .pytest_cache
