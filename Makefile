# `make demo` and `make test` need Rust and nothing else: they see to an adapter themselves.

CURVKIT := $(or $(CARGO_TARGET_DIR),target)/release/curvkit
# SwiftShader, a second software adapter, where Chromium has brought it: it is not among the system's drivers
SWIFTSHADER := $(firstword $(wildcard /usr/lib/chromium/vk_swiftshader_icd.json /usr/lib64/chromium-browser/vk_swiftshader_icd.json))
TESTS := $(shell cargo nextest --version >/dev/null 2>&1 && echo nextest run || echo test --tests)

.PHONY: demo test lint bench bench-peers build

# MNIST from DATA_DIR (else $CURVKIT_DATA, else data/, else downloaded): a table and out/demo/report.html, in minutes
demo: build
	./scripts/demo.sh $(CURVKIT) $(DATA_DIR)

# One build for all: with the whole workspace's features. The engine's core runs on every adapter that is listed.
test:
	cargo $(TESTS) --release --workspace --no-run
	./scripts/ensure-adapter.sh $(CURVKIT)
	$(CURVKIT) adapters
	cargo $(TESTS) --release --workspace
	$(if $(SWIFTSHADER),VK_DRIVER_FILES=$(SWIFTSHADER) cargo test --release --workspace --test adapters -- --nocapture)
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
