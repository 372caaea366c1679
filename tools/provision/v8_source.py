"""Builds the V8 library from the sources in the `v8` crate, with Debian's clang.

The way for machines that reach neither a copy of the library nor its release. The result has no
Temporal (its Rust crates are not in the crate's sources), no V8 sandbox and no pointer compression.
The work directory survives an interruption, and ninja goes on where it was.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from .paths import REPOSITORY, cache
from .terminal import SetupError, output_of, run_openly, run_quietly, say, warn_of_little_space

TARGET = "x86_64-unknown-linux-gnu"
LLVM_VERSION = "22"
LLVM = Path(f"/usr/lib/llvm-{LLVM_VERSION}")
# What V8's own ICU data is left out for; ICU 77 like the sources. Checked by hash, since this
# crate is in no lock file.
ICU_CRATE = "deno_core_icudata"
ICU_VERSION = "0.77.0"
ICU_DATA_SHA256 = "1cf67874b5a87a8363a86fb3f81e3cbbed54d389062dab8fb52308d5cf8c8612"
# Program or file -> the Debian package that brings it.
NEEDS = {
    LLVM / "bin" / "clang++": f"clang-{LLVM_VERSION}",
    LLVM / "bin" / "ld.lld": f"lld-{LLVM_VERSION}",
    LLVM / "bin" / "llvm-strip": f"llvm-{LLVM_VERSION}",
    LLVM / "lib" / "clang" / LLVM_VERSION / "lib" / "linux" / "libclang_rt.builtins-x86_64.a":
        f"libclang-rt-{LLVM_VERSION}-dev",
    Path("/usr/bin/ninja"): "ninja-build",
}
# Flags of Chromium's clang that the released one refuses.
UNKNOWN_FLAGS = re.compile(
    r"-fdiagnostics-show-inlining-chain|-fno-lifetime-dse|-fsanitize-ignore-for-ubsan-feature="
)
FILES_WITH_UNKNOWN_FLAGS = (
    "build/config/compiler/BUILD.gn",
    "build/config/sanitizers/sanitizers.gni",
)
DISK_BYTES = 6 * 1024**3
# The largest compiler processes take about this much.
BYTES_PER_JOB = 2 * 1024**3
ADVICE = "the lines above say why; running it again goes on where it stopped"


def build(version: str, target: str, file_name: str) -> Path:
    """The finished library, in the work directory."""
    work = work_directory(version)
    out = prepare(version, target)
    say(f"V8 {version}: compiling, 75 to 110 minutes on two cores")
    run_openly(["ninja", "-C", str(out), "-j", str(n_jobs()), "rusty_v8"], ADVICE)
    stripped = work / file_name.removesuffix(".gz")
    run_quietly(
        [str(LLVM / "bin" / "llvm-strip"), "--strip-debug", "-o", str(stripped),
         str(out / "obj" / "librusty_v8.a")], ADVICE,
    )
    say(f"V8 {version}: compressing")
    packed = work / file_name
    with open(stripped, "rb") as plain, open(packed, "wb") as file:
        # Neither time nor name: the same library gives the same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as archive:
            shutil.copyfileobj(plain, archive, 1024 * 1024)
    return packed


def prepare(version: str, target: str) -> Path:
    """Everything up to the compilation; the directory for ninja."""
    if target != TARGET:
        raise SetupError(f"The recipe for V8 is known for {TARGET}, not for {target}: set "
                         "RUSTY_V8_ARCHIVE to a library built for it.")
    work = work_directory(version)
    work.mkdir(parents=True, exist_ok=True)
    warn_of_little_space(work, DISK_BYTES, "building V8")
    install_packages()
    source = patched_source(version, work)
    compiler = compiler_tree(work)
    return generate(source, compiler, work)


def clean(version: str) -> None:
    """Removes the work directory."""
    shutil.rmtree(work_directory(version), ignore_errors=True)


def work_directory(version: str) -> Path:
    return cache() / f"v8-{version}"


def install_packages() -> None:
    missing = [package for path, package in NEEDS.items() if not path.exists()]
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError("Building V8 needs packages of Debian, so become root and run "
                         f"`{' '.join(command)}`, then try again.")
    say(f"V8: apt-get install {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    advice = f"Debian 12 or later has these packages: {' '.join(missing)}"
    run_quietly(["apt-get", "update"], advice, env=environment)
    run_quietly(command, advice, env=environment)


def patched_source(version: str, work: Path) -> Path:
    """A copy of the crate's sources with what is missing added and what does not fit removed."""
    source = work / "source"
    if source.exists():
        return source
    say(f"V8 {version}: sources from the crates v8 and {ICU_CRATE}")
    crate = fetched(work, "v8", version)
    icu_data = fetched(work, ICU_CRATE, ICU_VERSION) / "src" / "icudtl.dat"
    if hashlib.sha256(icu_data.read_bytes()).hexdigest() != ICU_DATA_SHA256:
        raise SetupError(f"{icu_data} is not the file this recipe was written for.")
    staging = work / "source.new"
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(crate, staging, symlinks=True)
    icu = staging / "third_party" / "icu" / "common"
    icu.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(icu_data, icu / "icudtl.dat")
    for name in FILES_WITH_UNKNOWN_FLAGS:
        file = staging / name
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not UNKNOWN_FLAGS.search(line)]
        file.write_text("".join(kept), encoding="utf-8")
    staging.rename(source)
    return source


def fetched(work: Path, crate: str, version: str) -> Path:
    """Where cargo unpacked a crate, after fetching it: of the workspace as its lock file says, any
    other through a package made for that."""
    locked = f'name = "{crate}"\nversion = "{version}"'
    if locked in (REPOSITORY / "Cargo.lock").read_text(encoding="utf-8"):
        root, flags = REPOSITORY, ["--locked"]
    else:
        root, flags = work / f"fetch-{crate}", []
        (root / "src").mkdir(parents=True, exist_ok=True)
        (root / "src" / "lib.rs").touch()
        (root / "Cargo.toml").write_text(
            '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n'
            f'[dependencies]\n{crate} = "={version}"\n[workspace]\n',
            encoding="utf-8",
        )
    advice = "check that the crates registry can be reached"
    run_openly(["cargo", "fetch", *flags], advice, cwd=root)
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--offline", *flags],
        cwd=root, check=True, capture_output=True, text=True,
    ).stdout)
    (manifest,) = (
        package["manifest_path"]
        for package in metadata["packages"]
        if package["name"] == crate and package["version"] == version
    )
    return Path(manifest).parent


def compiler_tree(work: Path) -> Path:
    """Debian's clang, seen with the directory names that the build files expect.

    They look for the compiler's runtime by target triple; Debian's package has it by system.
    """
    tree = work / "llvm"
    runtime = tree / "lib" / "clang" / LLVM_VERSION
    original = LLVM / "lib" / "clang" / LLVM_VERSION
    link(tree / "bin", LLVM / "bin")
    link(runtime / "include", original / "include")
    link(
        runtime / "lib" / TARGET / "libclang_rt.builtins.a",
        original / "lib" / "linux" / "libclang_rt.builtins-x86_64.a",
    )
    return tree


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(to)


def generate(source: Path, compiler: Path, work: Path) -> Path:
    """Ninja files, by the first GN that understands the sources."""
    out = work / "out"
    arguments = " ".join([
        "is_debug=false", "symbol_level=0", "treat_warnings_as_errors=false", "use_glib=false",
        f'clang_base_path="{compiler}"', f'clang_version="{LLVM_VERSION}"',
        "use_custom_libcxx=true", "v8_monolithic_for_shared_library=true",
        "v8_enable_sandbox=false", "v8_enable_pointer_compression=false",
        "v8_enable_v8_checks=false", "rusty_v8_enable_simdutf=true",
        "enable_rust=false", "enable_rust_cxx=false", "v8_enable_temporal_support=false",
    ])
    gen = [f"--root={source}", "--script-executable=python3", "gen", str(out), f"--args={arguments}"]
    installed = os.environ.get("GN") or shutil.which("gn")
    # A GN that is too old fails at once. Its version does not tell: Debian's prints none.
    if installed and output_of([installed, *gen]) is not None:
        return out
    gn = newest_gn(work)
    run_quietly([str(gn), *gen], "the lines above are GN's", cwd=source)
    name_regeneration(out, gn)
    return out


def newest_gn(work: Path) -> Path:
    """GN of Debian's unstable suite with that suite's C library, unpacked and not installed."""
    directory = work / "gn"
    wrapper = directory / "gn"
    if wrapper.exists():
        return wrapper
    advice = "put a GN of 2025 or later into the PATH, or name it in GN"
    mirrors = output_of([
        "apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages",
    ]) or ""
    mirror = next((line.split()[1] for line in mirrors.splitlines() if line.startswith("Debian ")), None)
    if mirror is None:
        raise SetupError(f"V8's build files need a newer GN than there is: {advice}.")
    say("V8: GN from Debian's unstable suite, unpacked and not installed")
    staging = work / "gn.new"
    shutil.rmtree(staging, ignore_errors=True)
    for part in ("lists/partial", "cache", "packages"):
        (staging / part).mkdir(parents=True)
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = staging / "sources.list"
    sources.write_text(f"deb [signed-by={keys}] {mirror} sid main\n", encoding="utf-8")
    apt = [
        "apt-get",
        "-o", f"Dir::Etc::sourcelist={sources}",
        "-o", "Dir::Etc::sourceparts=/dev/null",
        "-o", f"Dir::State::lists={staging / 'lists'}",
        "-o", "Dir::State::status=/dev/null",
        "-o", f"Dir::Cache={staging / 'cache'}",
        "-o", "APT::Sandbox::User=",
    ]
    run_quietly([*apt, "update"], advice)
    packages = ["generate-ninja", "libc6", "libgcc-s1", "libstdc++6"]
    run_quietly([*apt, "download", *packages], advice, cwd=staging / "packages")
    for package in (staging / "packages").glob("*.deb"):
        run_quietly(["dpkg-deb", "--extract", str(package), str(staging)], advice)
    for used in ("lists", "cache", "packages"):
        shutil.rmtree(staging / used)
    shutil.rmtree(directory, ignore_errors=True)
    staging.rename(directory)
    libraries = directory / "usr" / "lib" / "x86_64-linux-gnu"
    # Unstable's program with unstable's loader: this system's C library may be older.
    wrapper.write_text(
        f"#!/bin/sh\nexec '{libraries}/ld-linux-x86-64.so.2' --library-path '{libraries}' "
        f"'{directory}/usr/bin/gn' \"$@\"\n",
        encoding="utf-8",
    )
    wrapper.chmod(0o755)
    return wrapper


def name_regeneration(out: Path, gn: Path) -> None:
    """Lets ninja call the wrapper when build files change: GN wrote down the loader's name."""
    file = out / "build.ninja"
    text = file.read_text(encoding="utf-8")
    renamed, n_renamed = re.subn(
        r"^(rule gn\n  command = )\S+", rf"\g<1>{gn}", text, count=1, flags=re.MULTILINE
    )
    if n_renamed != 1:
        raise SetupError(f"{file} has no rule for GN where one was expected: {ADVICE}.")
    file.write_text(renamed, encoding="utf-8")


def n_jobs() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // BYTES_PER_JOB))
