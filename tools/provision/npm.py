"""npm: the one that the server runs for dependencies, as the lock file pins it.

The one in PATH may be too old to be kept to the registry: Node 22 comes with such a one.
"""

from __future__ import annotations

from .esbuild import install, locked, works
from .paths import TOOLS
from .terminal import SetupError

PACKAGE = "node_modules/npm"


def provide() -> None:
    program = TOOLS / PACKAGE / "bin" / "npm-cli.js"
    wanted = locked(TOOLS / "package-lock.json")[PACKAGE]
    installed = locked(TOOLS / "node_modules" / ".package-lock.json").get(PACKAGE, {})
    if installed.get("integrity") == wanted["integrity"] and works(program, wanted["version"]):
        return
    install(f"npm {wanted['version']}")
    if not works(program, wanted["version"]):
        raise SetupError(f"{program} does not run: remove tools/node_modules and try again.")
