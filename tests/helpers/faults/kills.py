"""SIGKILL at random moments of `dvc repro`, some of them during a write."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.helpers.faults.project import PATIENCE_S, Project, kill_group, stage_of, wait_for_stage

STAGES = ("prepare", "pseudo", "train", "eval")
PER_PROJECT = 5  # kills per project; a new one has all stages still to run


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: outputs, and seconds per stage."""

    outputs: dict[str, str]
    seconds: dict[str, float]


def undisturbed(folder: Path) -> Reference:
    """Run the whole pipeline with `dvc repro`."""
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
    report: Callable[[str], None],
) -> None:
    """Kill `dvc repro` several times; after every few kills let it finish and compare.

    Args:
        folder: where the projects are made.
        reference: the expected outputs.
        kills: their number.
        random: draws the moments.
        report: called with one line per kill.
    """
    for begin in range(0, kills, PER_PROJECT):
        project = Project.make(folder / f"killed-{begin}")
        count = min(PER_PROJECT, kills - begin)
        stages = sorted(random.choices(STAGES, k=count), key=STAGES.index)
        for number, stage in enumerate(stages, start=begin + 1):
            moment = random.uniform(0, reference.seconds[stage])
            killed = kill(project, stage, None if random.random() < 0.5 else moment)
            report(f"{number}: {killed}")
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
    """Start `dvc repro` and kill its process group.

    Args:
        project: the project to run.
        stage: the stage to be killed.
        moment: seconds after its start; None: as soon as it writes something.

    Returns:
        a description of what was killed.
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
