"""Captions for crops of drawn scenes, and their vocabulary.

A caption mentions one to three classes; no template contains a word for a class (such as "seen from
a car").
"""

import random
from collections.abc import Sequence

import open_clip
import torch
from torch import Tensor

from pipeline.clip.prompts import SCENE_TEMPLATES

# The first wording is the name of the class in the demo's label space.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "road": ("road", "street", "roadway", "asphalt"),
    "sidewalk": ("sidewalk", "pavement", "footpath"),
    "building": ("building", "house", "facade"),
    "wall": ("wall", "stone wall", "brick wall"),
    "fence": ("fence", "railing"),
    "pole": ("pole", "lamp post", "post"),
    "traffic light": ("traffic light", "traffic signal", "stoplight"),
    "traffic sign": ("traffic sign", "road sign", "sign"),
    "vegetation": ("vegetation", "tree", "foliage", "hedge"),
    "terrain": ("terrain", "grass", "lawn"),
    "sky": ("sky", "cloudy sky"),
    "person": ("person", "pedestrian", "walking person"),
    "rider": ("rider", "cyclist", "bicyclist"),
    "car": ("car", "vehicle", "automobile"),
    "truck": ("truck", "lorry"),
    "bus": ("bus", "coach"),
    "bicycle": ("bicycle", "bike"),
}

SINGLE_TEMPLATES = (
    "{}",
    "a photo of a {}.",
    "a photo of the {}.",
    "a cropped photo of a {}.",
    "a close-up photo of a {}.",
    "a driving scene with a {}.",
)
LIST_TEMPLATES = (
    "{}",
    "a photo of {}.",
    "a cropped photo of {}.",
    "a picture of {}.",
    "an image showing {}.",
    "there is {} in the scene.",
    "an outdoor scene with {}.",
    "a driving scene with {}.",
)
SYNONYM_PROBABILITY = 0.6


def write_caption(names: Sequence[str], *, rng: random.Random) -> str:
    """Write a sentence that mentions the classes of ``names``, in any order, and no others.

    Args:
        names: keys of ``SYNONYMS``, at least one.
        rng: chooses wordings, order, articles and the template.

    Returns:
        The caption, lower case.
    """
    words = [
        rng.choice(SYNONYMS[name]) if rng.random() < SYNONYM_PROBABILITY else name for name in names
    ]
    if len(words) == 1:
        return _single_caption(words[0], rng)
    rng.shuffle(words)
    words = [rng.choice(("", "the ", _article(word))) + word for word in words]
    listing = f"{', '.join(words[:-1])} and {words[-1]}"
    return rng.choice(LIST_TEMPLATES).format(listing)


def _single_caption(word: str, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(SCENE_TEMPLATES).format(word)
    if kind < 0.4:
        return rng.choice(SINGLE_TEMPLATES).format(word)
    return str(rng.choice(open_clip.OPENAI_IMAGENET_TEMPLATES)(word)).lower()


def _article(word: str) -> str:
    return "an " if word[0] in "aeiou" else "a "


class Vocabulary:
    """The tokens of captions and prompts, numbered without gaps.

    About 130 of CLIP's 49 408. Only their embeddings are trained, which saves time; the other rows
    of the saved file are zero and compress well.
    """

    def __init__(self) -> None:
        self._tokenizer = open_clip.SimpleTokenizer(context_length=77)
        tokens = torch.cat([self._tokenizer(_sentences(word)) for word in _all_words()])
        # [V] int64, ascending, so that end-of-text stays the largest.
        self.token_ids: Tensor = torch.unique(tokens)
        self._compact = {int(token): row for row, token in enumerate(self.token_ids)}

    def __len__(self) -> int:
        return len(self.token_ids)

    def encode(self, sentences: list[str]) -> Tensor:
        """Compact tokens of ``sentences``, cut to the longest length rounded up to a multiple of 8.

        The text tower is causal, so cutting the padding changes no result.

        Returns:
            ``[N, L]`` int64 rows of the compact embedding; padding is 0, as in CLIP.
        """
        tokens: Tensor = self._tokenizer(sentences)  # [N, 77]
        longest = int((tokens != 0).sum(dim=1).max())
        tokens = tokens[:, : 8 * -(-longest // 8)]
        return tokens.clone().apply_(lambda token: self._compact[token])


def _all_words() -> list[str]:
    return [word for words in SYNONYMS.values() for word in words]


def _sentences(word: str) -> list[str]:
    """Every template with ``word``, and the word within a list."""
    templates = SCENE_TEMPLATES + SINGLE_TEMPLATES + LIST_TEMPLATES
    return [
        *(template(word) for template in open_clip.OPENAI_IMAGENET_TEMPLATES),
        *(template.format(word) for template in templates),
        f"a {word}, the {word}, {word} and an {word}",
    ]
