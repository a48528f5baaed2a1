"""Quality of proposed labels: F1 by threshold, class-wise ones found on the photos without labels
included, and where in the page's two orders the wrong labels are.

    python -m bench.proposals                          the demo, after `dvc repro draw`
    python -m bench.proposals --params camvid.yaml     another data set with masks
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pipeline.clip.dense import load_clip
from pipeline.clip.prompts import resolve_templates
from pipeline.config.params import Params, load_params
from pipeline.datasets import open_dataset
from pipeline.datasets.collect import collect_image_labels
from pipeline.proposals.propose import propose
from pipeline.system.command import command
from pipeline.system.devices import start_fabric

app = typer.Typer(add_completion=False)
STEPS = 200  # of expectation maximisation
SHARE = 0.25  # of the photos that a person looks at
NEVER = 2.0  # a threshold above every confidence


def confidences_and_labels(settings: Params) -> tuple[np.ndarray, np.ndarray]:
    """CLIP's confidence in each class and the true labels of the training photos, ``[N, C]``."""
    dataset, clip = open_dataset(settings.dataset.name, settings.dataset.root), settings.clip
    found = propose(
        start_fabric(clip.precision),
        load_clip(clip.model, clip.pretrained),
        dataset,
        levels=list(clip.levels.values()),
        prompts=dataset.label_space.words(clip.class_prompts),
        templates=resolve_templates(clip.templates),
        brightness=clip.brightness,
    )
    scenes = dataset.scenes("train")
    labels = collect_image_labels(scenes, dataset, settings.dataset)
    return np.stack([one.confidence for one in found]), np.stack([labels[s.key] for s in scenes])


def otsu(values: np.ndarray) -> float:
    """The threshold that maximises the variance between the two groups (Otsu 1979); ``[N]``."""
    ranked = np.unique(values)
    best, threshold = -1.0, float(ranked[0])
    for middle in (ranked[1:] + ranked[:-1]) / 2:
        low, high = values[values < middle], values[values >= middle]
        between = len(low) * len(high) * (high.mean() - low.mean()) ** 2
        if between > best:
            best, threshold = between, float(middle)
    return threshold


def mixture(confidence: np.ndarray) -> float:
    """The lowest confidence that the upper of two Gaussians of the log-odds explains better."""
    clipped = confidence.clip(1e-4, 1 - 1e-4)
    odds = np.log(clipped / (1 - clipped))
    upper = (odds >= otsu(odds)).astype(float)  # probability of the upper one, [N]
    for _ in range(STEPS):
        share = upper.mean()
        high = (upper * odds).sum() / upper.sum()
        low = ((1 - upper) * odds).sum() / (1 - upper).sum()
        spread = (upper * (odds - high) ** 2 + (1 - upper) * (odds - low) ** 2).mean()
        gain = ((odds - low) ** 2 - (odds - high) ** 2) / (2 * max(spread, 1e-6))
        upper = (1 / (1 + np.exp(-np.log(share / (1 - share)) - gain))).clip(1e-6, 1 - 1e-6)
    return float(min(confidence[upper >= 0.5], default=NEVER))


def fitted(confidence: np.ndarray, labels: np.ndarray) -> float:
    """The threshold of one class with the fewest wrong labels, which needs the labels; ``[N]``."""
    tried = [0.0, *np.unique(confidence), NEVER]
    return float(min(tried, key=lambda one: ((confidence >= one) != labels).sum()))


def table(confidence: np.ndarray, labels: np.ndarray) -> str:
    """Thresholds compared, as Markdown; ``[N, C]`` float and bool."""
    columns, count = confidence.T, confidence.shape[1]
    ways = {
        "all classes in every photo": np.zeros(count),
        "0.5 (default)": np.full(count, 0.5),
        "0.25": np.full(count, 0.25),
        "Otsu, one per class": np.array([otsu(column) for column in columns]),
        "two Gaussians, one per class": np.array([mixture(column) for column in columns]),
        "fitted to the labels, one per class": np.array(list(map(fitted, columns, labels.T))),
    }
    lines = [
        f"| threshold | F1 | named of {count} | wrong of {count} | wrong ones in the first "
        "quarter, most doubtful first | highest confidence first |",
        "|---|---|---|---|---|---|",
    ]
    for name, thresholds in ways.items():
        named = confidence >= thresholds
        wrong = named != labels
        f1 = 200 * (named & labels).sum() / (named.sum() + labels.sum())
        orders = (np.abs(confidence - thresholds), -confidence)
        first = " | ".join(f"{100 * _share_in_first(order, wrong):.0f} %" for order in orders)
        means = " | ".join(f"{rows.sum(axis=1).mean():.2f}" for rows in (named, wrong))
        lines.append(f"| {name} | {f1:.1f} | {means} | {first} |")
    return "\n".join(lines)


def _share_in_first(order: np.ndarray, wrong: np.ndarray) -> float:
    """Share of the wrong labels among the first photos of each class."""
    rows = order.argsort(axis=0, kind="stable")[: round(SHARE * len(order))]
    return float(np.take_along_axis(wrong, rows, axis=0).sum() / max(wrong.sum(), 1))


@app.command()
@command
def main(
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Compare thresholds for proposed labels on the training photos of a data set with masks."""
    typer.echo(table(*confidences_and_labels(load_params(params))))


if __name__ == "__main__":
    app()
