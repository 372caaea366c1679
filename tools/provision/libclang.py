"""libclang: bindgen loads it while the bindings of SQLite are made.

Found where bindgen's loader looks, else installed as a Debian package (root), else unpacked from
the wheel that `libclang.txt` pins. The wheel lies where nothing looks and lacks the compiler's own
headers (`stdarg.h`), so cargo is told of both in `.cargo/config.toml`, which git ignores. That file
is left alone once it works: bindgen, and what is built with it, compiles again when these
variables change.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .paths import REPOSITORY, TOOLS, cache
from .terminal import SetupError, output_of, run_quietly, say

CONFIG = REPOSITORY / ".cargo" / "config.toml"
CONFIG_HEAD = "# Written by tools/setup: no system package brings libclang here.\n"
# Where clang-sys, which bindgen uses, looks besides `llvm-config`.
DIRECTORIES = (
    "/usr/lib/llvm-*/lib",
    "/usr/local/llvm*/lib*",
    "/usr/lib/*-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib64",
    "/usr/local/lib",
)
NAMES = ("libclang.so", "libclang-*.so", "libclang.so.*", "libclang-*.so.*")
# Includes what SQLite's header does.
PROBE = b"#include <stdarg.h>\nva_list probe;\n"
BY_HAND = "install libclang (on Debian: `apt-get install libclang-dev`) or set LIBCLANG_PATH"


def provide() -> None:
    given = os.environ.get("LIBCLANG_PATH")
    if given:
        if not any(parses(library, extra_arguments()) for library in libraries(given)):
            raise SetupError(f"LIBCLANG_PATH is {given}, which holds no usable libclang: unset it, "
                             "or name the directory of libclang.so.")
        return
    if configured_works() or found_in_system():
        return
    if os.geteuid() == 0 and shutil.which("apt-get") and installed_from_debian():
        return
    configure(unpacked_wheel())


def found_in_system() -> bool:
    directories = [d for pattern in DIRECTORIES for d in sorted(glob.glob(pattern), reverse=True)]
    of_llvm_config = output_of([os.environ.get("LLVM_CONFIG_PATH", "llvm-config"), "--libdir"])
    if of_llvm_config:
        directories.insert(0, of_llvm_config)
    known = output_of(["ldconfig", "-p"]) or output_of(["/sbin/ldconfig", "-p"]) or ""
    directories += [str(Path(path).parent) for path in re.findall(r"=> (\S*/libclang[-.]\S*)", known)]
    return any(
        parses(library, extra_arguments())
        for directory in dict.fromkeys(directories)
        for library in libraries(directory)
    )


def libraries(location: str) -> list[Path]:
    if os.path.isfile(location):
        return [Path(location)]
    found = [path for name in NAMES for path in sorted(Path(location).glob(name))]
    return [path for path in found if not path.name.startswith("libclang-cpp")]


def parses(library: Path, arguments: list[str]) -> bool:
    """Whether this library reads a C file that includes a compiler header.

    Tried in a process of its own, since a broken library can take its process down.
    """
    code = "import sys; from provision import libclang; sys.exit(libclang.probe(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(library), *arguments],
        cwd=TOOLS, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )
    return done.returncode == 0


def probe(arguments: list[str]) -> int:
    """Number of errors, by libclang's C interface."""

    class UnsavedFile(ctypes.Structure):
        _fields_ = [
            ("name", ctypes.c_char_p),
            ("contents", ctypes.c_char_p),
            ("length", ctypes.c_ulong),
        ]

    library, *flags = arguments
    clang = ctypes.CDLL(library)
    clang.clang_createIndex.restype = ctypes.c_void_p
    clang.clang_parseTranslationUnit.restype = ctypes.c_void_p
    clang.clang_parseTranslationUnit.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int,
        ctypes.POINTER(UnsavedFile), ctypes.c_uint, ctypes.c_uint,
    ]
    clang.clang_getNumDiagnostics.argtypes = [ctypes.c_void_p]
    source = UnsavedFile(b"probe.c", PROBE, len(PROBE))
    argv = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
    unit = clang.clang_parseTranslationUnit(
        clang.clang_createIndex(0, 0), b"probe.c", argv, len(flags), ctypes.byref(source), 1, 0
    )
    return clang.clang_getNumDiagnostics(unit) if unit else 1


def extra_arguments() -> list[str]:
    return os.environ.get("BINDGEN_EXTRA_CLANG_ARGS", "").split()


def installed_from_debian() -> bool:
    say("libclang: apt-get install libclang-dev (30 MiB)")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", "libclang-dev"]
    try:
        run_quietly(["apt-get", "update"], BY_HAND, env=environment)
        run_quietly(install, BY_HAND, env=environment)
    except SetupError as error:
        say(f"libclang: {error} Trying the wheel instead")
        return False
    return found_in_system()


def unpacked_wheel() -> Path:
    """Directory of the wheel's library, after downloading and unpacking it if need be."""
    pin = TOOLS / "libclang.txt"
    version = re.search(r"^libclang==(\S+)", pin.read_text(encoding="utf-8"), re.MULTILINE).group(1)
    directory = cache() / f"libclang-{version}"
    if (directory / "libclang.so").is_file():
        return directory
    if output_of([sys.executable, "-m", "pip", "--version"]) is None:
        raise SetupError(f"libclang is not installed, and without pip it cannot be fetched: {BY_HAND}.")
    say(f"libclang {version}: the wheel, by pip (23 MiB)")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="libclang-") as staging:
        run_quietly(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
             "--require-hashes", "--quiet", "--requirement", str(pin), "--dest", staging],
            BY_HAND,
        )
        (wheel,) = Path(staging).glob("*.whl")
        unpacked = Path(staging) / "unpacked"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/libclang.so"))
            with archive.open(member) as source, open(unpacked / "libclang.so", "wb") as target:
                shutil.copyfileobj(source, target)
        shutil.rmtree(directory, ignore_errors=True)
        unpacked.rename(directory)
    return directory


def compiler_headers() -> Path:
    """Directory of the C compiler's own headers."""
    printed = output_of(["cc", "-print-file-name=include"])
    if not printed or not Path(printed).is_dir():
        raise SetupError(f"`cc -print-file-name=include` names no directory: {BY_HAND}.")
    return Path(printed).resolve()


def configure(directory: Path) -> None:
    headers = compiler_headers()
    if not parses(directory / "libclang.so", [f"-isystem{headers}"]):
        raise SetupError(f"{directory}/libclang.so does not work with the headers in {headers}: "
                         f"remove {directory} and {BY_HAND}.")
    lines = [
        "[env]",
        f"LIBCLANG_PATH = {json.dumps(str(directory))}",
        f"BINDGEN_EXTRA_CLANG_ARGS = {json.dumps(f'-isystem{headers}')}",
    ]
    if CONFIG.exists() and not CONFIG.read_text(encoding="utf-8").startswith(CONFIG_HEAD):
        raise SetupError(f"{CONFIG} is yours, so add these lines to it and try again: "
                         + "; ".join(lines) + ".")
    CONFIG.parent.mkdir(exist_ok=True)
    staged = CONFIG.with_suffix(".new")
    staged.write_text(CONFIG_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    staged.replace(CONFIG)
    say(f"libclang: cargo is told where it is in {CONFIG.relative_to(REPOSITORY)}")


def configured_works() -> bool:
    """Whether cargo's configuration of this checkout names a library that works."""
    try:
        text = CONFIG.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    values = dict(re.findall(r'^(\w+) = "([^"]*)"$', text, re.MULTILINE))
    if "LIBCLANG_PATH" not in values:
        return False
    arguments = values.get("BINDGEN_EXTRA_CLANG_ARGS", "").split()
    return any(parses(library, arguments) for library in libraries(values["LIBCLANG_PATH"]))
