"""The .lock files list what the .txt files list, and those list everything that serving needs."""

import re
from importlib.metadata import requires
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = sorted(path.stem for path in ROOT.glob("*.lock"))
PLACES = [
    {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system.lower(),
        "platform_system": system,
        "platform_machine": machine,
        "extra": "",
    }
    for python, (system, machine) in product(
        ("3.11", "3.12", "3.13", "3.14"), (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"))
    )
]


EXPORTS = "# What makes exports"  # the image `slim` has only what stands above this line of requirements.txt
# What slim leaves out although a package names it: tokenizers needs it only to fetch files from a hub.
UNNEEDED = {"tokenizers": {"huggingface-hub"}}


def listed(name: str) -> dict[str, str]:
    """The version of each package in a .txt file, or that a .lock file without one is made of."""
    if name == "requirements-slim":
        lines = (ROOT / "requirements.txt").read_text().partition(EXPORTS)[0].splitlines()
    else:
        lines = (ROOT / f"{name}.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in found}


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """The version of each package in a .lock file, and its hashes."""
    found = {}
    for line in (ROOT / f"{name}.lock").read_text().replace("\\\n", "").splitlines():
        if not line.startswith("#"):
            pin, *hashes = line.split()
            package, version = pin.split("==")
            found[package] = version, hashes
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_lists_what_is_wanted(name):
    wanted = listed(name)
    wanted.pop("torch", None)  # each index has its own builds
    assert {package: version for package, (version, _) in locked(name).items()} == wanted, "run make lock"


def test_every_lock_is_written_by_make_lock():
    makefile = (ROOT / "Makefile").read_text()
    [names] = re.findall(r"^LOCKS := .*requirements-%.lock,(.*)\)$", makefile, re.MULTILINE)
    assert {f"requirements-{name}" for name in [*names.split(), "slim"]} | {"requirements"} == set(LOCKS)
    assert f"/^{EXPORTS}/" in makefile


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_of_everything(name):
    for package, (_, hashes) in locked(name).items():
        assert hashes, package
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", one) for one in hashes), package


def test_the_image_installs_by_hash_all_but_torch():
    dockerfile = (ROOT / "Dockerfile").read_text()
    without = [line for line in re.findall("pip install .*", dockerfile) if "--require-hashes" not in line]
    assert [line.split(" -r ")[1] for line in without] == ["torch.txt \\"]


def needs(package: str) -> list[Requirement]:
    """What a package needs on any of PLACES."""
    found = map(Requirement, requires(package) or [])
    return [one for one in found if one.marker is None or any(map(one.marker.evaluate, PLACES))]


@pytest.mark.parametrize("name", ["requirements", "requirements-slim"])
def test_all_that_serving_needs_is_listed(name):
    """pip is told not to look for dependencies itself."""
    versions = listed(name) | listed("requirements-build")
    unneeded = UNNEEDED if name == "requirements-slim" else {}
    for package in versions:
        for needed in needs(package):
            if needed.name in unneeded.get(package, ()):
                continue
            version = versions.get(canonicalize_name(needed.name))
            assert version, f"{package} needs {needed}, which is not listed"
            assert version in needed.specifier, f"{package} needs {needed}"
