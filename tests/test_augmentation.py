"""Crops and mirror images: every drawn image is a window of the padded one, and training without them is as it was."""

import pytest
import torch
import torch.nn.functional as F

from rtkit import models
from rtkit.data.augmentation import crop_and_flip
from rtkit.data.glyphs import Images
from rtkit.training import Phase, train


def drawn_again(n: int, pad: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The rows, columns and mirrorings that a generator of this seed gives n images."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randint(2 * pad + 1, (n, 1), generator=generator)[:, 0] for _ in range(2))
    return rows, columns, torch.rand(n, 1, generator=generator)[:, 0] < 0.5


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_a_marked_pixel_lands_where_the_draw_says(pad):
    n, height, width, row, column = 40, 12, 10, 5, 3
    x = torch.zeros(n, 3, height, width, dtype=torch.uint8)
    x[:, 1, row, column] = 255
    out = crop_and_flip(x, torch.Generator().manual_seed(5), pad)
    for k, (down, right, mirrored) in enumerate(zip(*drawn_again(n, pad, 5), strict=True)):
        there = row + pad - int(down)
        across = column + pad - int(right)
        across = width - 1 - across if mirrored else across
        expected = torch.zeros(3, height, width, dtype=torch.uint8)
        if 0 <= there < height and 0 <= across < width:
            expected[1, there, across] = 255
        assert torch.equal(out[k], expected), k


@pytest.mark.parametrize(("pad", "dtype"), [(4, torch.uint8), (2, torch.float32)])
def test_every_image_is_a_window_of_its_padded_self_or_the_mirror_image(pad, dtype):
    n, size = 60, 9
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(1, 256, (n, 3, size, size), generator=generator).to(dtype)
    out = crop_and_flip(x, generator, pad)
    assert out.shape == x.shape
    assert out.dtype == dtype
    places, mirrored = set(), 0
    for image, result in zip(F.pad(x, (pad,) * 4), out, strict=True):
        windows = {(i, j): image[:, i : i + size, j : j + size] for i in range(2 * pad + 1) for j in range(2 * pad + 1)}
        straight = [place for place, window in windows.items() if torch.equal(window, result)]
        flipped = [place for place, window in windows.items() if torch.equal(window.flip(2), result)]
        assert len(straight) + len(flipped) == 1
        places |= {*straight, *flipped}
        mirrored += len(flipped)
    assert len(places) > (2 * pad + 1) ** 2 / 3
    assert n / 4 < mirrored < 3 * n / 4


def test_the_generator_alone_decides():
    x = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    before = x.clone()
    one, same, other = (crop_and_flip(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)


def test_training_without_augmentation_is_what_it_was(two_classes):
    """Leaving it out, passing None and a function that changes and draws nothing: one and the same training."""
    results = []
    for options in ({}, {"augment": None}, {"augment": lambda x, generator: x}):
        net = models.create(2, "small-8", 0)
        results.append((train(net, two_classes, (Phase(steps=4, lr=0.05, batch_size=16),), 0, **options).loss, net))
    for loss, net in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-3)
        for one, other in zip(net.parameters(), results[0][1].parameters(), strict=True):
            torch.testing.assert_close(one, other)


def test_training_sees_every_batch_as_it_was_augmented(two_classes):
    """The function gets the uint8 images of a batch; what it gives back is trained on."""
    seen = []

    def blacken(x, generator):
        seen.append((x.dtype, x.shape))
        return torch.zeros_like(x)

    net, black = models.create(2, "small-8", 0), models.create(2, "small-8", 0)
    phases = (Phase(steps=3, lr=0.05, batch_size=16),)
    loss = train(net, two_classes, phases, 0, augment=blacken).loss
    images = Images(torch.zeros_like(two_classes.x), two_classes.y, two_classes.classes)
    assert loss == pytest.approx(train(black, images, phases, 0).loss, rel=1e-3)
    assert seen == [(torch.uint8, (16, 3, 32, 32))] * 3
