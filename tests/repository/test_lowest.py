"""tests/lowest.txt: the oldest versions that pyproject.toml allows, as constraints for pip."""

import tomllib

from tests.helpers import ROOT


def test_the_constraints_are_the_lower_bounds_of_the_direct_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    bounds = [*project["dependencies"], *(bound for extra in extras for bound in extra)]
    bounds = [bound for bound in bounds if not bound.startswith(project["name"])]  # another extra
    lines = (ROOT / "tests/lowest.txt").read_text("utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert pinned == [bound.replace(">=", "==") for bound in bounds]
    assert all(line.count("==") == 1 for line in pinned)
