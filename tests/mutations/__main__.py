"""Try each mutation and tell which test noticed it.

The tree is copied, the line broken in the copy, and the named test files run there until one test
fails. Exit status 1: a mutation survived, or its line is no longer there.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutations import MUTATIONS
from tests.mutations.mutation import ROOT, Mutation

FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


def copy_tree(target: Path) -> None:
    """Copy the files that git tracks or would add."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():  # not a deleted one
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def first_failure(tree: Path, names: Iterable[str]) -> str | None:
    """The first test that fails in a copy of the tree; None: none does."""
    tests = [next((ROOT / "tests").rglob(f"test_{name}.py")) for name in names]
    files = [str(test.relative_to(ROOT)) for test in tests]
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    found = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    if found.returncode == 0:
        return None
    if found.returncode != 1 or not (test := FAILED.search(found.stdout)):
        raise RuntimeError(f"pytest could not run:\n{found.stdout}{found.stderr}")
    return test[1].removeprefix("tests/")


def noticed_by(mutation: Mutation, tree: Path) -> str | None:
    """The first test that fails while a line is broken in a copy of the tree."""
    whole = (tree / mutation.path).read_bytes()
    mutation.apply(tree)
    try:
        return first_failure(tree, mutation.tests)
    finally:
        (tree / mutation.path).write_bytes(whole)


def main() -> int:
    """Try each mutation and tell which test noticed it."""
    survived = 0
    with TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        names = dict.fromkeys(name for mutation in MUTATIONS for name in mutation.tests)
        if test := first_failure(Path(folder), names):
            raise RuntimeError(f"{test} fails with nothing broken; mend it first")
        for mutation in MUTATIONS:
            test = noticed_by(mutation, Path(folder))
            survived += test is None
            print(f"{mutation.path}: {mutation.name}: {test or 'SURVIVED'}", flush=True)
    print(f"{len(MUTATIONS) - survived} of {len(MUTATIONS)} noticed")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
