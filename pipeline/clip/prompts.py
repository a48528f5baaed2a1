"""Prompt templates, in named sets."""

from collections.abc import Callable

# The five that the authors of CARB add (their commit 26f7c68).
SCENE_TEMPLATES = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)


def carb_templates() -> list[str]:
    """The paper's 85 templates: the 80 of CLIP's ImageNet ensemble, then five about scenes.

    open_clip defines the 80 as functions of the class name; called with ``{}`` they return format
    strings. Source: the authors' released code, commit 26f7c68.
    """
    from open_clip import OPENAI_IMAGENET_TEMPLATES  # here, not on top: this import takes seconds

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES] + list(SCENE_TEMPLATES)


def plain_templates() -> list[str]:
    """A single template: the ablation of the ensemble."""
    return ["a photo of a {}."]


TEMPLATES: dict[str, Callable[[], list[str]]] = {"carb": carb_templates, "plain": plain_templates}


def resolve_templates(name: str) -> list[str]:
    """The format strings of a named template set, each with one ``{}`` for the class word.

    Args:
        name: ``params.yaml: clip.templates``, a key of ``TEMPLATES``.

    Raises:
        ValueError: there is no set of that name.
    """
    if name not in TEMPLATES:
        raise ValueError(
            f"params.yaml: clip.templates must be one of {', '.join(TEMPLATES)}, got {name!r}"
        )
    return TEMPLATES[name]()
