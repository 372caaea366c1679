"""The V8 library: found, fetched or built, verified, and put where cargo looks for it.

The `v8` crate's build script takes the library from the cargo home's cache before it tries to
download it. Everything here ends in that one file, so that plain `cargo build` works without any
variable. Invariant: what is put there has a hash that `tools/v8.sha256` lists, or one that was
recorded beside it when it came from upstream's release or from a build.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import re
import shutil
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import v8_source
from .paths import REPOSITORY, TOOLS, cargo_home
from .terminal import Progress, SetupError, say
from .toolchain import host_target, locked_version

UPSTREAM = "https://github.com/denoland/rusty_v8/releases/download"
# The engine is used with the crate's feature `simdutf`.
FEATURES = "_simdutf"
DOWNLOAD_TIMEOUT_S = 60
CHUNK_BYTES = 1024 * 1024
GZIP_MAGIC = b"\x1f\x8b"
ARCHIVE_MAGIC = b"!<arch>\n"
# No connection, a refusal, an end too early, or something else than was asked for.
TRANSFER_ERRORS = (OSError, EOFError, http.client.HTTPException, zlib.error)


@dataclass(frozen=True)
class Library:
    """The file the build script of the locked `v8` crate wants on this machine."""

    version: str
    target: str

    @classmethod
    def wanted(cls) -> Library:
        return cls(locked_version("v8"), host_target())

    @property
    def file_name(self) -> str:
        return f"librusty_v8{FEATURES}_release_{self.target}.a.gz"

    @property
    def url(self) -> str:
        base = os.environ.get("RUSTY_V8_MIRROR", UPSTREAM)
        return f"{base}/v{self.version}/{self.file_name}"

    @property
    def cached(self) -> Path:
        """Where the build script looks: the URL, its punctuation replaced."""
        return cargo_home() / ".rusty_v8" / re.sub(r"[^0-9A-Za-z]", "_", self.url)

    @property
    def record(self) -> Path:
        """Hashes taken at first use, each with where the file came from."""
        return self.cached.with_name(self.cached.name + ".sha256")

    def known_hashes(self) -> set[str]:
        plain = self.file_name.removesuffix(".gz")
        names = {f"v{self.version}/{name}" for name in (self.file_name, plain)}
        lines = (TOOLS / "v8.sha256").read_text(encoding="utf-8").splitlines()
        entries = (line.split() for line in lines if line and not line.startswith("#"))
        return {digest for digest, name in entries if name in names}

    def recorded_hashes(self) -> dict[str, str]:
        try:
            lines = self.record.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        return dict(line.split(maxsplit=1) for line in lines)

    def trusts(self, digest: str) -> bool:
        return digest in self.known_hashes() or digest in self.recorded_hashes()


def provide(build_if_needed: bool) -> None:
    library = Library.wanted()
    given = os.environ.get("RUSTY_V8_ARCHIVE")
    if given:
        take_given(library, given)
        return
    if library.cached.exists():
        if library.trusts(hash_of(library.cached)):
            return
        say(f"V8 {library.version}: the file in {library.cached.parent} is damaged or unknown; "
            "replacing it")
    if take_shared(library) or take_upstream(library):
        return
    if not build_if_needed:
        raise SetupError("The V8 library is not at hand and may not be built: set RUSTY_V8_ARCHIVE "
                         "to one, or run tools/build-v8.")
    build(library)


def take_given(library: Library, given: str) -> None:
    is_url = given.startswith(("http:", "https:"))
    # What was fetched once is not fetched again; files are cheap to compare.
    if is_url and library.cached.exists() and library.trusts(hash_of(library.cached)):
        return
    with (fetched(given, library) if is_url else existing(given)) as path:
        digest = hash_of(path)
        if not library.trusts(digest):
            raise SetupError(f"RUSTY_V8_ARCHIVE names {given}, whose SHA-256 {digest} is not in "
                             "tools/v8.sha256: add it there if you trust the file, or unset the "
                             "variable.")
        if not library.cached.exists() or hash_of(library.cached) != digest:
            install(library, path, "RUSTY_V8_ARCHIVE")


@contextmanager
def fetched(given: str, library: Library) -> Iterator[Path]:
    try:
        with downloaded(given, library) as path:
            yield path
    except TRANSFER_ERRORS as error:
        raise SetupError(f"RUSTY_V8_ARCHIVE names {given}, which cannot be had "
                         f"({reason_of(error)}): correct or unset it.") from error


@contextmanager
def existing(given: str) -> Iterator[Path]:
    path = Path(given)
    if not path.is_file():
        raise SetupError(f"RUSTY_V8_ARCHIVE names {given}, which is not a file: correct or unset it.")
    yield path


def take_shared(library: Library) -> bool:
    """A directory beside the checkout, for machines that reach no release server."""
    path = REPOSITORY.parent / "shared" / "v8" / library.file_name
    if not path.is_file():
        return False
    digest = hash_of(path)
    if not library.trusts(digest):
        say(f"V8 {library.version}: skipping {path}, whose SHA-256 {digest} is not in "
            "tools/v8.sha256")
        return False
    install(library, path, str(path.parent))
    return True


def take_upstream(library: Library) -> bool:
    try:
        with downloaded(library.url, library) as path:
            digest = hash_of(path)
            earlier = [d for d, origin in library.recorded_hashes().items() if origin == library.url]
            if earlier and digest not in earlier:
                raise SetupError(f"{library.url} has SHA-256 {digest}, and at first use it had "
                                 f"{earlier[0]}: find out why, then remove {library.record}.")
            if not library.trusts(digest):
                check_is_library(path)
                record(library, digest, library.url)
            install(library, path, "upstream's release")
            return True
    except TRANSFER_ERRORS as error:
        say(f"V8 {library.version}: {library.url} cannot be had ({reason_of(error)})")
        return False


def build(library: Library) -> None:
    """Builds the library from the sources of the crate and installs it."""
    path = v8_source.build(library.version, library.target, library.file_name)
    check_is_library(path)
    record(library, hash_of(path), "built from source")
    install(library, path, "the build")
    v8_source.clean(library.version)


@contextmanager
def downloaded(url: str, library: Library) -> Iterator[Path]:
    """A download, complete, in a temporary file on the cache's file system."""
    directory = library.cached.parent
    directory.mkdir(parents=True, exist_ok=True)
    say(f"V8 {library.version}: downloading {url}")
    with tempfile.NamedTemporaryFile(dir=directory, prefix="download-") as target:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:
            length = answer.headers.get("Content-Length")
            total = int(length) if length else None
            progress = Progress(f"V8 {library.version}", total)
            n_bytes = 0
            while chunk := answer.read(CHUNK_BYTES):
                target.write(chunk)
                n_bytes += len(chunk)
                progress.add(len(chunk))
        target.flush()
        progress.finish()
        if total is not None and n_bytes != total:
            raise EOFError(f"{n_bytes} of {total} bytes came")
        yield Path(target.name)


def install(library: Library, source: Path, origin: str) -> None:
    """Copies into the cache; the file there is the old one or the complete new one."""
    directory = library.cached.parent
    directory.mkdir(parents=True, exist_ok=True)
    size = source.stat().st_size
    say(f"V8 {library.version}: {size / CHUNK_BYTES:.0f} MiB from {origin} into {directory}")
    with tempfile.NamedTemporaryFile(dir=directory, prefix="install-", delete=False) as target:
        try:
            with open(source, "rb") as content:
                shutil.copyfileobj(content, target, CHUNK_BYTES)
            target.flush()
            os.fsync(target.fileno())
            os.fchmod(target.fileno(), 0o644)
            os.replace(target.name, library.cached)
        except BaseException:
            os.unlink(target.name)
            raise
    if not library.trusts(hash_of(library.cached)):
        raise SetupError(f"{source} changed while it was copied: run `make setup` again.")


def record(library: Library, digest: str, origin: str) -> None:
    library.record.parent.mkdir(parents=True, exist_ok=True)
    entries = {**library.recorded_hashes(), digest: origin}
    lines = (f"{known} {where}\n" for known, where in entries.items())
    staged = library.record.with_name(library.record.name + ".new")
    staged.write_text("".join(lines), encoding="utf-8")
    staged.replace(library.record)
    say(f"V8 {library.version}: first use, SHA-256 {digest} recorded in {library.record}")


def reason_of(error: BaseException) -> object:
    return getattr(error, "reason", error)


def hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_is_library(path: Path) -> None:
    """Refuses what no build could use, such as the page of a network's login."""
    with open(path, "rb") as content:
        is_compressed = content.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    with (gzip.open(path) if is_compressed else open(path, "rb")) as content:
        if content.read(len(ARCHIVE_MAGIC)) != ARCHIVE_MAGIC:
            raise EOFError("what came is not a static library")
        # To the end: the checksum comes last.
        while content.read(CHUNK_BYTES):
            pass
