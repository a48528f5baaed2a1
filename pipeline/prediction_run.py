"""Let a segmenter loose on somebody's photos and videos: files in, files out."""

import logging
from pathlib import Path

import numpy as np

from pipeline.files import atomic_path
from pipeline.folder_answers import (
    LEGEND,
    OVERLAYS,
    check_out,
    painted,
    probability,
    save_maps,
    write_answers,
)
from pipeline.inference import Presentation, Segmenter, answers
from pipeline.panels import class_legend
from pipeline.photo_files import look_below, photos_below, tell_not_read
from pipeline.runtime import progress
from pipeline.scene import PHOTO_ENDINGS, Scene, read_image
from pipeline.videos import VIDEO_ENDINGS, Film, Video, frames_of, look_at
from pipeline.visualise import Picture, save_png

log = logging.getLogger("carb")


def predict(
    segmenter: Segmenter,
    source: Path,
    *,
    out: Path,
    presentation: Presentation,
    palette: Picture,
    frames: bool,
) -> None:
    """Write what a segmenter sees in a photo, a video, or all of a folder.

    Args:
        segmenter: the model.
        source: a photo, a video, or a folder of both, in any sub-folders.
        out: folder to write, an earlier output is replaced: ``masks/`` (PNG of class indices),
            ``overlays/`` (the videos', too), ``confidence/`` (PNG, 255 for certain) and
            ``legend.png``.
        presentation: scales, flips and windows.
        palette: colours of the classes, ``[C, 3]`` uint8 RGB.
        frames: also write masks and confidence of each frame of a video.

    Raises:
        ValueError: a file is missing, unreadable or of another kind; or ``out`` holds other files.
    """
    check_out(out, {"the source": source})
    photos, videos = found_in(source, out)
    scenes = [Scene(path, None, "folder", key) for key, path in photos.items()]
    films = {key: look_at(path) for key, path in videos.items()}  # before any work is done
    with atomic_path(out) as draft:
        for _ in write_answers(
            draft,
            segmenter,
            scenes,
            read=lambda scene: (read_image(scene.image), None),
            presentation=presentation,
            palette=palette,
            confidence=True,
        ):
            pass
        for key, video in films.items():
            predict_video(
                segmenter,
                video,
                key,
                folder=draft,
                presentation=presentation,
                palette=palette,
                frames=frames,
            )
        save_png(draft / LEGEND, class_legend(segmenter.classes, palette))
    log.info("wrote %d photos and %d videos to %s", len(scenes), len(films), out)


def found_in(source: Path, out: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The photos and the videos that a path names, by name without ending.

    Raises:
        ValueError: there is nothing there, nothing of these kinds, or two of one name.
    """
    kinds = f"a photo ({', '.join(PHOTO_ENDINGS)}) or a video ({', '.join(VIDEO_ENDINGS)})"
    if source.is_dir():
        found = look_below(source)
        photos, videos = found.photos, photos_below(source, endings=VIDEO_ENDINGS)
        if out.resolve().is_relative_to(source.resolve()):  # an earlier output
            photos, videos = (
                {k: p for k, p in kind.items() if not p.resolve().is_relative_to(out.resolve())}
                for kind in (photos, videos)
            )
        tell_not_read(source, found, {*videos.values()}, [out])
        if not photos and not videos:
            raise ValueError(f"{source}: holds neither {kinds}; give a folder that does")
        return photos, videos
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder; give the path of {kinds}")
    ending = source.suffix.lower()
    if ending not in PHOTO_ENDINGS + VIDEO_ENDINGS:
        raise ValueError(f"{source}: must be {kinds}, or a folder of them; convert the file")
    one = {source.stem: source}
    return (one, {}) if ending in PHOTO_ENDINGS else ({}, one)


def predict_video(
    segmenter: Segmenter,
    video: Video,
    key: str,
    *,
    folder: Path,
    presentation: Presentation,
    palette: Picture,
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
    """
    if video.sound:
        log.info("%s: its sound is left out", video.path)
    path = folder / OVERLAYS / f"{key}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    items = ((count, frame.photo, frame.time) for count, frame in enumerate(frames_of(video)))
    seen = answers(
        segmenter,
        items,
        presentation=presentation,
        more=lambda _, logits: [probability(logits)] if frames else [],
    )
    count = -1
    with Film(path, video) as film:
        for count, photo, time, maps in progress(
            seen, label=video.path.name, total=video.count, unit="frames"
        ):
            film.add(np.ascontiguousarray(painted(photo, maps[0], palette)), time)
            if frames:
                save_maps(folder, f"{key}/{count:06d}", maps, palette)
    if count + 1 < 0.98 * video.count:
        log.warning(
            "%s: ended after %d of about %d frames; it may have been cut off",
            video.path,
            count + 1,
            video.count,
        )
