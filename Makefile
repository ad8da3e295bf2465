# `make demo` and `make test` need Rust and nothing else: they see to an adapter themselves.

CURVKIT := $(or $(CARGO_TARGET_DIR),target)/release/curvkit
TESTS := $(shell cargo nextest --version >/dev/null 2>&1 && echo nextest run || echo test --tests)

.PHONY: demo test lint bench bench-peers build

# MNIST from DATA_DIR (else $CURVKIT_DATA, else data/, else downloaded): a table and out/demo/report.html, in minutes
demo: build
	./scripts/demo.sh $(CURVKIT) $(DATA_DIR)

# One build for all three: with the whole workspace's features
test:
	cargo $(TESTS) --release --workspace --no-run
	./scripts/ensure-adapter.sh $(CURVKIT)
	cargo $(TESTS) --release --workspace
	cargo test --release --workspace --doc

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo clippy --release --no-default-features --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps

# This adapter's ceilings, and the shares of them that the programs reach
bench: build
	$(CURVKIT) bench gemm
	$(CURVKIT) bench hvp
	$(CURVKIT) bench train

# The same work in PyTorch and JAX, interleaved with ours
bench-peers: build
	./benches/peers/run.sh

build:
	cargo build --release
	./scripts/ensure-adapter.sh $(CURVKIT)
