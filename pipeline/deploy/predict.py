"""Prediction of photos and videos: masks, overlays and confidence maps as files."""

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.deploy.prediction_files import (
    OVERLAYS,
    PHOTO,
    VIDEO,
    Predictor,
    SkippedFiles,
    open_predictions,
    save_draft,
    source_stamp,
    write_predictions,
)
from pipeline.deploy.sources import Sources, check_case
from pipeline.deploy.video import Video, VideoError, VideoWriter, probe_video, read_frames
from pipeline.report.drawing import RgbArray
from pipeline.report.panels import LEGEND_WIDTH, class_legend
from pipeline.scenes.image_io import read_image
from pipeline.system.progress import progress
from pipeline.system.stop import Interrupted, stop_requested

log = logging.getLogger("carb")
LEGIBLE_WIDTH = 1280  # of a legend in pixels; the text of one for wider videos is enlarged
COMPLETE = 0.98  # share of a video's frames below which it counts as cut off


def predict(
    predictor: Predictor,
    found: Sources,
    out: Path,
    *,
    frames: bool,
    force: bool,
    legend: bool = True,
) -> None:
    """Predict photos and videos; unreadable files are skipped and named at the end.

    Args:
        predictor: the model and its settings.
        found: the photos and videos.
        out: folder to write: ``masks/``, ``overlays/`` (also of videos), ``confidence/`` (PNGs, 255
            for probability 1) and ``legend.png``. Files that an earlier run finished are kept.
        frames: also write masks and confidence of each video frame.
        force: predict finished files again.
        legend: draw the classes below the frames of videos.

    Raises:
        ValueError: some files were not readable; all others are finished.
    """
    stamps = {PHOTO + key: source_stamp(path) for key, path in found.photos.items()}
    stamps |= {
        VIDEO + key: source_stamp(path, frames, legend) for key, path in found.videos.items()
    }
    skipped, videos = SkippedFiles(), dict[str, Video]()
    with open_predictions(out, predictor, stamps, force=force) as (written, todo):
        check_case(out, found)
        for key, path in found.videos.items():  # before the long work
            try:
                if VIDEO + key in todo:
                    videos[key] = probe_video(path)
            except (ValueError, OSError) as error:
                skipped.add(path, error)
        for _ in write_predictions(
            written,
            predictor,
            found.photos,
            todo,
            read=lambda key: (read_image(found.photos[key]), None),
            confidence=True,
            skipped=skipped,
        ):
            pass
        for number, (key, video) in enumerate(videos.items(), start=1):
            if len(videos) > 1:
                log.info("video %d of %d: %s", number, len(videos), video.path)
            try:
                with written.item(VIDEO + key, todo[VIDEO + key]) as folder:
                    predict_video(predictor, video, key, folder, frames=frames, legend=legend)
            except VideoError as error:
                skipped.add(video.path, error)
        if written.names:
            with written.item("legend") as folder:
                picture = class_legend(predictor.segmenter.classes, predictor.palette)
                save_draft(folder / "legend.png", picture)
        log.info("wrote %d of %d predictions to %s", len(todo) - len(skipped), len(stamps), out)
        skipped.check(len(stamps))


def predict_video(
    predictor: Predictor, video: Video, key: str, folder: Path, *, frames: bool, legend: bool
) -> None:
    """Write ``overlays/<key>.mp4`` into ``folder``, with only a few frames in memory.

    With ``frames``, also ``masks/<key>/000000.png`` and so on, and ``confidence/...``; with
    ``legend``, the classes are below each frame.

    Raises:
        VideoError: a frame is not readable.
        Interrupted: the run was asked to stop.
    """
    if video.sound:
        log.info("%s: its sound is not copied", video.path)
    path = folder / OVERLAYS / f"{key}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    items = ((count, frame.image, frame.time) for count, frame in enumerate(read_frames(video)))
    found = predictor.stream(items, confidence=frames)
    done, total, name = 0, video.num_frames, video.path.name
    found = progress(found, label=name, total=total, unit="frames", stops=False)
    below = [video_legend(predictor, video.size[1])] if legend else []
    size = (video.size[0] + sum(len(strip) for strip in below), video.size[1])
    with VideoWriter(path, video._replace(size=size)) as writer:
        for count, image, time, maps in found:
            writer.add(np.vstack([predictor.overlay(image, maps[0]), *below]), time)
            if frames:
                predictor.save_maps(folder, f"{key}/{count:06d}", maps)
            done = count + 1
            if stop_requested():
                raise Interrupted(f"{name} {done}/{total} frames (it starts again next time)")
    if done < COMPLETE * total:
        log.warning(
            "%s: ended after %d of about %d frames; the file may be cut off",
            *(video.path, done, total),
        )


def video_legend(predictor: Predictor, width: int) -> RgbArray:
    """The legend as wide as a video, ``[H, width, 3]`` uint8 RGB; H is even, as videos need."""
    drawn = min(max(width, LEGEND_WIDTH), LEGIBLE_WIDTH)  # then resized: text as large as elsewhere
    picture = class_legend(predictor.segmenter.classes, predictor.palette, width=drawn)
    height = 2 * max(1, round(picture.height * width / picture.width / 2))
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
