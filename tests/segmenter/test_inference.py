"""Predictions on whole photos."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import pipeline.segmenter.inference
from pipeline.datasets.base import Scene
from pipeline.guided_filter import guide_image, guided_filter
from pipeline.segmenter.inference import (
    WHOLE,
    Segmenter,
    TestTimeOptions,
    predict_batch,
    predict_logits,
    predict_many,
    predict_mask,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


class Coarse(nn.Module):
    """Logits at half size; refuses what is no multiple of 8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        assert all(side % 8 == 0 for side in images.shape[2:])
        return self.conv(images)


def segmenter_of(model: nn.Module, base_size: tuple[int, int] = (64, 96)) -> Segmenter:
    return Segmenter(
        model=model,
        classes=list("abcd"),
        palette=np.zeros((4, 3), np.uint8),
        mean=MEAN,
        std=STD,
        base_size=base_size,
        stride=8,
        extra={},
    )


def photo(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("out_size", [(53, 87), (20, 31), (211, 300)])
def test_the_logits_of_an_odd_photo_equal_the_model_run_by_hand(out_size):
    model, image = Coarse().eval(), photo(53, 87)
    logits = predict_logits(segmenter_of(model), image, out_size)
    # 53 x 87 fits into 64 x 96 at 96 / 87: 58.5 x 96, 56 rows being 7 strides
    resized = np.asarray(image.resize((96, 56), Image.Resampling.BILINEAR), np.float32) / 255
    pixels = torch.from_numpy((resized - np.float32(MEAN)) / np.float32(STD)).permute(2, 0, 1)
    with torch.no_grad():
        wanted = F.interpolate(model(pixels[None]), out_size, mode="bilinear")[0]
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)
    assert logits.shape == (4, *out_size)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


def test_the_mask_is_the_arg_max_of_the_logits():
    segmenter, image = segmenter_of(Coarse().eval()), photo(37, 61)
    mask = predict_mask(segmenter, image, (37, 61))
    assert mask.dtype == np.uint8
    assert mask.shape == (37, 61)
    logits = predict_logits(segmenter, image, (37, 61)).numpy()
    assert np.array_equal(mask, logits.argmax(axis=0))
    assert len(np.unique(mask)) > 1


def test_each_place_of_the_mask_is_of_the_same_place_of_the_photo():
    class Red(nn.Module):
        """Class 1 where red is above the mean."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(images[:, :1]), images[:, :1] * self.scale], dim=1)

    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[:12, 20:, 0] = 255
    mask = predict_mask(segmenter_of(Red(), base_size=(60, 100)), Image.fromarray(pixels), (30, 50))
    assert np.array_equal(mask, pixels[..., 0] // 255)


def test_half_precision_models_give_float32_logits():
    class Half(Coarse):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).bfloat16()

    logits = predict_logits(segmenter_of(Half().eval()), photo(40, 40), (40, 40))
    assert logits.dtype == torch.float32


class Pointwise(nn.Module):
    """Logits that depend on the pixel alone: where it is and what is near does not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * torch.cat([images, images[:, :1] - images[:, 1:2]], dim=1)


def test_windows_and_flips_change_nothing_for_a_network_that_looks_at_single_pixels():
    segmenter, image = segmenter_of(Pointwise()), photo(64, 96)
    whole = predict_logits(segmenter, image, (64, 96))
    windows = predict_logits(segmenter, image, (64, 96), TestTimeOptions(window=(32, 40)))
    torch.testing.assert_close(windows, whole)
    flipped = predict_logits(segmenter, image, (64, 96), TestTimeOptions(flip=True))
    torch.testing.assert_close(flipped, whole.log_softmax(dim=0))


def test_scales_and_flips_are_a_mean_of_probabilities_by_hand():
    segmenter, image = segmenter_of(Coarse()), photo(64, 96)
    parts = []
    for size in ((32, 48), (64, 96)):
        small = segmenter_of(segmenter.model, base_size=size)
        parts.append(predict_logits(small, image, (64, 96)).softmax(dim=0))
        mirrored = predict_logits(small, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (64, 96))
        parts.append(mirrored.flip(-1).softmax(dim=0))
    found = predict_logits(
        segmenter, image, (64, 96), TestTimeOptions(scales=(0.5, 1.0), flip=True)
    )
    torch.testing.assert_close(found.exp(), torch.stack(parts).mean(dim=0), rtol=1e-4, atol=1e-6)


def test_the_answer_follows_the_photo_s_edges_at_the_size_that_the_network_sees():
    segmenter, image = segmenter_of(Coarse()), photo(128, 192)  # shown at 64x96
    found = predict_logits(segmenter, image, (128, 192), TestTimeOptions(flip=True, edge_radius=3))
    plain = predict_logits(segmenter, image, (64, 96), TestTimeOptions(flip=True)).exp()
    guided = guided_filter(guide_image(image, (64, 96)), plain, radius=3)
    wanted = torch.nn.functional.interpolate(guided[None], (128, 192), mode="bilinear")[0]
    torch.testing.assert_close(found.exp(), wanted.clamp_min(0), rtol=1e-4, atol=1e-6)
    assert found.isfinite().all()
    assert (found.exp() - predict_logits(segmenter, image, (128, 192)).softmax(0)).abs().max() > 0.1


def test_overlapping_windows_are_averaged():
    segmenter, image = segmenter_of(Coarse()), photo(64, 96)
    found = predict_logits(segmenter, image, (64, 96), TestTimeOptions(window=(64, 56)))
    total, times = torch.zeros(4, 64, 96), torch.zeros(64, 96)
    for left in (0, 16, 40):  # windows of 56 that share at least a third, in whole strides
        part = image.crop((left, 0, left + 56, 64))
        own = segmenter_of(segmenter.model, base_size=(64, 56))
        total[:, :, left : left + 56] += predict_logits(own, part, (64, 56))
        times[:, left : left + 56] += 1
    torch.testing.assert_close(found, total / times)


PRESENTATIONS = {
    "whole": TestTimeOptions(),
    "windows": TestTimeOptions(window=(32, 40)),
    "views": TestTimeOptions(scales=(0.5, 1.0), flip=True),
    "edges": TestTimeOptions(flip=True, edge_radius=3),
}


@pytest.mark.parametrize("presentation", PRESENTATIONS.values(), ids=PRESENTATIONS)
def test_photos_that_are_shown_together_get_the_answers_that_each_gets_alone(presentation):
    segmenter = segmenter_of(Coarse())
    images = [photo(64, 96), photo(64, 96).transpose(Image.Transpose.ROTATE_180)]
    together = predict_batch(segmenter, images, (80, 90), presentation)
    for logits, image in zip(together, images, strict=True):
        alone = predict_logits(segmenter, image, (80, 90), presentation)
        torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


@pytest.mark.parametrize("most", [1, 2, 100])
def test_photos_of_many_sizes_come_in_order_each_with_its_own_answer(monkeypatch, most):
    segmenter, calls = segmenter_of(Coarse()), []
    monkeypatch.setattr(pipeline.segmenter.inference, "PIXELS_A_CALL", most * 64 * 96)
    sizes = [(64, 96)] * 3 + [(40, 96), (64, 96)] + [(30, 30)] * 2
    scenes = [Scene(Path(f"{n}"), None, "val", f"{n}") for n in range(len(sizes))]
    photos = {
        scene.key: photo(*size).rotate(90 * number, expand=False)
        for number, (scene, size) in enumerate(zip(scenes, sizes, strict=True))
    }
    segmenter.model.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    answers = list(
        predict_many(
            segmenter,
            scenes,
            read=lambda scene: (photos[scene.key], scene.key),
            presentation=WHOLE,
            more=lambda scene, logits: [torch.full(logits.shape[1:], int(scene.key)).byte()],
        )
    )
    assert calls == {1: [1] * 7, 2: [2, 1, 1, 1, 2], 100: [3, 1, 1, 2]}[most]
    for number, (scene, shown, beside, (classes, more)) in enumerate(answers):
        assert (scene.key, beside) == (f"{number}", f"{number}")
        assert shown is photos[scene.key]
        assert np.array_equal(classes, predict_mask(segmenter, shown, sizes[number]))
        assert (more == number).all()
    assert len(answers) == len(scenes)


@pytest.mark.parametrize(
    ("size", "presentation", "together"),
    [
        ((64, 96), WHOLE, 4),
        ((128, 192), WHOLE, 1),
        ((64, 96), TestTimeOptions(scales=(0.5, 2.0)), 1),
    ],
)
def test_large_photos_are_not_shown_together(monkeypatch, size, presentation, together):
    segmenter, calls = segmenter_of(Coarse()), []
    monkeypatch.setattr(pipeline.segmenter.inference, "PIXELS_A_CALL", 4 * 64 * 96)
    segmenter.model.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    scenes = [Scene(Path(f"{n}"), None, "val", f"{n}") for n in range(4)]
    answers = predict_many(
        segmenter, scenes, read=lambda scene: (photo(*size), None), presentation=presentation
    )
    assert len(list(answers)) == 4
    assert max(calls) == together


def test_windows_of_no_whole_strides_are_refused():
    with pytest.raises(ValueError, match=r"eval\.window .* stride 8, got \[30, 40\]"):
        predict_logits(
            segmenter_of(Coarse()), photo(64, 96), (64, 96), TestTimeOptions(window=(30, 40))
        )


def test_the_protocol_says_what_was_done_at_test_time():
    assert TestTimeOptions().in_words() == "none"
    assert "probabilities" not in TestTimeOptions(window=(64, 96)).in_words()
    assert "(radius 4 pixels)" in TestTimeOptions(edge_radius=4).in_words()
    words = TestTimeOptions(scales=(0.5, 1.0), flip=True, window=(64, 96)).in_words()
    assert words == (
        "scales 0.5, 1; also mirrored; windows of 64x96, logits averaged where they overlap; mean "
        "of the probabilities"
    )


def test_a_segmenter_is_called_with_a_file_a_picture_or_an_array(tmp_path):
    segmenter, shown = segmenter_of(Coarse().eval()), photo(37, 61)
    wanted = predict_mask(segmenter, shown, (37, 61))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown a quarter turn clockwise
    shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        for given in (tmp_path / "turned.png", str(tmp_path / "turned.png"), turned, shown):
            assert np.array_equal(segmenter(given), wanted)
    mask = segmenter(np.asarray(shown))
    assert np.array_equal(mask, wanted)
    assert (mask.dtype, mask.shape) == (np.uint8, (37, 61))


@pytest.mark.parametrize("given", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), None])
def test_what_is_no_photo_is_told_what_one_is(given):
    with pytest.raises(ValueError, match=r"or a uint8 array of \[H, W, 3\] \(RGB\), got "):
        segmenter_of(Coarse())(given)
