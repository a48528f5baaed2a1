"""Photos and videos that a command line names, and the files that their predictions go to."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.deploy.predictions import CONFIDENCE, MASKS, OVERLAYS
from pipeline.deploy.video import VIDEO_ENDINGS
from pipeline.scenes.image_folder import look_below, photos_below, tell_not_read
from pipeline.scenes.image_io import PHOTO_ENDINGS
from pipeline.system.files import LIST

LONGEST = 255  # bytes of a file's name
FRAME = re.compile(r"\d{6,}")


class Found(NamedTuple):
    """Photos and videos, by the name that their predictions get: a path without ending."""

    photos: dict[str, Path]
    videos: dict[str, Path]


def found_in(sources: Sequence[Path], out: Path, *, frames: bool) -> Found:
    """The photos and the videos that paths name; in folders, those below them, too.

    Args:
        sources: photos, videos, and folders of them.
        out: where predictions go; what lies in it is none.
        frames: whether those of a video are written one by one.

    Raises:
        ValueError: a path does not exist or is of another kind, none is a photo or a video, or two
            predictions would get one name.
    """
    found = Found({}, {})
    for source in sources:
        for kind, paths in zip(found, _found_in_one(source, out), strict=True):
            for key, path in paths.items():
                other = kind.setdefault(key, path)
                if other.resolve() != path.resolve():
                    raise ValueError(f"{path}: {other} has the same name; rename one")
    _check_names(found, frames=frames)
    return found


def _found_in_one(source: Path, out: Path) -> Found:
    kinds = f"a photo ({', '.join(PHOTO_ENDINGS)})", f"a video ({', '.join(VIDEO_ENDINGS)})"
    if source.is_dir():
        below = look_below(source)
        found = Found(below.photos, photos_below(source, endings=VIDEO_ENDINGS))
        tell_not_read(source, below, {*found.videos.values()}, [out])
        if out.resolve().is_relative_to(source.resolve()):  # an earlier output
            there = out.resolve()
            found = Found(
                *(
                    {k: p for k, p in paths.items() if not p.resolve().is_relative_to(there)}
                    for paths in found
                )
            )
        if not any(found):
            raise ValueError(
                f"{source}: holds neither {kinds[0]} nor {kinds[1]}; give a folder that does"
            )
        return found
    if not os.path.lexists(source):
        raise ValueError(
            f"{source}: no such file or folder; give the path of {kinds[0]} or {kinds[1]}"
        )
    ending, one = source.suffix.lower(), {source.stem: source}
    if ending in PHOTO_ENDINGS:
        return Found(one, {})
    if ending in VIDEO_ENDINGS:
        return Found({}, one)
    raise ValueError(
        f"{source}: must be {kinds[0]} or {kinds[1]}, or a folder of them; convert the file"
    )


def _check_names(found: Found, *, frames: bool) -> None:
    """Refuse predictions that would be written over each other.

    Raises:
        ValueError: names both sources.
    """
    files = dict(_files_of(found))
    for name, path in files.items():
        long = max(name.split("/"), key=lambda part: len(os.fsencode(part)))
        if len(os.fsencode(long)) > LONGEST:
            raise ValueError(f"{path}: its prediction's name would be too long; shorten it")
        for parent in Path(name).parents:
            other = files.get(parent.as_posix())
            if other is not None:
                raise ValueError(
                    f"{path}: its prediction would lie in a folder {parent}, which is the "
                    f"prediction of {other}; rename one"
                )
    for key, path in found.photos.items() if frames else ():
        folder, _, name = key.rpartition("/")
        video = found.videos.get(folder)
        if video is not None and FRAME.fullmatch(name):
            raise ValueError(
                f"{path}: its mask would have the name of a frame of {video} (--frames); rename "
                "one, or predict them into folders of their own"
            )


def _files_of(found: Found) -> Iterator[tuple[str, Path]]:
    """Files that are written, and what of."""
    for key, path in found.photos.items():
        for folder in (MASKS, OVERLAYS, CONFIDENCE):
            yield f"{folder}/{key}.png", path
    for key, path in found.videos.items():
        yield f"{OVERLAYS}/{key}.mp4", path


def check_capitals(out: Path, found: Found) -> None:
    """Refuse names that differ by capitals alone, on a disk that does not tell them apart.

    Args:
        out: where predictions go; it holds a list of them.
        found: what is predicted.

    Raises:
        ValueError: names both sources.
    """
    if not (out / LIST.swapcase()).exists():
        return
    seen: dict[str, Path] = {}
    for name, path in _files_of(found):
        other = seen.setdefault(name.casefold(), path)
        if other != path:
            raise ValueError(
                f"{path}: {other} has the same name but for capitals, which the disk of {out} does "
                "not tell apart; rename one"
            )
