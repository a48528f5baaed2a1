"""Prompt templates, in named sets."""

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


def resolve_templates(name: str) -> list[str]:
    """The format strings of ``params.yaml: clip.templates``, each with one ``{}`` for the class."""
    return {"carb": carb_templates(), "plain": ["a photo of a {}."]}[name]
