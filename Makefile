# A thin front over the real commands. Every cargo command selects the whole workspace: another
# selection would give the engine's 800 crates other features, and compile them again.

# tools/setup has put the library where the build script of `v8` looks; a variable that comes and
# goes would only make cargo build the engine again.
CARGO := env -u RUSTY_V8_ARCHIVE $(or $(CARGO),cargo)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
ESBUILD_PLATFORM := linux-$(if $(filter aarch64,$(shell uname -m)),arm64,x64)
# The programs in the checkout, wherever cargo's target directory is.
export CLOUDSERVE_ESBUILD ?= $(CURDIR)/tools/node_modules/@esbuild/$(ESBUILD_PLATFORM)/bin/esbuild
export CLOUDSERVE_NPM ?= $(CURDIR)/tools/node_modules/npm/bin/npm-cli.js

.PHONY: help setup build run servers test bench lint fmt clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## Provide the V8 library, libclang, esbuild, npm and the dashboard's files
	@tools/setup

build: setup  ## Build everything (release; the first time takes 30 to 50 minutes on 2 cores)
	@test -x $(TARGET_DIR)/release/cloudserve-worker || \
		echo "build: the first build compiles 800 crates, 30 to 50 minutes on 2 cores"
	$(CARGO) build --release --workspace

run: build  ## Build, then serve on 127.0.0.1:8080 (API) and 127.0.0.1:8081 (calls)
	exec $(TARGET_DIR)/release/cloudserve serve

servers:  ## Provide the servers that tests run against: mongod and S3 (once)
	@tools/test-servers

test: build servers  ## Build, then run every test
	npm --prefix bootstrap-js test
	CARGO_TARGET_DIR=$(abspath $(TARGET_DIR)) npm --prefix dashboard test
	$(CARGO) test --release --workspace --no-fail-fast

bench: build  ## Build, then measure against the peers (ten minutes on a quiet machine)
	$(TARGET_DIR)/release/cloudserve-bench run --out $(TARGET_DIR)/bench

lint: setup  ## Formatting, the rules of the house, licences, deployment files, clippy
	$(CARGO) fmt --all --check
	tools/tidy
	tools/licences
	tools/check-deploy
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

fmt:  ## Format
	$(CARGO) fmt --all

clean:  ## Remove what was built and installed (not the data)
	$(CARGO) clean
	rm -rf tools/node_modules dashboard/node_modules dashboard/dist/www dashboard/dist/built-from
