"""The demo's small CLIP: captions, crops and a short training run."""

import random
import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from demo import train_clip
from demo.captions import SYNONYMS, Vocabulary, write_caption
from demo.crops import CropBatches, ScenePool, augment, draw_pool
from demo.street import CLASSES
from demo.tiny_clip import IMAGE_SIZE, encode_text, soft_targets
from pipeline.clip.prompts import SCENE_TEMPLATES

RECIPE = train_clip.Recipe(steps=3, batch_size=8, num_scenes=4, seed=0)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture(scope="module")
def pool() -> ScenePool:
    return draw_pool(RECIPE.num_scenes, seed=0, processes=1)


def make_batches(pool: ScenePool, vocabulary: Vocabulary) -> CropBatches:
    return CropBatches(pool, vocabulary, batch_size=RECIPE.batch_size, size=IMAGE_SIZE, seed=0)


def test_synonyms_cover_the_classes_in_order():
    assert tuple(SYNONYMS) == CLASSES
    assert all(words[0] == name for name, words in SYNONYMS.items())


def mentioned_classes(caption: str) -> set[str]:
    """Classes that a caption names; longer wordings are matched first and then removed."""
    wordings = [(wording, name) for name, words in SYNONYMS.items() for wording in words]
    found = set()
    for wording, name in sorted(wordings, key=lambda pair: -len(pair[0])):
        caption, count = re.subn(rf"\b{wording}\b", "#", caption)
        if count:
            found.add(name)
    return found


def test_a_caption_mentions_the_given_classes_and_no_other():
    rng = random.Random(0)
    for _ in range(2000):
        names = rng.sample(CLASSES, rng.randint(1, 3))
        caption = write_caption(names, rng=rng)
        assert mentioned_classes(caption) == set(names), caption


def test_the_vocabulary_covers_every_template_with_every_synonym(vocabulary):
    templates = [*open_clip.OPENAI_IMAGENET_TEMPLATES, *(t.format for t in SCENE_TEMPLATES)]
    sentences = [t(word) for words in SYNONYMS.values() for word in words for t in templates]
    compact = vocabulary.encode(sentences)
    tokens = open_clip.tokenize(sentences)[:, : compact.shape[1]]
    assert torch.equal(vocabulary.token_ids[compact], tokens)


def test_a_crop_lies_in_its_scene_and_its_caption_names_classes_in_it(pool):
    rng = random.Random(0)
    for _ in range(500):
        crop = pool.draw_crop(rng)
        rows, columns = pool.masks.shape[1:]
        bottom, right = crop.top + crop.height, crop.left + crop.width
        assert crop.top >= 0
        assert crop.left >= 0
        assert bottom <= rows + 1e-6
        assert right <= columns + 1e-6
        inside = pool.masks[
            crop.scene,
            int(crop.top) : int(np.ceil(bottom)),
            int(crop.left) : int(np.ceil(right)),
        ]
        assert 1 <= len(crop.classes) <= 3
        assert set(crop.classes) <= set(np.unique(inside).tolist())


def test_scenes_do_not_depend_on_the_number_of_processes(pool):
    again = draw_pool(RECIPE.num_scenes, seed=0, processes=2)
    assert np.array_equal(again.images, pool.images)
    assert np.array_equal(again.masks, pool.masks)


def test_augmented_images_stay_within_the_range_of_clip():
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    one, two = (augment(images, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == images.shape
    assert one.isfinite().all()
    assert one.abs().max() < 4


def test_a_batch_depends_on_seed_and_step_alone(pool, vocabulary):
    batches = make_batches(pool, vocabulary)
    later, again = batches[7], make_batches(pool, vocabulary)[7]
    assert all(torch.equal(a, b) for a, b in zip(later, again, strict=True))
    assert not torch.equal(later.images, batches[8].images)


def test_soft_targets_by_hand():
    mentioned = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    # Jaccard 1/2, squared 1/4, rows divided by 5/4.
    assert torch.allclose(soft_targets(mentioned), torch.tensor([[0.8, 0.2], [0.2, 0.8]]))


def run_command(out: Path) -> None:
    """The command of ``RECIPE``."""
    app = typer.Typer()
    app.command()(train_clip.main)
    arguments = f"--out {out} --steps 3 --batch 8 --scenes 4 --threads 1 --no-compiled"
    result = CliRunner().invoke(app, arguments.split(), catch_exceptions=False)
    assert result.exit_code == 0


def test_a_short_run_writes_a_folder_that_open_clip_opens(tmp_path, vocabulary):
    out = tmp_path / "clip"
    run_command(out)
    assert [path.name for path in tmp_path.iterdir()] == ["clip"]
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}")
    tokens = open_clip.get_tokenizer(f"local-dir:{out}")(["a photo of a truck."])
    assert model.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 128)
    assert model.encode_text(tokens).isfinite().all()
    table = load_file(out / "open_clip_model.safetensors")["token_embedding.weight"]
    unused = torch.ones(len(table), dtype=torch.bool)
    unused[vocabulary.token_ids] = False
    assert table.dtype == torch.float16
    assert (table[unused] == 0).all()
    assert (table[~unused] != 0).any(dim=1).all()


def test_shortened_text_encodes_as_in_open_clip(pool, vocabulary):
    model = train_clip.start_training(pool, vocabulary, seed=0).model.eval()
    tokens = vocabulary.encode(["a photo of a bus.", "the sky, a truck and terrain"])
    padded = F.pad(tokens, (0, 77 - tokens.shape[1]))
    assert torch.allclose(encode_text(model, tokens), model.encode_text(padded), atol=1e-5)


def test_an_interrupted_run_resumes_and_ends_with_equal_weights(tmp_path, pool, vocabulary):
    batches = make_batches(pool, vocabulary)
    straight = train_clip.start_training(pool, vocabulary, seed=0)
    train_clip.fit(straight, [batches[0], batches[1]], RECIPE, scratch=tmp_path, compiled=False)
    train_clip.save_checkpoint(tmp_path / "clip.partial/state.pt", straight, RECIPE)
    other = train_clip.start_training(pool, vocabulary, seed=1)
    train_clip.load_checkpoint(tmp_path / "clip.partial/state.pt", other, RECIPE)
    assert other.step == 2
    train_clip.fit(straight, [batches[2]], RECIPE, scratch=tmp_path, compiled=False)
    run_command(tmp_path / "clip")
    saved = load_file(tmp_path / "clip/open_clip_model.safetensors")
    for name, weight in straight.average.state_dict().items():
        if name != "token_embedding.weight":
            assert torch.equal(saved[name], weight.half()), name


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, pool, vocabulary):
    training = train_clip.start_training(pool, vocabulary, seed=0)
    train_clip.save_checkpoint(tmp_path / "state.pt", training, RECIPE)
    other = train_clip.Recipe(steps=4, batch_size=8, num_scenes=4, seed=0)
    with pytest.raises(ValueError, match=r"not .*'steps': 4"):
        train_clip.load_checkpoint(tmp_path / "state.pt", training, other)
