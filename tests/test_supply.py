"""What is installed: versions that are pinned once, hashes for all but torch, actions by commit."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
CUDA = re.compile(r"(cuda|nvidia)-(?!ml-py)|triton")


def pinned(path: Path) -> dict[str, list[Requirement]]:
    """The requirements of a file by name; each says one version."""
    text = re.sub(r"\\\n|--hash=\S+|#.*", "", path.read_text())
    found = {}
    for line in filter(str.strip, text.splitlines()):
        one = Requirement(line)
        assert re.fullmatch(r"==[^*,]+", str(one.specifier)), line
        found.setdefault(canonicalize_name(one.name), []).append(one)
    return found


KNOWN = pinned(ROOT / "constraints.txt")


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_a_hash_for_every_version_and_the_versions_of_the_constraints(path):
    for entry in re.split(r"\n(?=\S)", path.read_text().strip()):
        assert "--hash=sha256:" in entry, entry
    for name, requirements in pinned(path).items():
        if path.stem in ("book", "test"):
            versions = {str(one.specifier) for one in KNOWN[name]}
            assert {str(one.specifier) for one in requirements} <= versions
        assert name != "torch" and not CUDA.match(name)


def test_locks_and_constraints_hold_all_that_the_project_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {"book": project["dependencies"] + extras["book"]}
    asked["test"] = asked["book"] + extras["sweep"] + extras["test"]
    asked["constraints"] = sum(extras.values(), project["dependencies"])
    files = {path.stem: pinned(path) for path in LOCKS} | {"constraints": KNOWN}
    for name, requirements in asked.items():
        for wanted in map(Requirement, requirements):
            for one in files[name][canonicalize_name(wanted.name)]:
                version = str(one.specifier).removeprefix("==")
                assert wanted.specifier.contains(version), f"{one} in {name}"


def test_no_cuda_package_is_pinned():
    assert not [name for name in KNOWN if CUDA.match(name)]


def test_actions_are_named_by_commit():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for action in re.findall(r"uses: (\S+)", path.read_text()):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
