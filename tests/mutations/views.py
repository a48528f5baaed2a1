"""Mistakes in where things are: views and batches."""

from tests.mutations.mutation import Mutation

VIEWS = ("views", "views_laws", "views_covers", "batches_laws")
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
        "total[:, *box.slices()] += patch",
        "total[:, *box.slices()] = patch",
        ("views_covers", "views_laws"),
    ),
    # batches: the same place for image and target
    Mutation(
        "the far target ignores where the window lies",
        "training/crops.py",
        "self._cut(photo, sub_view(view, box), level), [box]",
        "self._cut(photo, view, level), [box]",
        ("batches_laws",),
    ),
    Mutation(
        "targets at a stride forget the mirror",
        "training/crops.py",
        "View(view.box, size, view.flipped), photo.size",
        "View(view.box, size), photo.size",
        ("batches_laws",),
    ),
    Mutation(
        "grids of a batch are padded on the wrong side",
        "training/crops.py",
        "(0, width - cut.grids.shape[3], 0, height - cut.grids.shape[2])",
        "(width - cut.grids.shape[3], 0, height - cut.grids.shape[2], 0)",
        ("batches_laws",),
    ),
    Mutation(
        "absent classes take part in pseudo-masks",
        "training/crops.py",
        "absent = ~image_labels[:, :, None, None]",
        "absent = image_labels[:, :, None, None] & False",
        ("batches", "batches_laws"),
    ),
]
