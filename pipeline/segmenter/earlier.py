"""Initial weights from an own earlier segmenter: all layers, classifier rows by class name."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.segmenter.encoder import state_differences
from pipeline.segmenter.network import TextClassifier
from pipeline.segmenter.saved import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE, read_metadata
from pipeline.system.tensor_files import load_tensors

PARAMETER = "params.yaml: segmenter.weights"


def earlier_folder(path: Path) -> Path:
    """The segmenter's folder of ``segmenter.weights``, which names it or its weights file.

    Raises:
        ValueError: it is not a folder that `train` wrote.
    """
    folder = path.parent if path.name == WEIGHTS_FILE else path
    for name in (WEIGHTS_FILE, METADATA_FILE, CONFIG_FILE):
        if not (folder / name).is_file():
            raise ValueError(
                f"{PARAMETER}: {path}: no {name} there; name a folder that `carb train` wrote, or "
                f"the {WEIGHTS_FILE} in it"
            )
    return folder


def load_earlier(
    model: nn.Module,
    path: Path,
    *,
    encoder: str,
    classes: Sequence[str],
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
) -> str:
    """Load an earlier segmenter's weights into a new one, and say which classes were matched.

    A class of the same name gets its row of the earlier classifier; other rows stay as they are. A
    classifier of frozen text embeddings is not changed.

    Args:
        model: from `build_segmenter`; changed in place.
        path: see `earlier_folder`.
        encoder: name of the model's encoder.
        classes: names of its classes.
        normalisation: mean and standard deviation of its images.

    Raises:
        ValueError: the segmenter is damaged, or of another architecture, encoder or normalisation.
    """
    folder = earlier_folder(path)
    try:
        metadata = read_metadata(folder)
    except ValueError as error:
        raise ValueError(f"{PARAMETER}: {str(error).partition(';')[0]}; name another") from None
    config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    for name, wanted, found in (
        ("segmenter.arch", type(model).__name__, config["_model_class"]),
        ("segmenter.encoder", encoder, config["encoder_name"]),
        ("segmenter.normalisation", normalisation, (metadata.mean, metadata.std)),
    ):
        if wanted != found:
            raise ValueError(f"{PARAMETER}: {path}: made with {name} {found}, not {wanted}; set it")
    tensors, _ = load_tensors(folder / WEIGHTS_FILE, require_digest=False)
    head = _classifier_name(model)
    body = {name: value for name, value in tensors.items() if not name.startswith(head)}
    wanted_body = {n: v for n, v in model.state_dict().items() if not n.startswith(head)}
    if differences := state_differences(body, wanted_body):
        raise ValueError(
            f"{PARAMETER}: {path} does not fit segmenter.options: {differences}; set the options "
            "that it was made with"
        )
    model.load_state_dict(body, strict=False)
    names = [info.name for info in metadata.classes]
    classifier = model.get_submodule(head.removesuffix("."))
    if isinstance(classifier, TextClassifier):
        return f"starts from {path}; the classifier is the text of this run's classes"
    for name, own in classifier.named_parameters():
        _copy_rows(own, tensors[f"{head}{name}"], classes, names)
    return f"starts from {path}; {_matches(classes, names)}"


def _classifier_name(model: nn.Module) -> str:
    """Prefix of the last layer's names in the state dict, such as ``segmentation_head.0.``."""
    layers = (nn.Conv2d, TextClassifier)
    head = model.get_submodule("segmentation_head")
    name = [name for name, module in head.named_modules() if isinstance(module, layers)][-1]
    return f"segmentation_head.{name}."


def _copy_rows(own: Tensor, earlier: Tensor, classes: Sequence[str], names: Sequence[str]) -> None:
    """Copy the rows, one per class, of the classes that both have."""
    if own.shape[1:] != earlier.shape[1:]:
        raise ValueError(
            f"{PARAMETER}: its classifier has rows of {list(earlier.shape[1:])} values, not "
            f"{list(own.shape[1:])}; set the segmenter.options that it was made with"
        )
    with torch.no_grad():
        for place, name in enumerate(classes):
            if name in names:
                own[place] = earlier[names.index(name)]


def _matches(classes: Sequence[str], names: Sequence[str]) -> str:
    """Which classes were matched by name, which start fresh, which are not used."""
    kinds = {
        "matched": [name for name in classes if name in names],
        "new": [name for name in classes if name not in names],
        "not used": [name for name in names if name not in classes],
    }
    return "classes " + "; ".join(f"{kind}: {', '.join(k) or 'none'}" for kind, k in kinds.items())
