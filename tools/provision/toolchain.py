"""The programs that have to be there before anything can be built."""

from __future__ import annotations

import os
import re

from .paths import REPOSITORY, cargo_target
from .terminal import SetupError, output_of, require, warn_of_little_space

# What builds the dashboard.
NODE_MIN = (20, 19)
# A complete target directory: release build, tests and clippy.
TARGET_BYTES = 10 * 1024**3

RUST_ADVICE = "install Rust with rustup, or run `rustup update stable`"
NODE_ADVICE = "install Node 20.19 or later, with npm"
C_ADVICE = "install a C compiler and make (on Debian: `apt-get install build-essential`)"


def check() -> None:
    """Raises for the first program that is missing or too old."""
    require("cargo", RUST_ADVICE)
    need_version("rustc", rust_min(), RUST_ADVICE)
    need_version("node", NODE_MIN, NODE_ADVICE)
    require("npm", NODE_ADVICE)
    # Cargo links with `cc`, whatever compiles.
    require("cc", C_ADVICE)
    require(os.environ.get("CC", "cc").split()[0], C_ADVICE)
    require("make", C_ADVICE)
    if not (cargo_target() / "release").exists():
        warn_of_little_space(cargo_target(), TARGET_BYTES, "a build with tests")


def rust_min() -> tuple[int, ...]:
    manifest = (REPOSITORY / "Cargo.toml").read_text(encoding="utf-8")
    found = re.search(r'^rust-version = "([\d.]+)"', manifest, re.MULTILINE)
    assert found, "the workspace states its rust-version"
    return numbers(found.group(1))


def need_version(program: str, least: tuple[int, ...], advice: str) -> None:
    require(program, advice)
    printed = output_of([program, "--version"])
    if printed is None:
        raise SetupError(f"`{program} --version` fails: {advice}.")
    found = re.search(r"(\d+)\.(\d+)(\.\d+)?", printed)
    if not found or numbers(found.group()) < least:
        wanted = ".".join(map(str, least))
        raise SetupError(f"{program} is {printed}, and {wanted} or later is needed: {advice}.")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def host_target() -> str:
    """The target triple cargo builds for when it is told none."""
    printed = output_of(["rustc", "-vV"]) or ""
    found = re.search(r"^host: (\S+)$", printed, re.MULTILINE)
    if not found:
        raise SetupError(f"`rustc -vV` names no host: {RUST_ADVICE}.")
    return found.group(1)


def locked_version(crate: str) -> str:
    """Version of a crate in the lock file; the crate occurs there once."""
    lock = (REPOSITORY / "Cargo.lock").read_text(encoding="utf-8")
    found = re.findall(rf'^name = "{re.escape(crate)}"\nversion = "([^"]+)"', lock, re.MULTILINE)
    if len(found) != 1:
        raise SetupError(f"Cargo.lock holds {len(found)} versions of {crate}, and one is needed: "
                         "restore Cargo.lock from git.")
    return found[0]
