"""Sources of a prediction: photos and videos in files and folders, with unique output names."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.deploy.prediction_files import CONFIDENCE, MASKS, OVERLAYS
from pipeline.deploy.video import VIDEO_ENDINGS, import_av
from pipeline.scenes.image_folder import link_lines, scan_folder, warn_not_read
from pipeline.scenes.image_io import PHOTO_ENDINGS
from pipeline.system.files import LIST

log = logging.getLogger("carb")
LONGEST = 255  # bytes of a file name
FRAME = re.compile(r"\d{6,}")


class Sources(NamedTuple):
    """Photos and videos by key, the path of their predictions without folder and ending."""

    photos: dict[str, Path]
    videos: dict[str, Path]


def find_sources(paths: Sequence[Path], out: Path, *, frames: bool) -> Sources:
    """Find photos and videos in files and folders at any depth.

    Args:
        paths: photos, videos and folders.
        out: output folder, whose files are ignored.
        frames: files are written for each frame of a video.

    Raises:
        ValueError: a path is missing or of another kind, a folder contains neither, two predictions
            would get the same name, or PyAV is missing for a video.
    """
    found = Sources({}, {})
    for path in paths:
        for kind, files in zip(found, _sources_in(path, out), strict=True):
            for key, file in files.items():
                other = kind.setdefault(key, file)
                if other.resolve() != file.resolve():
                    raise ValueError(f"{file}: has the same name as {other}; rename one of them")
    _check_names(found, frames=frames)
    if found.videos:
        import_av()
    return found


def _sources_in(path: Path, out: Path) -> Sources:
    kinds = f"a photo ({', '.join(PHOTO_ENDINGS)})", f"a video ({', '.join(VIDEO_ENDINGS)})"
    if path.is_dir():
        below = scan_folder(path)
        photos = files_outside(below.photos, path, out)
        videos = files_outside(scan_folder(path, endings=VIDEO_ENDINGS).photos, path, out)
        warn_not_read(path, below, set(videos.values()), [out])
        for line in link_lines(path, [*photos.values(), *videos.values()]):
            log.info("%s", line)
        if not photos and not videos:
            raise ValueError(f"{path}: contains neither {kinds[0]} nor {kinds[1]}; name another")
        return Sources(photos, videos)
    if not os.path.lexists(path):
        raise ValueError(
            f"{path}: no such file or folder; give the path of {kinds[0]} or {kinds[1]}"
        )
    ending, one = path.suffix.lower(), {path.stem: path}
    if ending in PHOTO_ENDINGS:
        return Sources(one, {})
    if ending in VIDEO_ENDINGS:
        return Sources({}, one)
    raise ValueError(f"{path}: must be {kinds[0]}, {kinds[1]} or a folder of them; convert it")


def files_outside(files: Mapping[str, Path], root: Path, *folders: Path) -> dict[str, Path]:
    """The files below ``root`` without those in some folders, such as earlier output."""
    inside = [folder.resolve() for folder in folders]
    inside = [folder for folder in inside if not root.resolve().is_relative_to(folder)]

    def is_outside(file: Path) -> bool:
        return not any(file.resolve().is_relative_to(folder) for folder in inside)

    return {key: file for key, file in files.items() if is_outside(file)}


def _check_names(found: Sources, *, frames: bool) -> None:
    """Raise ValueError, with both sources, if predictions would overwrite each other."""
    files = dict(_output_files(found))
    for name, path in files.items():
        if max(len(os.fsencode(part)) for part in name.split("/")) > LONGEST:
            raise ValueError(f"{path}: its prediction's name would be too long; shorten it")
        for parent in Path(name).parents:
            if other := files.get(parent.as_posix()):
                raise ValueError(
                    f"{path}: its prediction needs a folder {parent}, which is the prediction of "
                    f"{other}; rename one of them"
                )
    for key, path in found.photos.items() if frames else ():
        folder, _, name = key.rpartition("/")
        video = found.videos.get(folder)
        if video is not None and FRAME.fullmatch(name):
            raise ValueError(
                f"{path}: its mask would have the name of a frame of {video} (--frames); rename "
                "one of them, or predict them into different folders"
            )


def _output_files(found: Sources) -> Iterator[tuple[str, Path]]:
    """Files to be written, and their sources."""
    for key, path in found.photos.items():
        for folder in (MASKS, OVERLAYS, CONFIDENCE):
            yield f"{folder}/{key}.png", path
    for key, path in found.videos.items():
        yield f"{OVERLAYS}/{key}.mp4", path


def check_case(out: Path, found: Sources) -> None:
    """Raise ValueError if names differ in case only and the file system ignores case.

    ``out`` already contains the output list, which is looked up in the other case.
    """
    if not (out / LIST.swapcase()).exists():
        return
    seen: dict[str, Path] = {}
    for name, path in _output_files(found):
        other = seen.setdefault(name.casefold(), path)
        if other != path:
            raise ValueError(
                f"{path}: differs from {other} in case only, which the file system of {out} "
                "ignores; rename one of them"
            )
