# What one does with this repository, in short commands. `make help` lists them.
CARGO ?= cargo
PYTHON ?= python3
# Passed on by instructions, bench-sale, bench-scale and bench-growth: make bench-scale BENCH_ARGS="--max-exponent 7"
BENCH_ARGS ?=
TARGET := $(or $(CARGO_TARGET_DIR),target)
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help test test-rust test-kafka test-grafana test-rules test-scripts deps chaos lint demo bench bench-programs bench-sale bench-scale bench-growth instructions dist peers peers-install

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: deps test-rust test-kafka test-rules test-scripts test-grafana ## everything the suite has; installs what it needs first

deps:
	@scripts/install-test-deps.sh

test-rust: deps ## unit, property, integration and doc tests of every crate
	$(CARGO) test --workspace --no-fail-fast

# Against the mock cluster of the client library, which is built from C: 45 s on two cores, once.
test-kafka: deps ## the Kafka sink, a cargo feature
	$(CARGO) test -p delivery --features kafka --lib --test main kafka

test-rules: deps ## the alert rules against promtool, and the proof that weakened rules are noticed
	promtool check config grafana/prometheus.yml
	promtool test rules grafana/rules/*.test.yml
	$(PYTHON) grafana/mutate.py

# The examples of docs/integrate.md run against the binary that the integration tests ran: --no-run finds it built after `make test-rust`.
test-scripts: deps ## the Python checks themselves, and the examples of docs/integrate.md
	$(CARGO) test --workspace --no-run
	$(PYTHON) -m unittest discover -s grafana -p '*_test.py'
	$(PYTHON) -m unittest discover -s scripts -p '*_test.py'
	$(PYTHON) -m unittest discover -s benches/peers -p '*_test.py'

# The binary that the integration tests ran: --no-run finds it built and does nothing after `make test-rust`.
test-grafana: deps ## dashboard and rules against the /metrics of a gateway that has sold something
	$(PYTHON) grafana/build.py --check
	$(CARGO) test --workspace --no-run
	$(PYTHON) grafana/capture.py $(TARGET)/debug/penstock $(TARGET)/metrics.txt
	promtool check metrics < $(TARGET)/metrics.txt
	$(PYTHON) grafana/check.py --metrics $(TARGET)/metrics.txt

chaos: deps ## seeded faults against real processes, judged from the clients' history; CHAOS_RUNS=200, CHAOS_SEED=1
	CHAOS_RUNS=$${CHAOS_RUNS:-200} $(CARGO) test -p gateway --test chaos -- --nocapture every_promise

lint: ## formatting, clippy, documentation, its links and its map of files, warnings denied; who imports whom
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	$(PYTHON) scripts/check-docs.py
	$(PYTHON) scripts/check-imports.py

demo: ## a shop, a sale and its peak on this machine, with the verdict
	$(CARGO) run --release -- demo

bench: ## micro-benchmarks (criterion)
	$(CARGO) bench -p benches

bench-sale: bench-programs ## the sale's figures, each beside its baseline (Redis, PostgreSQL, nginx); about four minutes
	$(PYTHON) benches/peers/sale.py $(BENCH_ARGS)

bench-scale: bench-programs ## the sale's curves: batch size, primaries and segments, orders in one sale
	$(PYTHON) benches/peers/scale.py $(BENCH_ARGS)

bench-growth: bench-programs ## what the past costs: a small sale behind 10^4 to 10^6 finished orders and payments
	$(PYTHON) benches/peers/growth.py $(BENCH_ARGS)

instructions: deps ## instructions, allocations and system calls of a request, against their budget; a minute
	$(CARGO) build --release --locked
	$(PYTHON) benches/peers/instructions.py $(BENCH_ARGS)

bench-programs:
	$(CARGO) build --profile dist --locked -p gateway -p benches --bins

dist: ## the programs as they are shipped, and their symbols apart, in target/package
	$(CARGO) build --profile dist --locked -p gateway -p loadtest
	scripts/strip-dist.sh $(TARGET)

peers: ## this gateway beside nginx, HAProxy, Pingora and Envoy; see benches/peers/
	benches/peers/run.sh

peers-install: ## what `make peers` compares with
	benches/peers/install.sh
