"""Runs the native engine's tests with a library that checks every memory access: `make test-sanitized`."""

import sys
import tempfile
from pathlib import Path

import pytest

from app.engine.native import compiler

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g")
# The sanitizer's library must be loaded first, and it slows the whole process, so only some tests run.
CONCERNED = "products or company or first_or_last or narrower or finite or threads or same_vectors"

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        compiler.FLAGS = (*compiler.FLAGS, *SANITIZE)
        compiler.BUILT = Path(folder)
        sys.exit(pytest.main(["-q", "tests/test_native.py", "-k", CONCERNED]))
