"""Pretrained weights that the first run will download."""

from pipeline.clip.weights import hub_files
from pipeline.config.params import Params
from pipeline.segmenter.encoder import imagenet_file
from pipeline.system.hub import cached


def weights_to_download(params: Params) -> list[str]:
    """The files of weights that are not in the hub's cache; the encoder's are ImageNet's."""
    files = hub_files(params.clip.model, params.clip.pretrained)
    files.append(imagenet_file(params.segmenter.encoder))
    return [str(file) for file in files if cached(file) is None]
