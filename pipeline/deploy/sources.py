"""Sources of a prediction: photos and videos in files and folders, with unique output names."""

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.deploy.prediction_files import CONFIDENCE, MASKS, OVERLAYS
from pipeline.deploy.video import VIDEO_ENDINGS, import_av
from pipeline.scenes.image_folder import FolderContents, link_lines, scan_folder, warn_not_read
from pipeline.scenes.image_io import PHOTO_ENDINGS
from pipeline.system.files import LIST
from pipeline.system.text import error_text, first_few, short_repr

log = logging.getLogger("carb")
LONGEST = 255  # bytes of a file name
FRAME = re.compile(r"\d{6,}")
LIST_ENDING = ".txt"  # of a text file that lists sources
_PHOTO, _VIDEO = (
    f"a {kind} ({', '.join(endings)})"
    for kind, endings in (("photo", PHOTO_ENDINGS), ("video", VIDEO_ENDINGS))
)


class Sources(NamedTuple):
    """Photos and videos by key, the path of their predictions without folder and ending."""

    photos: dict[str, Path]
    videos: dict[str, Path]


def find_sources(
    paths: Sequence[Path],
    out: Path,
    *,
    frames: bool,
    recursive: bool = True,
    mask_ending: str = ".png",
) -> Sources:
    """Find photos and videos in files, folders, patterns and lists.

    Args:
        paths: photos, videos, folders, patterns such as ``rides/*/*.jpg``, and text files with
            one of these in each line, relative to the text file's folder.
        out: output folder, whose files are ignored.
        frames: files are written for each frame of a video.
        recursive: search folders at any depth.
        mask_ending: of the files of masks.

    Raises:
        ValueError: a path is missing or of another kind, a folder contains neither, two predictions
            would get the same name, or PyAV is missing for a video.
    """
    found = Sources({}, {})
    for path in paths:
        _add(found, _sources_in(path, out, recursive))
    _check_names(found, frames=frames, mask_ending=mask_ending)
    if found.videos:
        import_av()
    return found


def _add(found: Sources, more: Sources) -> None:
    """Add sources to others; ValueError if a prediction would get the name of another."""
    for kind, files in zip(found, more, strict=True):
        for key, file in files.items():
            other = kind.setdefault(key, file)
            if other is not file and other.resolve() != file.resolve():
                raise ValueError(
                    f"{file}: has the same name as {other}; rename one of them, or give a folder "
                    "that contains both, which keeps its subfolders"
                )


def _sources_in(path: Path, out: Path, recursive: bool) -> Sources:
    if not os.path.lexists(path) and glob.has_magic(str(path)):
        return _sources_of_pattern(path, out, recursive)
    if path.suffix.lower() == LIST_ENDING and path.is_file():
        files = _listed(path, out)
        home = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
        return _sources_below(Path(home), files, out, recursive)
    return _sources_at(path, out, recursive)


def _sources_at(path: Path, out: Path, recursive: bool) -> Sources:
    """A photo, a video, or those in a folder."""
    if path.is_dir():
        return _sources_in_folder(path, out, recursive)
    if not os.path.lexists(path):
        raise ValueError(f"{path}: no such file or folder; give the path of {_PHOTO} or {_VIDEO}")
    ending, one = path.suffix.lower(), {path.stem: path}
    if ending in PHOTO_ENDINGS:
        return Sources(one, {})
    if ending in VIDEO_ENDINGS:
        return Sources({}, one)
    raise ValueError(
        f"{path}: must be {_PHOTO}, {_VIDEO}, a folder of them or a list of them "
        f"({LIST_ENDING}); convert it"
    )


def _sources_below(home: Path, paths: Iterable[Path], out: Path, recursive: bool) -> Sources:
    """The sources in several files and folders below ``home``; the keys keep its subfolders."""
    found = Sources({}, {})
    for path in paths:
        place = Path(os.path.relpath(path, home))
        folder = place if path.is_dir() else place.parent
        photos, videos = (
            {(folder / key).as_posix(): file for key, file in kind.items()}
            for kind in _sources_at(path, out, recursive)
        )
        _add(found, Sources(photos, videos))
    return found


def _sources_in_folder(path: Path, out: Path, recursive: bool) -> Sources:
    leave = [] if recursive else sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    below = scan_folder(path, leave)
    photos = files_outside(below.photos, path, out)
    videos = files_outside(scan_folder(path, leave, VIDEO_ENDINGS).photos, path, out)
    warn_not_read(path, below, set(videos.values()), [out])
    for line in link_lines(path, [*photos.values(), *videos.values()]):
        log.info("%s", line)
    if leave:
        log.info("%s: %d subfolders were not searched (--no-recursive)", path, len(leave))
    if not photos and not videos:
        raise ValueError(f"{path}: contains neither {_PHOTO} nor {_VIDEO}; name another")
    return Sources(photos, videos)


def _sources_of_pattern(pattern: Path, out: Path, recursive: bool) -> Sources:
    """What a pattern matches, for shells that did not expand it; keeps the subfolders."""
    fixed = 0
    while not glob.has_magic(pattern.parts[fixed]):
        fixed += 1
    home = Path(*pattern.parts[:fixed])
    matches = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]
    known = (*PHOTO_ENDINGS, *VIDEO_ENDINGS)
    chosen = [path for path in matches if path.is_dir() or path.suffix.lower() in known]
    others = [path for path in matches if path not in set(chosen)]
    if not chosen:
        raise ValueError(
            f"{pattern}: matches neither {_PHOTO} nor {_VIDEO} nor a folder; correct the pattern"
        )
    warn_not_read(pattern, FolderContents(others=others), set(), [out])
    inside = {str(path): path for path in chosen}
    return _sources_below(home, files_outside(inside, home, out).values(), out, recursive)


def _listed(path: Path, out: Path) -> list[Path]:
    """The files and folders that a text file lists, one in each line."""
    try:
        lines = path.read_text("utf-8-sig", "surrogateescape").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: not readable ({error_text(error)}); name another") from None
    files = [path.parent / line.strip() for line in lines if line.strip()]
    if not files:
        raise ValueError(f"{path}: lists no file; write the path of a photo or video in each line")
    if missing := [file for file in files if not os.path.lexists(file)]:
        named = [short_repr(str(file)) for file in missing]
        raise ValueError(
            f"{path}: {len(missing)} of the listed files do not exist: {first_few(named, 3)}; "
            f"correct it (paths are relative to {path.absolute().parent})"
        )
    if any(file.resolve().is_relative_to(out.resolve()) for file in files):
        raise ValueError(f"{path}: lists files in the output folder {out}; name another folder")
    return files


def files_outside(files: Mapping[str, Path], root: Path, *folders: Path) -> dict[str, Path]:
    """The files below ``root`` without those in some folders, such as earlier output."""
    inside = [folder.resolve() for folder in folders]
    inside = [folder for folder in inside if not root.resolve().is_relative_to(folder)]

    def is_outside(file: Path) -> bool:
        return not any(file.resolve().is_relative_to(folder) for folder in inside)

    return {key: file for key, file in files.items() if is_outside(file)}


def _check_names(found: Sources, *, frames: bool, mask_ending: str) -> None:
    """Raise ValueError, with both sources, if predictions would overwrite each other."""
    files = dict(_output_files(found, mask_ending))
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


def _output_files(found: Sources, mask_ending: str = ".png") -> Iterator[tuple[str, Path]]:
    """Files to be written, and their sources."""
    for key, path in found.photos.items():
        yield f"{MASKS}/{key}{mask_ending}", path
        for folder in (OVERLAYS, CONFIDENCE):
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
