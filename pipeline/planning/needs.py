"""Pretrained weights that the recipe of a params.yaml needs: at hand, or to be downloaded."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip

from pipeline.clip.dense import check_supported, clip_of
from pipeline.clip.weights import check_name, check_weights, hub_files
from pipeline.config.params import Params
from pipeline.config.watched_files import named_files
from pipeline.segmenter.encoder import imagenet_encoder, imagenet_file
from pipeline.system.files import bytes_below
from pipeline.system.hub import HubFile, cached, obtain

log = logging.getLogger("carb")


@dataclass(frozen=True)
class Need:
    """Weights that a stage reads.

    Attributes:
        what: what they are, for messages.
        parameter: that names them.
        files: of the hub.
        local: files on disk, in place of those of the hub.
    """

    what: str
    parameter: str
    files: Sequence[HubFile]
    local: Sequence[Path]

    def missing(self) -> list[str]:
        """The files that are not on this machine."""
        absent = [str(file) for file in self.files if cached(file) is None]
        return absent + [str(path) for path in self.local if not path.is_file()]

    def num_bytes(self) -> int:
        """Size of the files on this machine."""
        found = [path.resolve() for file in self.files if (path := cached(file)) is not None]
        return sum(bytes_below(path) for path in (*found, *self.local))


def needs_of(params: Params) -> list[Need]:
    """The weights that the stages `pseudo` and `encoder` read.

    Raises:
        ValueError: weights are unknown, incomplete, of an unsupported model, or a pickle only.
    """
    clip, segmenter = params.clip, params.segmenter
    check_name(clip.model)
    check_weights(clip.model, clip.pretrained)
    if clip.pretrained is not None:  # else its configuration is in the folder, or on the hub
        check_supported(clip.model, open_clip.get_model_config(clip.model)["vision_cfg"])
    name = clip.model if clip.pretrained is None else f"{clip.model}, {clip.pretrained}"
    local = [file.path for file in named_files("pseudo", params)]
    needs = [Need(f"CLIP ({name})", "clip.model", hub_files(clip.model, clip.pretrained), local)]
    parameter = "segmenter.encoder_weights"
    if segmenter.encoder_weights == "imagenet":
        what = f"ImageNet weights of {segmenter.encoder}"
        needs.append(Need(what, parameter, [imagenet_file(segmenter.encoder)], []))
    elif segmenter.encoder_weights not in ("none", "clip"):
        path = Path(segmenter.encoder_weights)
        needs.append(Need(f"encoder weights ({path})", parameter, [], [path]))
    return needs


def fetch_weights(params: Params) -> None:
    """Download what is missing, and load all of it once: what loads here loads without a network.

    Raises:
        ValueError: weights are missing, cannot be downloaded or do not fit.
    """
    for need in needs_of(params):
        there = not need.missing()
        if not there and need.files:
            obtain(need.files, need.parameter)
        if missing := need.missing():
            raise ValueError(
                f"params.yaml: {need.parameter}: {missing[0]}: no such file; correct the path"
            )
        how = "at hand" if there else "downloaded"
        log.info("%s: %s (%.1f MB)", need.what, how, need.num_bytes() / 1e6)
    clip_of(params.clip)
    segmenter = params.segmenter
    if segmenter.encoder_weights == "imagenet":
        imagenet_encoder(segmenter.encoder, arch=segmenter.arch, options=segmenter.options)
