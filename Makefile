# acr-ray: make help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests that need more than Python: each kind has a target of its own.
ELSEWHERE := and not static and not services and not images and not compose and not hosts and not slurm and not launcher
APT := DEBIAN_FRONTEND=noninteractive apt-get
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=12
# Two processes share the files of tests, where at most one of these starts a Ray: two would get in each other's way.
SHARED := -n 2 --dist loadfile

# $(call debian,PROGRAM,PACKAGES): install Debian packages where a program is missing.
debian = @PATH=$$PATH:/usr/sbin:/sbin command -v $(1) >/dev/null || { $(APT) update -qq && \
  $(APT) install -y -qq --no-install-recommends $(2) >/dev/null; }
# $(call extra,NAME): install one of pyproject.toml's extras, once.
extra = @test -f $(VENV)/.ready-$(1) || { $(BIN)/python -m pip install --quiet --disable-pip-version-check \
  --constraint constraints.txt --editable ".[dev,$(1)]" && touch $(VENV)/.ready-$(1); }

.DEFAULT_GOAL := help
.PHONY: help setup demo bench test test-ray test-slow test-endurance test-browser gpu-test gpu-dry-test static-test services-tools services-test images-tools images-test compose-test \
  cluster-test ray-up-test slurm-test sbom audit lint format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "acr-ray needs Python 3.11 to 3.13, $(PYTHON) is $$($(PYTHON) -V 2>&1); try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@rm -f $(VENV)/.ready-*; touch $@

setup: $(READY) ## make .venv and install everything into it (about 6.5 GB)

demo: $(READY) ## train two ways on real digits, certify both, compare (about 3 minutes)
	@$(BIN)/python -m jobs.demo

bench: $(READY) ## every benchmark, the quick way (about 3 minutes)
	@for name in $$($(BIN)/python -c 'from jobs.bench import BENCHMARKS; print(*(name for name in BENCHMARKS if name != "gpu"))'); do $(BIN)/python -m jobs.bench $$name --quick || exit 1; done

test: $(READY) ## the tests, and one whole path through real jobs on Ray
	$(PYTEST) $(SHARED) -m "(smoke or not ray) and not slow and not endurance and not browser and not gpu $(ELSEWHERE)"

test-ray: $(READY) ## tests that start Ray clusters, kill what runs on them, and wait
	$(PYTEST) -m "ray and not smoke and not slow and not endurance and not browser and not gpu $(ELSEWHERE)"

test-slow: $(READY) ## longer faults and statistics, a real network on real images (about 25 minutes)
	$(call extra,real)
	$(PYTEST) -n 2 -m "slow and not ray and not gpu"
	$(PYTEST) -m "slow and ray and not gpu"

test-endurance: $(READY) ## dozens of kills at random moments, whole searches, every method killed (about an hour)
	$(PYTEST) -m "endurance and not gpu"

gpu-test: ## prove and measure the CUDA path on this machine's card (needs PyTorch alone, no Ray; about 6 minutes)
	$(PYTHON) -m jobs.bench gpu --out results/gpu

gpu-dry-test: $(READY) ## the same at toy size on the CPU, to see that every part runs (3 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m jobs.bench gpu --dry --out results/gpu-dry

test-browser: $(READY) ## the report in headless Chromium (installs it where apt-get can)
	$(call debian,chromium,chromium)
	$(PYTEST) -m browser

static-test: $(READY) ## the files in docker/ and cluster/, by the linters and schemas of their kinds
	$(call extra,checks)
	$(call debian,promtool,prometheus)
	$(PYTEST) -m static

services-tools: $(READY)
	$(call extra,services)
	$(call debian,/usr/lib/postgresql/*/bin/initdb,postgresql)

services-test: services-tools ## jobs against MLflow on PostgreSQL and S3, its server killed; results in an S3 bucket
	$(PYTEST) -m services

images-tools: $(READY)
	$(call debian,buildah,buildah crun)
	$(call debian,debootstrap,debootstrap)

images-test: images-tools ## build the images with buildah and run jobs in them as non-root (root, 15 GB of disk)
	$(PYTEST) -m images

compose-test: $(READY) ## the whole Compose stack under podman (root; after images-test's build)
	$(call extra,stack)
	$(call debian,buildah,buildah crun)
	$(call debian,debootstrap,debootstrap)
	$(call debian,podman,podman crun catatonit netavark aardvark-dns iptables iproute2)
	$(PYTEST) -m compose

cluster-test: $(READY) ## three Ray hosts in network namespaces: jobs, a host cut off, a host killed (root)
	$(call debian,ip,iproute2)
	$(call debian,iptables,iptables)
	$(call debian,curl,curl)
	$(PYTEST) -m hosts

ray-up-test: $(READY) ## ray up over SSH to hosts in network namespaces (root)
	$(call debian,sshd,openssh-server)
	$(call debian,rsync,rsync)
	$(call debian,ip,iproute2)
	$(call debian,curl,curl)
	$(PYTEST) -m launcher

slurm-test: $(READY) ## cluster/slurm under a real SLURM on this machine (root)
	$(call debian,slurmctld,slurm-wlm)
	$(PYTEST) -m slurm

sbom: $(READY) ## sbom.json: all packages of .venv with versions and licences (CycloneDX)
	$(call extra,supply)
	$(BIN)/cyclonedx-py environment $(BIN)/python --output-reproducible --of JSON -o sbom.json

audit: $(READY) ## known vulnerabilities of the packages in .venv (needs an index with advisories)
	$(call extra,supply)
	@$(BIN)/pip-audit --progress-spinner off --skip-editable --local >audit.txt 2>&1; code=$$?; cat audit.txt; \
	  if grep -q "could not be audited" audit.txt; then \
	    echo "not audited in full: the index in use knows no advisories for the packages above" >&2; exit 1; fi; exit $$code

lint: $(READY) ## ruff: rules and format; mypy: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy acr_ray

format: $(READY) ## put everything into ruff's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was built and the demo's results, not your own outputs
	rm -rf $(VENV) outputs/demo *.egg-info .pytest_cache .ruff_cache
