"""The C library: compiled once for each instruction set, and loaded if the processor has it."""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.engine.processor import cpu_features

SOURCES = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra")
LIBRARIES = ("-lm", "-lpthread")
BUILT = SOURCES / "lib"
SECONDS = 300  # after this the compiler counts as hung

AVX2 = frozenset({"avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


@dataclass(frozen=True)
class Instructions:
    """An instruction set, and the features that it needs, by the kernel's names."""

    name: str
    features: frozenset[str]

    @property
    def bf16(self) -> bool:
        """Whether its library supports bf16."""
        return "avx512_bf16" in self.features

    @property
    def flags(self) -> list[str]:
        """Flags for the compiler."""
        flags = [f"-m{feature.replace('_', '')}" for feature in sorted(self.features)]
        return [*flags, "-mprefer-vector-width=512"] if "avx512f" in self.features else flags


# Best first.
INSTRUCTIONS = (
    Instructions("avx512_bf16", AVX512 | {"avx512_vnni", "avx512_bf16"}),
    Instructions("avx512_vnni", AVX512 | {"avx512_vnni"}),
    Instructions("avx_vnni", AVX2 | {"avx_vnni"}),
    Instructions("avx512", AVX512),
    Instructions("avx2", AVX2),
)


class NoLibrary(Exception):
    """There is no library for this processor; the message says what is missing."""


def instructions(held_to: str = "") -> list[Instructions]:
    """The sets that the processor has, best first, or only `held_to`; raises NoLibrary if it has none."""
    features = cpu_features()
    found = [row for row in INSTRUCTIONS if row.features <= features and held_to in ("", row.name)]
    if not found:
        raise NoLibrary(f"the processor has no {held_to or 'AVX2'}")
    return found


@functools.cache
def load_library(held_to: str = "", cache: Path | None = None) -> tuple[ctypes.CDLL, Instructions]:
    """Load the library for the best instructions possible, compiled if necessary; NoLibrary says why not."""
    why = ""
    for wanted in instructions(held_to):  # an older compiler may not know the newest set
        try:
            return _load(wanted, cache), wanted
        except NoLibrary as error:
            why = why or str(error)
    raise NoLibrary(why)


def _load(wanted: Instructions, cache: Path | None) -> ctypes.CDLL:
    places = [BUILT] if cache is None else [BUILT, cache / "native"]
    for folder in places:
        file = folder / _name(wanted)
        if file.is_file() and (folder == BUILT or _is_ours(file)):
            with contextlib.suppress(OSError):  # damaged, or from another system: compile again
                return ctypes.CDLL(str(file))
    for folder in places:
        with contextlib.suppress(OSError):  # read-only or full: try the next place
            return ctypes.CDLL(str(build(wanted, folder)))
    # Only for this process: the next start must not load code from a folder that others can write to.
    try:
        with tempfile.TemporaryDirectory() as passing:
            return ctypes.CDLL(str(build(wanted, Path(passing))))
    except OSError as error:
        raise NoLibrary(f"the compiled library cannot be written: {error}; set EMBED_CACHE_DIR") from error


def _is_ours(file: Path) -> bool:
    """Whether nobody else can have put the file there, as code is loaded from it."""
    mine = (os.getuid(), 0)
    found = [path.stat() for path in (file, file.parent)]
    return all(stat.st_uid in mine and not stat.st_mode & 0o022 for stat in found)


def build(wanted: Instructions, folder: Path = BUILT) -> Path:
    """Compile into a folder; raises NoLibrary with the compiler's message, OSError if it cannot write."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    why = ""
    for command in compilers():
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            made = Path(partial) / "library.so"
            try:
                _compile([*command, *FLAGS, *wanted.flags], made)
            except NoLibrary as error:
                why = why or str(error)
                continue
            made.chmod(0o755)
            return made.rename(folder / _name(wanted))
    raise NoLibrary(why or "there is no C compiler: install gcc or clang, or `pip install ziglang`")


def compilers() -> Iterator[list[str]]:
    """Commands of C compilers: the system's, then the one in the wheel `ziglang`."""
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            yield [found]
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "cc"]


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
    """A file name that changes with the source, so that an older library is never loaded."""
    digest = hashlib.sha256(" ".join([*FLAGS, *wanted.flags]).encode())
    for file in sorted(SOURCES.glob("*.[ch]")):
        digest.update(file.read_bytes())
    return f"encoder-{wanted.name}-{digest.hexdigest()[:12]}.so"


def main() -> None:
    """Compile for every processor, when an image is built: `python -m app.engine.native.compiler`."""
    if platform.machine() not in ("x86_64", "AMD64"):
        print("the native engine is for x86 processors: nothing to compile")
        return
    for wanted in INSTRUCTIONS:
        print(build(wanted))


if __name__ == "__main__":
    main()
