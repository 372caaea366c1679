"""The validators: programs and modules from wheels that `validators.txt` pins by version and hash.

Installed once into the cache that all checkouts share, in a directory named by the pins and the
Python that runs this. Invariant: that directory is complete; it is filled beside and renamed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from provision.paths import TOOLS, cache
from provision.terminal import SetupError, run_quietly, say

PINS = TOOLS / "validators.txt"
PYTHONS = ((3, 11), (3, 14))
ADVICE = (
    "check that pip can reach the package index (`pip download --no-deps yamllint`) and that this is "
    "Python 3.11 to 3.14 on x86_64"
)


class Validators:
    """Where they are, and how one is run."""

    def __init__(self, directory: Path):
        self.directory = directory

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs one in the checkout, with what it says taken together."""
        environment = {**os.environ, "PYTHONPATH": str(self.directory), "NO_COLOR": "1"}
        return subprocess.run(
            [str(self.directory / "bin" / program), *arguments],
            cwd=TOOLS.parent, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )


def provide() -> Validators:
    """Installs them where they are missing, and makes their modules importable here."""
    version = sys.version_info[:2]
    if not PYTHONS[0] <= version <= PYTHONS[1]:
        raise SetupError(f"the validators need Python 3.11 to 3.14, and this is {version[0]}.{version[1]}.")
    pins = hashlib.sha256(PINS.read_bytes()).hexdigest()[:16]
    directory = cache() / "validators" / f"{pins}-{sys.implementation.cache_tag}"
    if not directory.is_dir():
        install(directory)
    sys.path.insert(0, str(directory))
    return Validators(directory)


def install(directory: Path) -> None:
    say("validators: pip install (40 MiB)")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="install-") as beside:
        staged = Path(beside, "staged")
        run_quietly(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--no-deps", "--only-binary=:all:", "--require-hashes",
             "--requirement", str(PINS), "--target", str(staged)],
            ADVICE,
        )
        try:
            staged.rename(directory)
        except OSError:
            # Another one was faster; what it made is the same.
            if not directory.is_dir():
                raise
