"""The C library: compiled once for each set of instructions, loaded where the processor has them."""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.engine.processor import cpu_features

SOURCES = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra")
LIBRARIES = ("-lm", "-lpthread")
BUILT = SOURCES / "lib"
SECONDS = 300  # until a compiler hangs

AVX2 = frozenset({"avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


@dataclass(frozen=True)
class Instructions:
    """A set of instructions: what the kernel calls what it needs, and what it multiplies fast."""

    name: str
    features: frozenset[str]
    bf16: bool = False
    vnni: bool = False

    @property
    def flags(self) -> list[str]:
        """The compiler's."""
        flags = [f"-m{feature.replace('_', '')}" for feature in sorted(self.features)]
        return [*flags, "-mprefer-vector-width=512"] if "avx512f" in self.features else flags


# The best first.
INSTRUCTIONS = (
    Instructions("avx512_bf16", AVX512 | {"avx512_vnni", "avx512_bf16"}, bf16=True, vnni=True),
    Instructions("avx512_vnni", AVX512 | {"avx512_vnni"}, vnni=True),
    Instructions("avx_vnni", AVX2 | {"avx_vnni"}, vnni=True),
    Instructions("avx512", AVX512),
    Instructions("avx2", AVX2),
)


class NoLibrary(Exception):
    """There is no library for this processor; the message says what is missing."""


def instructions(held_to: str = "") -> Instructions:
    """The best that the processor has, or `held_to`, by name; NoLibrary if it has none."""
    features = cpu_features()
    for found in INSTRUCTIONS:
        if found.features <= features and held_to in ("", found.name):
            return found
    raise NoLibrary(f"the processor has no {held_to or 'AVX2'}")


@functools.cache
def load_library(wanted: Instructions, cache: Path | None = None) -> ctypes.CDLL:
    """The library for these instructions, compiled if need be; NoLibrary says why it cannot be had."""
    places = [BUILT] if cache is None else [BUILT, cache / "native"]
    for folder in places:
        if (file := folder / _name(wanted)).is_file():
            return _open(file)
    for folder in places:
        with contextlib.suppress(OSError):  # read-only or full: the next place
            return _open(build(wanted, folder))
    # A folder that others can write to is no place to load from the next time.
    try:
        with tempfile.TemporaryDirectory() as passing:
            return _open(build(wanted, Path(passing)))
    except OSError as error:
        raise NoLibrary(f"the compiled library cannot be written: {error}; set EMBED_CACHE_DIR") from error


def build(wanted: Instructions, folder: Path = BUILT) -> Path:
    """Compile the library into a folder; NoLibrary with the compiler's words, OSError if it cannot write."""
    command = find_compiler()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        made = Path(partial) / "library.so"
        _compile([*command, *FLAGS, *wanted.flags], made)
        made.chmod(0o755)
        return made.rename(folder / _name(wanted))


def _open(file: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(file))
    except OSError as error:
        raise NoLibrary(f"{file} cannot be loaded: {error}") from error


def find_compiler() -> list[str]:
    """The command of a C compiler: the system's, or the one in the wheel `ziglang`."""
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise NoLibrary("there is no C compiler: install gcc or clang, or `pip install ziglang`")


def _compile(command: list[str], to: Path) -> None:
    try:
        done = subprocess.run(
            [*command, str(SOURCES / "encoder.c"), "-o", str(to), *LIBRARIES],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise NoLibrary(f"the C compiler {command[0]} cannot be run: {error}") from error
    if done.returncode:
        words = " ".join(done.stderr.split())[:300]
        raise NoLibrary(f"the C compiler {command[0]} failed: {words}")


def _name(wanted: Instructions) -> str:
    """Changes with the source, so that an older library is never loaded."""
    digest = hashlib.sha256(" ".join([*FLAGS, *wanted.flags]).encode())
    for file in sorted(SOURCES.glob("*.[ch]")):
        digest.update(file.read_bytes())
    return f"encoder-{wanted.name}-{digest.hexdigest()[:12]}.so"


def main() -> None:
    """Compile for every processor: `python -m app.engine.native.compiler`, where an image is built."""
    for wanted in INSTRUCTIONS:
        print(build(wanted))


if __name__ == "__main__":
    main()
