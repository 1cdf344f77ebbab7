"""Augmentation of a whole batch at once, on its device."""

import torch
import torch.nn.functional as F


def crop_and_flip(x: torch.Tensor, generator: torch.Generator, pad: int = 4) -> torch.Tensor:
    """Shift each image by up to `pad` pixels, black beyond its edge, and mirror every second one, at random.

    Shape:
        (N, 3, H, W) -> the same. He et al. 2016, section 4.2.
    """
    n, _, height, width = x.shape
    draw = {"generator": generator, "device": x.device}
    rows = torch.arange(height, device=x.device) + torch.randint(2 * pad + 1, (n, 1), **draw)  # (N, H)
    columns = torch.arange(width, device=x.device) + torch.randint(2 * pad + 1, (n, 1), **draw)  # (N, W)
    mirrored = torch.rand(n, 1, **draw) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(x, (pad, pad, pad, pad))
    each = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
