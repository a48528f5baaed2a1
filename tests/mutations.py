"""Break one line at a time on purpose: do the tests notice? ``python -m tests.mutations``.

Each mutation is a mistake that one could make. The tree is copied, the line broken in the copy, and
the named test files run there until one test fails. Exit status 1: a mutation survived, or its line
is no longer there.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Mutation:
    """One broken line.

    Attributes:
        name: what the mistake is.
        file: in ``pipeline``.
        old: text that stands there once.
        new: what takes its place.
        tests: test files, without ``test_`` and ``.py``, of which one must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file, relative to the root."""
        return Path("pipeline") / self.file

    def apply(self, root: Path) -> None:
        """Break the line in a copy of the tree."""
        content = (root / self.path).read_text("utf-8")
        if content.count(self.old) != 1:
            raise ValueError(
                f"{self.path}: {self.old!r} stands there {content.count(self.old)} times instead "
                "of once; write it anew in tests/mutations.py"
            )
        (root / self.path).write_text(content.replace(self.old, self.new), "utf-8")


VIEWS = ("views", "views_laws", "views_covers", "batches_laws")
CARB = ("carb", "carb_cases", "carb_laws")
STORE = ("store", "store_laws", "store_damage")
MUTATIONS = [
    # views: where things are
    Mutation(
        "a window of a mirrored view is cut at the unmirrored place",
        "views.py",
        "if view.flipped else window.left",
        "if False else window.left",
        ("views", "batches_laws"),
    ),
    Mutation(
        "the mirrored place is off by one",
        "views.py",
        "left = view.size[1] - window.left - window.width",
        "left = view.size[1] - window.left - window.width - 1",
        ("views", "batches_laws"),
    ),
    Mutation(
        "the photo is not mirrored",
        "views.py",
        "return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flipped else part",
        "return part",
        VIEWS,
    ),
    Mutation(
        "the grid is mirrored up and down",
        "views.py",
        "return rows, columns.flip(0) if view.flipped else columns",
        "return rows.flip(0) if view.flipped else rows, columns",
        VIEWS,
    ),
    Mutation(
        "grids are read as if corners were aligned",
        "views.py",
        "(centres * cells / pixels - 0.5)",
        "(centres * (cells - 1) / pixels)",
        ("batches_laws",),
    ),
    Mutation(
        "pixels begin at their centres",
        "views.py",
        "torch.arange(count, dtype=torch.float64) + 0.5)",
        "torch.arange(count, dtype=torch.float64))",
        ("batches_laws",),
    ),
    Mutation(
        "cells are read at the nearest centre",
        "views.py",
        "(1 - (positions[:, :, None] - centres).abs()).clamp_min(0)",
        "(1 - (positions[:, :, None] - centres).abs()).round()",
        ("views_laws", "batches_laws"),
    ),
    Mutation(
        "photos are read at the nearest pixel",
        "views.py",
        "Image.Resampling.BILINEAR, box=edges)",
        "Image.Resampling.NEAREST, box=edges)",
        VIEWS,
    ),
    Mutation(
        "height and width of the photo are swapped",
        "views.py",
        "height, width = image.height, image.width",
        "height, width = image.width, image.height",
        VIEWS,
    ),
    Mutation(
        "the last place of a local window is never drawn",
        "views.py",
        "(0, outer - inner + 1, ()",
        "(0, max(1, outer - inner), ()",
        ("views",),
    ),
    Mutation(
        "a cover's last window stops one stride short",
        "views.py",
        "count = math.ceil((length - window) / stride) + 1",
        "count = math.floor((length - window) / stride) + 1",
        ("views_covers",),
    ),
    Mutation(
        "where windows overlap the last one wins",
        "views.py",
        "left : left + width] += patch",
        "left : left + width] = patch",
        ("views_covers", "views_laws"),
    ),
    # batches: the same place for image and target
    Mutation(
        "the far target ignores where the window lies",
        "batches.py",
        "self._cut(photo, sub_view(view, box), level), [box]",
        "self._cut(photo, view, level), [box]",
        ("batches_laws",),
    ),
    Mutation(
        "targets at a stride forget the mirror",
        "batches.py",
        "View(view.box, size, view.flipped), photo.size",
        "View(view.box, size), photo.size",
        ("batches_laws",),
    ),
    Mutation(
        "grids of a batch are padded on the wrong side",
        "batches.py",
        "(0, width - cut.grids.shape[3], 0, height - cut.grids.shape[2])",
        "(width - cut.grids.shape[3], 0, height - cut.grids.shape[2], 0)",
        ("batches_laws",),
    ),
    Mutation(
        "absent classes take part in pseudo-masks",
        "batches.py",
        "absent = ~image_labels[:, :, None, None]",
        "absent = image_labels[:, :, None, None] & False",
        ("batches", "batches_laws"),
    ),
    # carb: the paper's loss
    Mutation(
        "the means are of the own process",
        "carb.py",
        "total = world_sum(torch.where(region, mass, 0).sum())",
        "total = torch.where(region, mass, 0).sum().detach()",
        ("carb_laws",),
    ),
    Mutation(
        "the gradient is a process's own share",
        "carb.py",
        "own = world_size() * share / divisor",
        "own = share / divisor",
        ("carb_laws",),
    ),
    Mutation(
        "ignored pixels count in the share of reliable ones",
        "carb.py",
        "/ world_sum(valid.sum()).clamp_min(1)",
        "/ world_sum(torch.ones_like(valid).sum()).clamp_min(1)",
        CARB,
    ),
    Mutation(
        "ignored pixels are noisy",
        "carb.py",
        "return reliable, valid & ~reliable",
        "return reliable, ~reliable",
        ("carb_laws",),
    ),
    Mutation(
        "a probability of exactly tau is not enough",
        "carb.py",
        "reliable &= probs[:, 0] >= tau",
        "reliable &= probs[:, 0] > tau",
        ("carb_laws",),
    ),
    Mutation(
        "absent classes share in the probability",
        "carb.py",
        "present.logsumexp(dim=1, keepdim=True)",
        "logits.logsumexp(dim=1, keepdim=True)",
        CARB,
    ),
    Mutation(
        "the ratio of lambda is upside down",
        "carb.py",
        "ratio = means[0] / means[1]",
        "ratio = means[1] / means[0]",
        ("carb", "carb_cases"),
    ),
    Mutation(
        "class weights count in the sum and not in the mean's divisor",
        "carb.py",
        "mass = self.class_weights[masks.masked_fill(~valid, 0)]",
        "mass = torch.ones_like(losses)",
        CARB,
    ),
    Mutation(
        "CARB begins one step early",
        "carb.py",
        "return self.step <= self.warmup_steps",
        "return self.step < self.warmup_steps",
        CARB,
    ),
    Mutation(
        "an empty region is remembered",
        "carb.py",
        "torch.where(both, pushed, self.recent)",
        "pushed",
        ("carb_cases",),
    ),
    Mutation(
        "a window is cut as wide as it is high",
        "carb.py",
        "photo[:, top : top + height, left : left + width]",
        "photo[:, top : top + height, left : left + height]",
        ("carb_laws",),
    ),
    Mutation(
        "Dice counts the own process alone",
        "dice.py",
        "(world_sum(own) - world * own).detach()",
        "(world * own - world * own).detach()",
        ("dice",),
    ),
    # metrics
    Mutation(
        "mask and prediction change places",
        "metrics.py",
        "np.bincount(truth * width + column,",
        "np.bincount(column * width + truth,",
        ("metrics",),
    ),
    Mutation(
        "ignored pixels are counted",
        "metrics.py",
        "valid = truth != ignore_index",
        "valid = truth >= 0",
        ("metrics",),
    ),
    Mutation(
        "pixels of no class are forgotten in a sum",
        "metrics.py",
        "total.missed = sum(_missed(item) for item in inputs)",
        "total.missed = _missed(inputs[0]) + 0 * _missed(inputs[1])",
        ("metrics",),
    ),
    Mutation(
        "the hits are twice in the union",
        "metrics.py",
        "return _ratio(hit, predicted + annotated - hit)",
        "return _ratio(hit, predicted + annotated)",
        ("metrics",),
    ),
    Mutation(
        "classes that are nowhere count as 0 in the mean",
        "metrics.py",
        "known = values[~np.isnan(values)]",
        "known = np.nan_to_num(values)",
        ("metrics",),
    ),
    # store and shards
    Mutation(
        "the recorded digest is not compared",
        "store.py",
        'return record.read_bytes() == f"{json.dumps(file_digest(file))}\\n".encode()',
        "return True",
        ("store",),
    ),
    Mutation(
        "what a killed run left of a shard is not removed",
        "store_writer.py",
        "remove(file.parents[2])",
        "pass",
        ("store_laws",),
    ),
    Mutation(
        "logits of another recipe are reused",
        "store_writer.py",
        "if _recipe_of(recipe, level) != _recipe_of(self.plan.recipe, level):",
        "if False:",
        STORE,
    ),
    Mutation(
        "a photo is known by its key",
        "store_writer.py",
        'dict(zip(previous.attributes["digests"], previous.keys, strict=True))',
        "{photo.digest: photo.key for photo in plan.photos if photo.key in previous.keys}",
        STORE,
    ),
    Mutation(
        "a damaged shard of an earlier store is reused",
        "store_writer.py",
        "return fits and self._previous.intact(key, level)",
        "return fits",
        STORE,
    ),
    Mutation(
        "the fingerprint forgets the photos' bytes",
        "store.py",
        '"digests": [photo.digest for photo in self.photos],',
        '"digests": ["" for photo in self.photos],',
        ("store",),
    ),
    Mutation(
        "grids are padded at the top left",
        "store_writer.py",
        "block[place, :, : logits.shape[1], : logits.shape[2]] = logits",
        "block[place, :, -logits.shape[1] :, -logits.shape[2] :] = logits",
        STORE,
    ),
    Mutation(
        "a photo's grid is read with rows and columns swapped",
        "store.py",
        "return self.read_padded(key, level)[:, :rows, :columns]",
        "return self.read_padded(key, level)[:, :columns, :rows]",
        STORE,
    ),
    Mutation(
        "the last shard is forgotten",
        "store.py",
        "return -(-len(self.photos) // self.shard_size(level))",
        "return max(1, len(self.photos) // self.shard_size(level))",
        STORE,
    ),
    Mutation(
        "the checksum of a shard's index is not compared",
        "shards.py",
        'if len(content) < size or google_crc32c.value(index) != int.from_bytes(crc, "little"):',
        "if len(content) < size:",
        ("shards",),
    ),
    Mutation(
        "the row after the one asked for is read",
        "shards.py",
        "self._index(handle)[place].tolist()",
        "self._index(handle)[(place + 1) % self.rows].tolist()",
        ("shards", "store"),
    ),
    Mutation(
        "a store's metadata is not compared with its digest",
        "store.py",
        "if damaged := damaged_layout(path):",
        'if damaged := "":',
        ("store_damage",),
    ),
    Mutation(
        "a checkpoint's values are not compared with their digest",
        "tensors.py",
        "if (ours or digest is not None) and digest != _digest(tensors, notes):",
        "if ours and digest is None:",
        ("checkpoints",),
    ),
]


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
    files = [f"tests/test_{name}.py" for name in names]
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
