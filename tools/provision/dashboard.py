"""The dashboard: its packages from npm, as its lock file pins them, and the files that are built.

Built again when something that goes into it has changed; `dist/built-from` says what the files
that are there were built from. Two seconds, and ten for the packages the first time.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from .paths import REPOSITORY
from .terminal import SetupError, run_quietly, say

DASHBOARD = REPOSITORY / "dashboard"
SERVED = DASHBOARD / "dist" / "www"
BUILT_FROM = DASHBOARD / "dist" / "built-from"
INSTALLED = DASHBOARD / "node_modules" / ".package-lock.json"
SOURCES = ("src", "public", "index.html", "package.json", "package-lock.json", "vite.config.ts",
           "tsconfig.json")
ADVICE = "check that the npm registry can be reached (`npm ping`), then run `make setup` again"


def provide() -> None:
    install()
    wanted = fingerprint()
    if (SERVED / "index.html").is_file() and read(BUILT_FROM) == wanted:
        return
    say("dashboard: vite build")
    BUILT_FROM.unlink(missing_ok=True)
    run_quietly(["npm", "run", "--silent", "build"], "mend what it names in dashboard/",
                cwd=DASHBOARD)
    if not (SERVED / "index.html").is_file():
        raise SetupError(f"the dashboard's build left no {SERVED / 'index.html'}.")
    BUILT_FROM.write_text(wanted, encoding="utf-8")


def install() -> None:
    """Packages, unless those of the lock file are there."""
    if installed(DASHBOARD / "package-lock.json") == installed(INSTALLED):
        return
    say("dashboard: npm ci in dashboard/")
    run_quietly(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], ADVICE, cwd=DASHBOARD)


def installed(lock: Path) -> dict[str, str]:
    """What a lock file says of each package, without those of other platforms."""
    text = read(lock)
    packages = json.loads(text)["packages"] if text else {}
    return {
        name: package.get("integrity", "")
        for name, package in packages.items()
        if name and not package.get("optional")
    }


def fingerprint() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        source = DASHBOARD / name
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file():
                content = path.read_bytes()
                digest.update(f"{path.relative_to(DASHBOARD)}\0{len(content)}\0".encode())
                digest.update(content)
    return digest.hexdigest()


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
