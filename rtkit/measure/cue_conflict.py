"""Do real networks decide by shape or by texture? The second study behind notebook 02 (Geirhos et al. 2019, section 2).

Networks that learned CIFAR-10 decide cue-conflict stimuli, images with the shape of one class and the texture of
another, among the classes that both share.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from rtkit import evaluation, shape_bias
from rtkit.data import named
from rtkit.data.glyphs import Images
from rtkit.data.pictures import Pictures
from rtkit.measure import transfer
from rtkit.models import Network
from rtkit.sources import Source

STUDY = "cue_conflict"
FOLDER = "cue_conflict"  # beside the data sets
ALL = "all"  # in place of a class: the stimuli of every shape


@dataclass(frozen=True)
class Stimuli:
    """Cue-conflict stimuli of the classes that they share with a data set.

    Args:
        x: (N, 3, size, size) uint8; shape, texture: (N,) classes, as indices into `names`.
        names: the classes, as the stimuli name them; columns: the same, as indices into the data set's classes.
    """

    x: torch.Tensor
    shape: torch.Tensor
    texture: torch.Tensor
    names: tuple[str, ...]
    columns: tuple[int, ...]

    @property
    def digest(self) -> str:
        """A hash of them all, for cache keys."""
        arrays = {"x": self.x.numpy(), "shape": self.shape.numpy(), "texture": self.texture.numpy()}
        return named.digest(arrays, repr((self.names, self.columns)))


@cache
def stimuli(world: Pictures) -> Stimuli:
    """Read the stimuli in cue_conflict/, beside the data sets, that are of two classes of a world's data set.

    Raises:
        ValueError: the folder or the data set is missing, they share fewer than two classes, or a stimulus cannot be
            used (`shape_bias.read_stimuli`).
    """
    known = named.arrays(world.name, world.size)["classes"].tolist()
    names = [name for name, own in shape_bias.CIFAR_NAMES.items() if own in known]
    if len(names) < 2:
        raise ValueError(
            f"{named.find(world.name)} shares fewer than two classes with the stimuli: it needs two of "
            f"{', '.join(shape_bias.CIFAR_NAMES.values())}, it has {', '.join(known)}"
        )
    folder = named.folder() / FOLDER
    if not folder.is_dir():
        raise ValueError(
            f"no cue-conflict stimuli: {folder} is missing; put images laid out as "
            "<shape>/<shape><number>-<texture><number>.png there (data/README.md says where to get them)"
        )
    x, shape, texture = shape_bias.read_stimuli(folder, world.size, names)
    return Stimuli(x, shape, texture, tuple(names), tuple(known.index(shape_bias.CIFAR_NAMES[name]) for name in names))


def chances(logits: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
    """Probabilities of some of the classes, given that it is one of these. Shape: (N, K) -> (N, len(columns))."""
    return logits[:, list(columns)].softmax(1)


def decisions(net: Network, found: Stimuli) -> torch.Tensor:
    """What a network takes each stimulus for, of their classes alone. Shape: (N,), indices into `names`."""
    batches = evaluation.batches(Images(found.x, found.shape, found.names))
    return torch.cat([chances(evaluation.logits(net, x), found.columns).argmax(1).cpu() for x, _ in batches])


def shares(decided: torch.Tensor, found: Stimuli) -> Iterator[tuple[str, str, float, int]]:
    """How often shape, texture or neither decides, over all stimuli and over those of each shape.

    Returns:
        (metric, shape, value, number of stimuli that it is a share of); no `shape_bias` where neither cue ever decides.
    """
    for name in (ALL, *found.names):
        chosen = torch.ones_like(found.shape, dtype=bool) if name == ALL else found.shape == found.names.index(name)
        said, shape, texture = decided[chosen], found.shape[chosen], found.texture[chosen]
        if not len(said):
            continue
        counts = {"shape": int((said == shape).sum()), "texture": int((said == texture).sum())}
        counts["other"] = len(said) - sum(counts.values())
        for cue, count in counts.items():
            yield f"{cue}_decisions", name, count / len(said), len(said)
        bias = shape_bias.shape_bias(said, shape, texture)
        if not math.isnan(bias):
            yield "shape_bias", name, bias, counts["shape"] + counts["texture"]


@dataclass(frozen=True)
class Cell:
    """One source network of real images, on its own task and on the stimuli."""

    source: Source
    seed: int
    n_test: int

    target = "source"

    @property
    def own(self) -> transfer.Cell:
        """The network on its own task."""
        return transfer.Cell("cue_conflict", self.source, self.seed, "source", "none", n_test=self.n_test)

    @property
    def config(self) -> dict:
        """All that decides its rows beside the code, the stimuli that lie in the folder among it."""
        return self.own.config | {"stimuli": stimuli(self.source.world).digest}


def rows(cell: Cell) -> Iterator[dict]:
    """Compute the rows of one source network: on its own task (target "source") and on the stimuli ("cue_conflict").

    Columns as in `transfer.rows`, and `shape`: the class of the stimuli's shape, or "all"; `stimulus`: its number, for
    the metric "decided_by_shape": 1 for the shape, 0 for the texture, no row where neither decides.
    """
    for row in transfer.rows(cell.own):
        yield row | {"shape": ALL, "stimulus": -1}
    found = stimuli(cell.source.world)
    decided = decisions(cell.source.load()[0], found)
    for metric, name, value, n in shares(decided, found):
        yield cell.own.row(metric, value, n, target=FOLDER, shape=name, stimulus=-1)
    for k, (said, shape, texture) in enumerate(zip(decided, found.shape, found.texture, strict=True)):
        if said in (shape, texture):
            where = {"shape": found.names[shape], "stimulus": k}
            yield cell.own.row("decided_by_shape", float(said == shape), 1, target=FOLDER, **where)
