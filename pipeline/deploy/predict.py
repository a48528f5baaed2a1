"""Predicting photos, videos and folders of them from the command line: files in, files out."""

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.datasets.base import Scene
from pipeline.deploy.predictions import (
    LEGEND,
    OVERLAYS,
    PHOTO,
    UNREADABLE,
    VIDEO,
    DamagedError,
    Faults,
    made_with,
    opened_list,
    painted,
    pending,
    probability,
    save_maps,
    source_of,
    write_predictions,
)
from pipeline.deploy.sources import Found, check_capitals
from pipeline.deploy.video import Frame, Video, VideoWriter, frames_of, probe_video
from pipeline.report.drawing import RgbArray, save_png
from pipeline.report.panels import class_legend
from pipeline.scenes.image_io import read_image
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, predict_stream
from pipeline.system.progress import progress
from pipeline.system.stop import Interrupted, stop_requested

log = logging.getLogger("carb")


def predict(
    segmenter: Segmenter,
    found: Found,
    *,
    out: Path,
    presentation: TestTimeOptions,
    palette: RgbArray,
    frames: bool,
    force: bool,
) -> None:
    """Write what a segmenter sees in photos and videos, each whole; leave out the unreadable.

    Args:
        segmenter: the model.
        found: the photos and videos, see `found_in`.
        out: folder to write; what is finished of an earlier run of the same model and options is
            kept: ``masks/`` (PNG of class indices), ``overlays/`` (the videos', too),
            ``confidence/`` (PNG, 255 for certain) and ``legend.png``.
        presentation: scales, flips and windows.
        palette: colours of the classes, ``[C, 3]`` uint8 RGB.
        frames: also write masks and confidence of each frame of a video.
        force: predict finished files again.

    Raises:
        ValueError: files were not readable; the others are written before.
    """
    scenes = [Scene(path, None, "folder", key) for key, path in found.photos.items()]
    named = {PHOTO + key: source_of(path) for key, path in found.photos.items()}
    named |= {VIDEO + key: source_of(path, frames) for key, path in found.videos.items()}
    made, faults = made_with("predict", segmenter, presentation, palette), Faults()
    with opened_list(out, made, force=force) as written:
        check_capitals(out, found)
        todo = pending(written, named, force=force)
        videos = {key: path for key, path in found.videos.items() if VIDEO + key in todo}
        films = _films(videos, faults)  # what is no video is told before the long work
        for _ in write_predictions(
            written,
            segmenter,
            [scene for scene in scenes if PHOTO + scene.key in todo],
            read=lambda scene: (read_image(scene.image), None),
            presentation=presentation,
            palette=palette,
            confidence=True,
            faults=faults,
            named=named,
        ):
            pass
        show = partial(
            predict_video, segmenter, presentation=presentation, palette=palette, frames=frames
        )
        for key, video in films.items():
            with faults.of(video.path), written.item(VIDEO + key, named[VIDEO + key]) as folder:
                show(video, key, folder)
        if written.names:
            with written.item("legend") as folder:
                save_png(folder / LEGEND, class_legend(segmenter.classes, palette))
        log.info("wrote %d of %d predictions to %s", len(todo) - len(faults), len(named), out)
        faults.check(len(named))


def _films(videos: Mapping[str, Path], faults: Faults) -> dict[str, Video]:
    """The videos whose first frame is readable."""
    films = {}
    for key, path in videos.items():
        try:
            films[key] = probe_video(path)
        except UNREADABLE as error:
            faults.add(path, error)
    return films


def _frames(video: Video) -> Iterator[Frame]:
    """The frames of a video; what is wrong with the file is told apart from all else."""
    try:
        yield from frames_of(video)
    except UNREADABLE as error:
        raise DamagedError(str(error)) from None


def predict_video(
    segmenter: Segmenter,
    video: Video,
    key: str,
    folder: Path,
    *,
    presentation: TestTimeOptions,
    palette: RgbArray,
    frames: bool,
) -> None:
    """Write a video with the classes' colours over it; few frames are held at a time.

    Args:
        segmenter: the model.
        video: what is read.
        key: its name in ``folder``.
        folder: gets ``overlays/<key>.mp4``.
        presentation: how the frames are shown.
        palette: colours of the classes, ``[C, 3]`` uint8 RGB.
        frames: also write ``masks/<key>/000000.png`` and so on, and ``confidence/...``.

    Raises:
        DamagedError: a frame is not readable.
        StoppedError: the run was asked to stop.
    """
    if video.sound:
        log.info("%s: its sound is left out", video.path)
    path = folder / OVERLAYS / f"{key}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    items = ((count, frame.photo, frame.time) for count, frame in enumerate(_frames(video)))
    seen = predict_stream(
        segmenter,
        items,
        presentation=presentation,
        more=lambda _, logits: [probability(logits)] if frames else [],
    )
    count = -1
    with VideoWriter(path, video) as film:
        for count, photo, time, maps in progress(
            seen, label=video.path.name, total=video.count, unit="frames", stops=False
        ):
            film.add(np.ascontiguousarray(painted(photo, maps[0], palette)), time)
            if frames:
                save_maps(folder, f"{key}/{count:06d}", maps, palette)
            if stop_requested():
                done = f"{video.path.name} {count + 1}/{video.count} frames"
                raise Interrupted(f"{done}, which begins anew next time")
    if count + 1 < 0.98 * video.count:
        log.warning(
            "%s: ended after %d of about %d frames; it may have been cut off",
            video.path,
            count + 1,
            video.count,
        )
