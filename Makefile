PYTHON ?= python3
SEED ?= 0
DEMO ?= demo/$(SEED)
RUN = TF_CPP_MIN_LOG_LEVEL=2 .venv/bin/python

.PHONY: demo test lint clean

# One environment in the checkout, made again when the requirements change.
.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[demo,test]'
	touch $@

demo: .venv/installed
	$(RUN) trainers/digits.py --flagfile=trainers/flagfiles/digits_demo.txt \
		--seed=$(SEED) --workdir=$(DEMO)
	$(RUN) -m skipnet_tf.analysis --workdir=$(DEMO) --out=$(DEMO)/pictures
	$(RUN) savedmodels/export.py --workdir=$(DEMO) \
		--directory=$(DEMO)/saved_model --benchmark

test: .venv/installed
	.venv/bin/python -m pytest

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

clean:
	rm -rf .venv build *.egg-info
