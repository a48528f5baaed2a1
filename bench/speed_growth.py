"""What ten times the photos cost, and what a few new ones; each size in a process of its own."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.harness import in_own_process
from bench.speed_training import demo_network
from bench.timing import Measure, peak_mib, spread
from bench.workload import (
    Street,
    Workload,
    as_segmenter,
    counted,
    draw_street,
    open_street,
    random_clip,
    store_maker,
)
from pipeline.datasets.collect import collect_image_labels, index_scenes
from pipeline.evaluation.scores import score_segmenter
from pipeline.report.dataset_charts import prepare_report
from pipeline.scenes.image_labels import write_image_labels
from pipeline.segmenter.inference import WHOLE
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import file_digest

DRAWN = 20  # photos; more of them are the same under other names
FACTOR = 10
ROUNDS = 2
OLD, NEW = 100, 10  # photos


def _prepare(street: Street, device: str) -> Callable[[], object]:
    def run() -> None:
        dataset, out = street.dataset, street.folder / "prepared"
        scenes = dataset.scenes("train")
        index = index_scenes(dataset, scenes)
        labels = collect_image_labels(scenes, dataset, street.params.dataset)
        index.write(out / "scenes.json")
        write_image_labels(out / "labels.csv", labels, index.label_space.names)
        prepare_report(out / "report", index, labels, root=dataset.root)

    return run


def _pseudo(street: Street, device: str) -> Callable[[], object]:
    maker = store_maker(street, random_clip(""))
    return lambda: maker.remove(maker())


def _eval(street: Street, device: str) -> Callable[[], object]:
    space = street.index.label_space
    network = as_segmenter(demo_network(street).to(device), base_size=street.params.views.base_size)
    return partial(
        score_segmenter,
        replace(network, classes=space.names, palette=space.palette),
        street.dataset.scenes("train"),
        read_mask=street.dataset.read_mask,
        store=None,
        labels={},
        presentation=WHOLE,
    )


STAGES = {"prepare": (_prepare, 100), "pseudo": (_pseudo, 8), "eval": (_eval, 24)}  # with photos


def measured(stage: str, warm: Path, folder: Path, device: str) -> tuple[float, float]:
    """Seconds and peak MiB of a stage's work on a folder, after a first run on a small one.

    Runs in a process of its own: the peak is the process's.
    """
    make, _ = STAGES[stage]
    make(open_street(warm), device)()
    run = make(open_street(folder), device)
    start = perf_counter()
    run()
    return perf_counter() - start, peak_mib()


def growth(work: Workload, folder: Path) -> Iterator[Measure]:
    """Time and peak memory of prepare, pseudo and eval on ten times the photos."""
    drawn = draw_street(folder / "drawn", train=min(DRAWN, work.photos))
    warm = copies(drawn, folder / "warm", 2)
    rounds, call = (ROUNDS, in_own_process) if work.seconds else (1, _in_this_process)
    for stage, (_, count) in STAGES.items():
        small, large = (
            copies(drawn, folder / f"{stage}-{number}", number)
            for number in ((count, FACTOR * count) if work.seconds else (2, 4))
        )
        pairs = [
            [call(measured, stage, warm, one, work.device) for one in (small, large)]
            for _ in range(rounds)
        ]
        told = {
            "photos": [count, FACTOR * count],
            "seconds": [round(seconds, 3) for seconds, _ in pairs[-1]],
            "peak MiB": [round(peak) for _, peak in pairs[-1]],
        }
        times = [b[0] / a[0] for a, b in pairs]
        yield spread(
            "growth",
            f"{stage}: time on {FACTOR} times the photos",
            times,
            target=1.1 * FACTOR,
            details=told,
        )
        peaks = [b[1] / a[1] for a, b in pairs]
        more = [2**10 * (b[1] - a[1]) / ((FACTOR - 1) * count) for a, b in pairs]
        yield spread(
            "growth",
            f"{stage}: peak memory on {FACTOR} times the photos",
            peaks,
            target=1.1,
            details={"KiB more a photo more": [round(each, 1) for each in more]},
        )


def copies(drawn: Street, folder: Path, count: int) -> Path:
    """A data set of so many photos, all of them drawn ones under other names."""
    source = sorted((drawn.dataset.root / "train" / "images").iterdir())
    for kind in ("images", "masks"):
        target = folder / "photos" / "train" / kind
        target.mkdir(parents=True)
        for number in range(count):
            name = source[number % len(source)].name
            shutil.copy(drawn.dataset.root / "train" / kind / name, target / f"{number:06d}.png")
    shutil.copy(drawn.folder / "params.yaml", folder / "params.yaml")
    return folder


def _in_this_process(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def extension(work: Workload, folder: Path) -> Iterator[Measure]:
    """A few new photos after many old ones: for how many CLIP runs, and which bytes change."""
    old, new = (OLD, NEW) if work.seconds else (3, 1)
    street = draw_street(folder, train=old + new)
    few = replace(street.index, photos=street.index.photos[:old])
    first = replace(street, index=few, folder=folder / "first")
    clip = random_clip("")
    before = PseudoMaskStore.open(store_maker(first, clip)())
    shards = {file: file_digest(file) for file in before.path.glob("*/logits/c/*/0/0/0")}
    with counted(clip, "patch_logits") as seen:
        after = store_maker(street, clip)(before)
    levels = len(street.params.clip.levels)
    kept = [
        file_digest(after / file.relative_to(before.path)) == was for file, was in shards.items()
    ]
    yield spread(
        "extension",
        f"photos that CLIP looks at after {new} new ones among {old + new}",
        [len(seen) / levels],
        target=new,
    )
    yield spread(
        "extension",
        "shards of the old photos whose bytes stay",
        [100 * sum(kept) / len(kept)],
        target=100,
        at_least=True,
        unit="%",
        details={"shards": len(kept)},
    )
