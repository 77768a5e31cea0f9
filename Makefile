# Two commands matter: `make reproduce` and `make test`. Everything else is in `make help`.
# PYTHON: the Python that .venv is made with.   TORCH=cpu: at the first set-up, install torch without CUDA.
# UV: the program uv, which installs faster than pip; UV=no: pip even where uv is installed.
PYTHON ?= python3
TORCH ?=
UV ?= uv
PRESET = laptop
SEEDS =
SET =
MINUTES = 15
# The synthetic part of figures/data: study/preset; the pictures in figures/ are of the last one of a study. The other part is made by images and appendix.
INTERVENTIONS = synthetic_implanted/wide synthetic_removed/wide synthetic_swapped/wide synthetic_hidden/wide synthetic_easier/wide
EVIDENCE = synthetic/laptop synthetic/edges synthetic/factorial synthetic/paper synthetic/wide synthetic_utilities/wide synthetic_window/wide synthetic_schedules/fresh synthetic_optimizers/fresh synthetic_faults/laptop $(INTERVENTIONS)

BIN = .venv/bin
CHANGES = $(if $(DATA),--set 'data=$(DATA)') $(SET:%=--set %)
READY = .venv/.ready
# A process for each room, because one that runs all notebooks keeps ten gigabytes; the longest start first, and as many run
# at once as there are cores, four at most. Experiments are run by pytest at smoke size.
LONGEST = nbs/figures/ nbs/tutorials/ nbs/app/ nbs/pages/ nbs/analysis/
PAGES = $(LONGEST) $(filter-out $(LONGEST) nbs/experiments/,$(wildcard nbs/[a-z]*/ nbs/*.ipynb))
AT_ONCE = $$(n=$$(getconf _NPROCESSORS_ONLN); [ $$n -lt 4 ] && echo $$n || echo 4)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce images appendix gpu paper-synthetic test faults fuzz lowest lint lab-queue lab docs app readme publish clean

help:
	@echo 'make setup       make .venv with the pinned packages, by uv or pip (done by the others when missing)'
	@echo 'make reproduce   the synthetic study at laptop size: table, figures'
	@echo 'make images      a small ConvNet on real pictures at laptop size (20 to 25 minutes on two cores with AVX-512, longer without); DATA=folder for your own'
	@echo 'make appendix    the studies around it: two-stage, basin, boundary, ordinary networks, a transformer, at laptop size (three hours at most); DATA as above'
	@echo 'make gpu         on a machine with a GPU for fifteen minutes: measure it, then runs of the main experiment at short size, for MINUTES=15; DATA as above'
	@echo 'make paper-synthetic  the synthetic part of figures/data, from nothing; goes on where it stopped'
	@echo 'make test        all tests: source notebooks, then pytest'
	@echo 'make faults      the long fault campaign: 500 random kills of sweeps, tables, packs and figures (about 20 minutes)'
	@echo 'make fuzz        the long fuzz campaign: 6,000 files changed at random, read by every loader (about five minutes)'
	@echo 'make lowest      the tests of tools/lowest.py in .lowest, at the lowest versions that pyproject.toml allows; needs uv'
	@echo 'make lint        ruff, with the few rules of pyproject.toml'
	@echo 'make lab-queue   what lab/queue.csv lists and is missing, run by run at the lowest priority; SHOW=1: what is left; DATA as above, DATA100 for CIFAR-100'
	@echo 'make lab         JupyterLab on the notebooks'
	@echo 'make app         the explorer as a page of its own, without code'
	@echo 'make docs        the documentation site, in _site/; warnings are errors'
	@echo 'make readme      run nbs/index.ipynb and write README.md from it'
	@echo 'make publish     write the tracked tables and pictures in figures/ from finished runs, then README'
	@echo 'make clean       remove .venv and caches, never runs/'
	@echo 'with:  PYTHON=python3.12   another Python (3.11 or newer)'
	@echo '       TORCH=cpu           torch without CUDA, at the first set-up (about 1 GB instead of 5)'
	@echo '       UV=no               pip at the set-up, even where uv is installed'
	@echo '       PRESET=smoke        another size, for reproduce, images and appendix'
	@echo '       SEEDS=1..10         other seeds, for images and appendix'
	@echo '       SET="n_train=600 n_test=0"  other settings, for the same: here fewer pictures of your own'
	@echo '       EVIDENCE=synthetic/wide   only some of it, for paper-synthetic and publish'

$(READY): pyproject.toml constraints.txt tools/setup_env.py
	@command -v $(PYTHON) >/dev/null || { \
	  echo 'setup: $(PYTHON) not found: install Python 3.11 or newer, or name one, as in: make PYTHON=python3.12 setup' >&2; exit 2; }
	@TORCH='$(TORCH)' UV='$(UV)' $(PYTHON) tools/setup_env.py
	@touch $@

setup: $(READY)

reproduce: $(READY)
	$(BIN)/ulrs sweep synthetic --preset $(PRESET)
	$(BIN)/ulrs figures synthetic --preset $(PRESET)

images: $(READY)
	$(BIN)/ulrs sweep convnetsi32_cifar10 --preset $(PRESET) $(CHANGES) $(if $(SEEDS),--seeds $(SEEDS))
	$(BIN)/ulrs figures convnetsi32_cifar10 --preset $(PRESET) $(CHANGES) $(if $(SEEDS),--seeds $(SEEDS))

appendix: $(READY)
	@set -e; for s in resnet18si_cifar10_two_stage resnet18si_cifar10_basin resnet18si_cifar10_boundary resnet18_practical_cifar10 vit_cifar10; do \
	  $(BIN)/ulrs sweep $$s --preset $(PRESET) $(CHANGES) $(if $(SEEDS),--seeds $(SEEDS)); \
	  $(BIN)/ulrs figures $$s --preset $(PRESET) $(CHANGES) $(if $(SEEDS),--seeds $(SEEDS)); done

gpu: $(READY)
	$(BIN)/python tools/gpu.py --minutes $(MINUTES) $(if $(DATA),--data '$(DATA)')
	$(BIN)/python tools/gpu.py --home gpu_session/home

paper-synthetic: $(READY)
	@set -e; for sp in $(EVIDENCE); do $(BIN)/ulrs sweep $${sp%/*} --preset $${sp#*/}; done
	$(MAKE) publish

test: $(READY)
	@printf '%s\n' $(PAGES) | OMP_NUM_THREADS=1 xargs -P $(AT_ONCE) -I{} sh -c '$(BIN)/nbdev-test {} --n-workers 1 && echo {}'
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults.py --kills 500

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --files 6000

lowest:
	$(PYTHON) tools/lowest.py

lint: $(BIN)/ruff
	$(BIN)/ruff check

$(BIN)/ruff: $(READY)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt ruff
	@touch $@

lab-queue: $(READY)
	$(BIN)/python tools/lab.py $(if $(SHOW),--show) $(if $(DATA),--data '$(DATA)') $(if $(DATA100),--data 'cifar100=$(DATA100)')

lab: $(READY)
	$(BIN)/jupyter lab nbs

# Voilà, and the driver of the browser tests: an extra, installed when it is asked for.
$(BIN)/voila: $(READY)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[app]'
	@touch $@

# The documentation site: an extra too. It reads notebooks and sources, and runs nothing.
$(BIN)/sphinx-build: $(READY)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(BIN)/sphinx-build
	$(BIN)/sphinx-build -q -W --keep-going -c docs -b html -d _site/read . _site/html
	@echo 'the site is in _site/html/docs/index.html'

app: $(BIN)/voila
	$(BIN)/voila nbs/tutorials/explore_synthetic.ipynb

readme: $(READY)
	$(BIN)/python tools/readme.py

publish: $(READY)
	@set -e; for sp in $(EVIDENCE); do \
	  $(BIN)/ulrs tables $${sp%/*} --preset $${sp#*/} --out figures/data/$$sp $$(case $$sp in synthetic/laptop|synthetic/wide) ;; *) echo --leave-out curves;; esac); \
	  $(BIN)/ulrs figures $${sp%/*} --preset $${sp#*/} --published --out figures --replace; done
	$(BIN)/python -c "from understanding_lrs.app.explore_panels import strip; strip().save('figures/explorer.svg')"
	$(BIN)/python -c "from understanding_lrs.figures.causes import publish_causes; publish_causes('figures')"
	$(BIN)/python tools/readme.py

clean:
	rm -rf .venv .lowest .pytest_cache _docs _proc _site docs/made build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -prune -exec rm -rf {} +
