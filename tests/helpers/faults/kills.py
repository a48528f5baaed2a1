"""kill -9 at random moments of `dvc repro`, some of them in the middle of a write."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.helpers.faults.project import PATIENCE_S, Project, kill_group, stage_of, wait_for_stage

STAGES = ("prepare", "pseudo", "train", "eval")
PER_PROJECT = 5  # kills, then a new project: its stages are all still to come


@dataclass(frozen=True)
class Reference:
    """A run that nothing disturbed: its outputs, and how long each stage took."""

    outputs: dict[str, str]
    seconds: dict[str, float]


def undisturbed(folder: Path) -> Reference:
    """Run the pipeline from nothing to the end."""
    project = Project.make(folder)
    run, seconds, last = project.start("dvc", "repro"), dict.fromkeys(STAGES, 0.0), time.monotonic()
    end = last + PATIENCE_S
    while run.poll() is None and last < end:
        time.sleep(0.05)
        now = time.monotonic()
        stage = stage_of(run)
        seconds[stage] = seconds.get(stage, 0.0) + now - last
        last = now
    assert run.poll() == 0, run.log.read_text()
    assert project.leftovers() == []
    return Reference(project.outputs(), seconds)


def kill_and_compare(
    folder: Path,
    reference: Reference,
    *,
    kills: int,
    random: Random,
    tell: Callable[[str], None],
) -> None:
    """Kill so many times, and after each few let `dvc repro` finish and compare.

    Args:
        folder: for the projects.
        reference: what must come out.
        kills: how many.
        random: draws the moments.
        tell: is given a line for each kill.
    """
    for begin in range(0, kills, PER_PROJECT):
        project = Project.make(folder / f"killed-{begin}")
        count = min(PER_PROJECT, kills - begin)
        stages = sorted(random.choices(STAGES, k=count), key=STAGES.index)
        for number, stage in enumerate(stages, start=begin + 1):
            moment = random.uniform(0, reference.seconds[stage])
            killed = kill(project, stage, None if random.random() < 0.5 else moment)
            tell(f"{number}: {killed}")
        project.finish("dvc", "repro")
        found = project.outputs()
        different = {
            name
            for name in found | reference.outputs
            if found.get(name) != reference.outputs.get(name)
        }
        assert not different, f"after kills in {stages}: {sorted(different)}"
        assert project.leftovers() == []


def kill(project: Project, stage: str, moment: float | None) -> str:
    """Start `dvc repro` and kill all of it.

    Args:
        project: where.
        stage: which must be running.
        moment: seconds after it began, or None: as soon as it is writing something.

    Returns:
        what was killed, in words.
    """
    run = project.start("dvc", "repro")
    if not wait_for_stage(run, stage):
        return f"{stage} did not run again: {run.said().splitlines()[-1]}"
    start, end = time.monotonic(), PATIENCE_S if moment is None else moment
    written = ""
    while run.poll() is None and time.monotonic() - start < end:
        if moment is None and (written := project.writing()):
            break
        time.sleep(0.001)
    now = stage_of(run) or "dvc itself"
    kill_group(run)
    where = f"while {written} was written" if written else f"after {time.monotonic() - start:.2f} s"
    return f"{now}, {where}"
