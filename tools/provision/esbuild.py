"""esbuild: the native program, from npm, as the lock file pins it.

Install scripts do not run. esbuild's own would only swap the wrapper for the native program, and
that one is called where npm puts it.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

from .paths import TOOLS
from .terminal import SetupError, output_of, run_quietly, say

ADVICE = "check that the npm registry can be reached (`npm ping`), then run `make setup` again"
# Node's names for what `uname -m` prints.
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def provide() -> None:
    package = native_package()
    program = TOOLS / package / "bin" / "esbuild"
    wanted = locked(TOOLS / "package-lock.json").get(package)
    if wanted is None:
        raise SetupError(f"esbuild has no {package.rpartition('/')[2]} build: use Linux on x86_64.")
    installed = locked(TOOLS / "node_modules" / ".package-lock.json").get(package, {})
    if installed.get("integrity") == wanted["integrity"] and works(program, wanted["version"]):
        return
    install(f"esbuild {wanted['version']}")
    if not works(program, wanted["version"]):
        raise SetupError(f"{program} does not run: remove tools/node_modules and try again.")


def install(what: str) -> None:
    """Everything of the lock file in tools/."""
    say(f"{what}: npm ci in tools/")
    run_quietly(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], ADVICE, cwd=TOOLS)


def native_package() -> str:
    machine = platform.machine()
    system = platform.system().lower()
    return f"node_modules/@esbuild/{system}-{ARCHITECTURES.get(machine, machine)}"


def locked(lock: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads(lock.read_text(encoding="utf-8"))["packages"]
    except FileNotFoundError:
        return {}


def works(program: Path, version: str) -> bool:
    return output_of([str(program), "--version"]) == version
