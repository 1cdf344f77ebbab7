"""The cells of notebook 02 in the glyph world: what source networks decide by, and how copies of targets serve them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rtkit import compute, evaluation, robustness, shape_bias
from rtkit.measure import transfer
from rtkit.measure.transfer import ATTACK

AMPLITUDES = tuple(dose / 255 for dose in (0, 4, 8, 14))  # of the test images' texture: as in training, and others


@dataclass(frozen=True)
class Cell(transfer.Cell):
    """One cell. Its target is "source", or a copy of a drawn one, such as "digits:swapped"."""

    @property
    def config(self) -> dict:
        """All that decides its rows beside the code: no data set of real images is among it."""
        return {"cell": self, "compute": compute.kind()}


def _looking(cell: Cell) -> Iterator[dict]:
    """What a source network does with images of its own classes when one cue is changed."""
    net, facts = cell.source.load()
    world, n = cell.source.world, cell.n_test
    for change in shape_bias.CHANGES:
        images = shape_bias.letters(world, n, cell.seed, change).images
        yield cell.row("clean_accuracy", evaluation.accuracy(net, images), n, change=change)
    for amplitude in AMPLITUDES:
        drawn = shape_bias.letters(world, n, cell.seed, "texture swapped", amplitude)
        bias = shape_bias.shape_bias(evaluation.predictions(net, drawn.images), drawn.images.y, drawn.textures)
        if not math.isnan(bias):
            yield cell.row("shape_bias", bias, n, test_amplitude=amplitude)
    attacked = robustness.robustness(net, cell.source.images("test", 64), ATTACK, steps=10, seed=cell.seed)
    yield cell.row("robust_accuracy", attacked.robust, attacked.n_test)
    yield cell.row("self_check_warnings", len(attacked.warnings), attacked.n_test)
    yield cell.row("collapsed", float(facts["collapsed"]), 64)


def rows(cell: Cell) -> Iterator[dict]:
    """Compute the rows of one cell: `transfer.rows`'s columns, and `change` (of the source images), `test_amplitude`.

    The column `source` tells standard, texture-randomised and robust networks apart. The target "digits:swapped" is the
    copy "swapped" of the digits (`shape_bias.target_copy`).
    """
    if cell.protocol == "none":
        found = _looking(cell)
    else:
        name, copy = cell.target.split(":")
        found = transfer.trained_rows(cell, shape_bias.target_copy(name, copy, cell.source.world, cell.seed))
    for row in found:
        yield {"change": "", "test_amplitude": math.nan} | row
