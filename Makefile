# Each target is one goldimg command; set-up is done first and only where something is missing.
OS ?= Debian-12
ONLY ?=
EXCEPT ?=
VERSION ?=
ARGS ?=

GOLDIMG := .venv/bin/goldimg
# a process for each core, four at most; tests/conftest.py says which tests stay together
PYTEST := .venv/bin/python -m pytest -n logical --maxprocesses 4
BUILD_ARGS := -O $(OS) $(if $(ONLY),--only $(ONLY)) $(if $(EXCEPT),--except $(EXCEPT)) \
	$(if $(VERSION),--version $(VERSION)) $(ARGS)

.PHONY: help build plan serve test check keys doctor benchmark setup clean
.DEFAULT_GOAL := help

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "  settings: OS=$(OS) ONLY=azure,gcp EXCEPT=docker VERSION=1.2.0 ARGS='--force'"

build: setup ## Build images: ISO, install, provision, convert, checksum
	@$(GOLDIMG) build $(BUILD_ARGS)

plan: setup ## Show what a build would do, without starting anything
	@$(GOLDIMG) plan $(BUILD_ARGS)

serve: setup ## Serve kickstarts, boot files and the status page (ARGS='--netboot --interface eth1')
	@$(GOLDIMG) serve $(ARGS)

keys: setup ## Make the packer and vagrant SSH keys
	@$(GOLDIMG) keys

doctor: setup ## Show which tools are there and which are missing
	@$(GOLDIMG) doctor

test: ## Run every check and test, a real build included
	@python3 -m goldimg.bootstrap test
	@$(PYTEST)

check: ## Run the quick tests only
	@python3 -m goldimg.bootstrap test
	@$(PYTEST) -m "not real"

benchmark: setup ## Measure builds against the original system's settings
	@.venv/bin/python benchmarks/build.py

setup:
	@python3 -m goldimg.bootstrap build

clean: ## Delete caches and unfinished work; artifacts and keys stay
	rm -rf .cache
