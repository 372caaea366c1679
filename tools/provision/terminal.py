"""What the set-up says: one line per thing it does, progress with sizes, one sentence on failure."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

MIB = 1024 * 1024
# How often progress is written where lines cannot be overwritten, as in a CI log.
PROGRESS_INTERVAL_S = 10
# How much of a failed program's output is shown.
TAIL_LINES = 30


class SetupError(Exception):
    """One sentence: what is wrong and what to do."""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


class Progress:
    """Counts bytes and shows how many of how many there are."""

    def __init__(self, what: str, total_bytes: int | None) -> None:
        self._what = what
        self._total = total_bytes
        self._done = 0
        self._overwrites = sys.stdout.isatty()
        self._interval_s = 0.2 if self._overwrites else PROGRESS_INTERVAL_S
        self._shown_at = time.monotonic()

    def add(self, n_bytes: int) -> None:
        self._done += n_bytes
        now = time.monotonic()
        if now - self._shown_at >= self._interval_s:
            self._shown_at = now
            self._show("\r" if self._overwrites else "\n")

    def finish(self) -> None:
        self._show("\n")

    def _show(self, end: str) -> None:
        total = f" of {self._total / MIB:.1f}" if self._total else ""
        print(f"setup: {self._what}: {self._done / MIB:.1f}{total} MiB ", end=end, flush=True)


def require(program: str, advice: str) -> str:
    """Path of a program, or the sentence that says how to get it."""
    found = shutil.which(program)
    if found is None:
        raise SetupError(f"{program} is not installed: {advice}.")
    return found


def output_of(command: list[str]) -> str | None:
    """What a program prints, or `None` if it cannot be run or fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def run_quietly(command: list[str], advice: str, **options) -> None:
    """Runs a program; shows what it said only if it fails, with the advice."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        **options,
    )
    if done.returncode != 0:
        print("\n".join(done.stdout.splitlines()[-TAIL_LINES:]), file=sys.stderr)
        raise SetupError(f"`{' '.join(command)}` failed: {advice}.")


def run_openly(command: list[str], advice: str, **options) -> None:
    """Runs a program that takes long; its output goes to the terminal."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, **options)
    if done.returncode != 0:
        raise SetupError(f"`{' '.join(command)}` failed: {advice}.")


def warn_of_little_space(directory: Path, needed_bytes: int, what: str) -> None:
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        say(f"warning: {what} takes {needed_bytes // 1024**3} GiB; {directory} has "
            f"{free / 1024**3:.1f} GiB free")
