# Tasks for developers and CI; `make` lists them. Install Rust from rustup or the system; `make test-deps` installs the rest.
SHELL := /bin/sh
CARGO ?= cargo
.DEFAULT_GOAL := help
.PHONY: help quickstart run test schemathesis chaos bench flamegraph fuzz test-deps lint fmt

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

quickstart: ## Try Duffy: simulated nodes, no configuration, no root (ARGS="--dir ..." for its options)
	@$(CARGO) run --package duffy -- quickstart $(ARGS)

run: ## Run duffy with ARGS, for example: make run ARGS="-c etc serve"
	@$(CARGO) run --package duffy -- $(ARGS)

test-deps: ## Install the programs that tests and lints need (as root), or list them
	@scripts/test-deps

test: ## Run all tests, or those with T in their names: make test T=expire
	@scripts/test-deps tests
	@scripts/test '$(T)'

schemathesis: ## Test a server with requests generated from its API description; part of `make test`
	@$(MAKE) --no-print-directory test T=every_reply_conforms

chaos: ## Inject faults for MINUTES (default 10) and check the guarantees: SEED=... ENGINE=postgres|sqlite|both
	@scripts/test-deps tests
	@. target/test-env; \
	case '$(ENGINE)' in both|'') tests=chaos:: ;; *) tests='chaos::on_$(ENGINE)' ;; esac; \
	DUFFY_CHAOS_SEED='$(SEED)' DUFFY_CHAOS_MINUTES='$(or $(MINUTES),10)' \
		$(CARGO) test --package duffy --test e2e -- "$$tests" --nocapture --test-threads=1

bench: ## Compare with the original and with SSH and PostgreSQL, write docs/benchmarks.md: QUICK=1, or ROWS="reads client"
	@scripts/test-deps bench
	@. target/bench-env; QUICK='$(QUICK)' ROWS='$(ROWS)' $(CARGO) bench --package duffy --bench compare

flamegraph: ## Record flame graphs of serve and worker under load with perf: docs/benchmarks/flame-*.svg
	@$(MAKE) --no-print-directory bench ROWS=flames

lint: ## Check format, lints, docs, features, dependencies, scripts and spelling
	@scripts/test-deps lints
	@scripts/lint

fuzz: ## Run all fuzz targets, or T: make fuzz T=config SECONDS=600
	@scripts/fuzz '$(T)' '$(or $(SECONDS),600)'

fmt: ## Format the sources
	@$(CARGO) fmt --all
	@cd fuzz && $(CARGO) fmt
