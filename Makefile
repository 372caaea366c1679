# A thin front over the real commands. Every cargo command selects the whole workspace: another
# selection would give the engine's 800 crates other features, and compile them again.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help setup build run test lint fmt clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## Provide the V8 library, libclang and esbuild (once)
	@tools/setup

build: setup  ## Build everything (release; the first time takes 20 to 30 minutes on 2 cores)
	@test -x $(TARGET_DIR)/release/cloudserve || echo "build: the first build compiles 800 crates, 20 to 30 minutes on 2 cores"
	$(CARGO) build --release --workspace

run: build  ## Build, then serve on 127.0.0.1:8080 (API) and 127.0.0.1:8081 (calls)
	exec $(TARGET_DIR)/release/cloudserve serve

test: build  ## Build, then run every test
	node --test bootstrap-js/
	$(CARGO) test --release --workspace

lint: setup  ## Formatting, clippy, licences, and the rules of the house
	$(CARGO) fmt --all --check
	tools/tidy
	tools/licences
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

fmt:  ## Format
	$(CARGO) fmt --all

clean:  ## Remove what was built (not the data)
	$(CARGO) clean
