"""Inference: resizing, windows, scales, mirror images, guided filter, batches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import pipeline.segmenter.inference
from pipeline.guided_filter import guide_image, guided_filter
from pipeline.segmenter.inference import (
    Segmenter,
    TestTimeOptions,
    predict_logits,
    predict_mask,
    predict_stream,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


class Coarse(nn.Module):
    """Logits at half size; accepts multiples of 8 only."""

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


def logits_of(
    segmenter: Segmenter, image: Image.Image, size: tuple[int, int], **options: object
) -> Tensor:
    return predict_logits(segmenter, [image], size, TestTimeOptions(**options))[0]


def photo(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("out_size", [(53, 87), (211, 300)])
def test_the_logits_of_an_odd_photo_equal_the_model_run_by_hand(out_size):
    model, image = Coarse().eval(), photo(53, 87)
    logits = logits_of(segmenter_of(model), image, out_size)
    # 53 x 87 fits into 64 x 96 at 96 / 87: 58.5 x 96, 56 rows being 7 strides
    resized = np.asarray(image.resize((96, 56), Image.Resampling.BILINEAR), np.float32) / 255
    pixels = torch.from_numpy((resized - np.float32(MEAN)) / np.float32(STD)).permute(2, 0, 1)
    with torch.no_grad():
        wanted = F.interpolate(model(pixels[None]), out_size, mode="bilinear")[0]
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)
    assert logits.shape == (4, *out_size)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


def test_a_batch_gives_logits_of_its_size_and_gradients():
    model, images = Coarse().eval(), [photo(64, 96), photo(64, 96).rotate(180)]
    model.register_forward_hook(
        lambda model, inputs, logits: F.interpolate(logits, scale_factor=2, mode="bilinear")
    )
    segmenter = segmenter_of(model)
    batch = torch.from_numpy(np.stack([np.asarray(image) for image in images])).movedim(-1, 1)
    logits = segmenter(batch)
    for image, each in zip(images, logits, strict=True):
        torch.testing.assert_close(each, logits_of(segmenter, image, (64, 96)))
    torch.testing.assert_close(segmenter(batch / 255), logits)
    assert logits.requires_grad


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (torch.zeros(3, 64, 96), r"must be \[B, 3, H, W\], H and W multiples of 8, got \[3, 64"),
        (torch.zeros(1, 3, 64, 95), r"got \[1, 3, 64, 95\]; resize them"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "must be uint8 or float in 0..1"),
        (torch.full((1, 3, 8, 8), -0.5), r"must be in 0..1 and not normalised, .*got -0.5..-0.5"),
    ],
)
def test_other_batches_are_refused(batch, says):
    with pytest.raises(ValueError, match=says):
        segmenter_of(Coarse())(batch)


def test_probabilities_are_the_softmax_at_the_photos_size():
    segmenter, image = segmenter_of(Coarse().eval()), photo(53, 87)
    found = segmenter.probabilities(image)
    assert (found.shape, found.dtype) == ((4, 53, 87), np.float32)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
    assert np.array_equal(found.argmax(axis=0), segmenter(image))


class Pointwise(nn.Module):
    """Logits that depend on a single pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * torch.cat([images, images[:, :1] - images[:, 1:2]], dim=1)


def test_windows_and_flips_change_nothing_for_a_pointwise_network():
    segmenter, image = segmenter_of(Pointwise()), photo(64, 96)
    whole = logits_of(segmenter, image, (64, 96))
    windows = logits_of(segmenter, image, (64, 96), window=(32, 40))
    torch.testing.assert_close(windows, whole)
    flipped = logits_of(segmenter, image, (64, 96), flip=True)
    torch.testing.assert_close(flipped, whole.log_softmax(dim=0))


def test_windows_that_are_not_multiples_of_the_stride_are_refused():
    with pytest.raises(ValueError, match=r"eval\.window .* stride 8, got \[30, 40\]"):
        logits_of(segmenter_of(Coarse()), photo(64, 96), (64, 96), window=(30, 40))


def test_the_protocol_describes_test_time_augmentation():
    assert TestTimeOptions().describe() == "none"
    assert "probabilities" not in TestTimeOptions(window=(64, 96)).describe()
    assert "(radius 4 pixels)" in TestTimeOptions(edge_radius=4).describe()
    words = TestTimeOptions(scales=(0.5, 1.0), flip=True, window=(64, 96)).describe()
    assert words == (
        "scales 0.5, 1; also mirrored; windows of 64x96, logits averaged where they overlap; mean "
        "of the probabilities"
    )


def test_a_segmenter_accepts_a_file_an_image_or_an_array(tmp_path):
    segmenter, shown = segmenter_of(Coarse().eval()), photo(37, 61)
    wanted = predict_mask(segmenter, shown, (37, 61))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated clockwise
    shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        for given in (tmp_path / "turned.png", str(tmp_path / "turned.png"), turned, shown):
            assert np.array_equal(segmenter(given), wanted)
    mask = segmenter(np.asarray(shown))
    assert np.array_equal(mask, wanted)
    assert (mask.dtype, mask.shape) == (np.uint8, (37, 61))


def test_scales_and_flips_are_a_mean_of_probabilities_by_hand():
    segmenter, image = segmenter_of(Coarse()), photo(64, 96)
    parts = []
    for size in ((32, 48), (64, 96)):
        small = segmenter_of(segmenter.model, base_size=size)
        parts.append(logits_of(small, image, (64, 96)).softmax(dim=0))
        mirrored = logits_of(small, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (64, 96))
        parts.append(mirrored.flip(-1).softmax(dim=0))
    found = logits_of(segmenter, image, (64, 96), scales=(0.5, 1.0), flip=True)
    torch.testing.assert_close(found.exp(), torch.stack(parts).mean(dim=0), rtol=1e-4, atol=1e-6)


def test_predictions_are_filtered_along_edges_at_the_size_of_the_network():
    segmenter, image = segmenter_of(Coarse()), photo(128, 192)  # resized to 64x96
    found = logits_of(segmenter, image, (128, 192), flip=True, edge_radius=3)
    plain = logits_of(segmenter, image, (64, 96), flip=True).exp()
    guided = guided_filter(guide_image(image, (64, 96)), plain, radius=3)
    wanted = F.interpolate(guided[None], (128, 192), mode="bilinear")[0]
    torch.testing.assert_close(found.exp(), wanted.clamp_min(0), rtol=1e-4, atol=1e-6)
    assert found.isfinite().all()


def test_overlapping_windows_are_averaged():
    segmenter, image = segmenter_of(Coarse()), photo(64, 96)
    found = logits_of(segmenter, image, (64, 96), window=(64, 56))
    total, times = torch.zeros(4, 64, 96), torch.zeros(64, 96)
    for left in (0, 16, 40):  # windows of 56 that share at least a third, in whole strides
        part = image.crop((left, 0, left + 56, 64))
        own = segmenter_of(segmenter.model, base_size=(64, 56))
        total[:, :, left : left + 56] += logits_of(own, part, (64, 56))
        times[:, left : left + 56] += 1
    torch.testing.assert_close(found, total / times)


OPTIONS = {
    "none": {},
    "windows": {"window": (32, 40)},
    "scales": {"scales": (0.5, 1.0), "flip": True},
    "edges": {"flip": True, "edge_radius": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_batch_gives_each_image_the_logits_that_it_gets_alone(options):
    segmenter = segmenter_of(Coarse())
    images = [photo(64, 96), photo(64, 96).transpose(Image.Transpose.ROTATE_180)]
    together = predict_logits(segmenter, images, (80, 90), TestTimeOptions(**options))
    for logits, image in zip(together, images, strict=True):
        alone = logits_of(segmenter, image, (80, 90), **options)
        torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


@pytest.mark.parametrize("most", [1, 2])
def test_images_of_many_sizes_keep_their_order_and_predictions(monkeypatch, most):
    segmenter, calls = segmenter_of(Coarse()), []
    monkeypatch.setattr(pipeline.segmenter.inference, "PIXELS_PER_CALL", most * 64 * 96)
    sizes = [(64, 96)] * 3 + [(40, 96), (64, 96)] + [(30, 30)] * 2
    images = [photo(*size).rotate(90 * number) for number, size in enumerate(sizes)]
    segmenter.model.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    found = predict_stream(
        segmenter,
        ((key, image, f"{key}") for key, image in enumerate(images)),
        more=lambda key, logits: [torch.full(logits.shape[1:], key).byte()],
    )
    for number, (key, image, extra, (classes, more)) in enumerate(found):
        assert (key, extra) == (number, f"{number}")
        assert image is images[key]
        assert np.array_equal(classes, logits_of(segmenter, image, sizes[key]).argmax(dim=0))
        assert (more == number).all()
    assert number == len(sizes) - 1
    batches = {1: [1] * 7, 2: [2, 1, 1, 1, 2]}[most]
    assert sorted(calls) == sorted(batches + [1] * 7)  # seven for the comparison


@pytest.mark.parametrize(
    ("size", "options", "together"),
    [((64, 96), {}, 4), ((128, 192), {}, 1), ((64, 96), {"scales": (0.5, 2.0)}, 1)],
)
def test_large_images_do_not_share_a_batch(monkeypatch, size, options, together):
    segmenter, calls = segmenter_of(Coarse()), []
    monkeypatch.setattr(pipeline.segmenter.inference, "PIXELS_PER_CALL", 4 * 64 * 96)
    segmenter.model.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    items = ((key, photo(*size), None) for key in range(4))
    found = predict_stream(segmenter, items, test_time=TestTimeOptions(**options))
    assert len(list(found)) == 4
    assert max(calls) == together


def test_other_values_than_images_are_refused():
    for given in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), None):
        with pytest.raises(ValueError, match=r"or a uint8 array of \[H, W, 3\] \(RGB\), got "):
            segmenter_of(Coarse())(given)
