"""Do real networks decide by shape or by texture? The second study behind notebook 02 (Geirhos et al. 2019, section 2).

Networks that learned CIFAR-10 decide cue-conflict stimuli, images with the shape of one class and the texture of
another, among the classes that both share.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch

from rtkit import evaluation, presets, shape_bias, store, studies
from rtkit.data import named
from rtkit.data.glyphs import Images
from rtkit.data.pictures import Pictures
from rtkit.models import Network
from rtkit.sources import Source
from rtkit.studies import cells
from rtkit.studies.cells import Cell

STUDY = "cue_conflict"
MODULES = (*cells.MODULES, "shape_bias", "studies/cue_conflict")
FOLDER = "cue_conflict"  # beside the data sets
ALL = "all"  # in place of a class: the stimuli of every shape
KINDS = ("standard", "noise", "robust")
PLANS = {"cifar-small": Pictures("cifar10"), "cifar": Pictures("cifar10")}  # what the networks learn


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
        found = hashlib.sha256(repr((self.names, self.columns, tuple(self.x.shape))).encode())
        for part in (self.x, self.shape, self.texture):
            found.update(part.numpy().tobytes())
        return found.hexdigest()[:24]


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
    out = [
        chances(evaluation.logits(net, x), found.columns).argmax(1).cpu()
        for x, _ in evaluation.batches(Images(found.x, found.shape, found.names))
    ]
    return torch.cat(out)


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


def _config(cell: Cell, digest: str) -> dict:
    return cell.config | {"stimuli": digest}


def rows(cell: Cell, digest: str) -> list[dict]:
    """Return the rows of one source network, from the cache or computed: on its own task, and on the stimuli.

    Args:
        digest: of the stimuli that lie in the folder.
    """

    def make():
        found = stimuli(cell.source.world)
        decided = decisions(cell.source.load()[0], found)
        return [
            cell.row(metric, value, n, target=FOLDER, shape=name) for metric, name, value, n in shares(decided, found)
        ]

    own = [row | {"shape": ALL} for row in cells.rows(cell)]
    return own + store.cell(STUDY, _config(cell, digest), MODULES, make)


def _is_cached(cell: Cell, digest: str) -> bool:
    return cells.is_cached(cell) and store.cell_path(STUDY, _config(cell, digest), MODULES).exists()


def sources(preset: str, seed: int) -> dict[str, Source]:
    """The source networks of a replicate by kind, the noise's and the adversary's radius that of the world."""
    chosen, world = presets.get(preset), studies.size(STUDY, PLANS, preset)
    return {kind: Source.of(chosen, kind, world.eps if kind != "standard" else 0.0, seed, world) for kind in KINDS}


def plan(preset: str, seeds: Sequence[int] | None = None) -> list[Cell]:
    """All cells of the study at a preset, without computing any.

    Raises:
        ValueError: the study does not run at the preset, the seeds are no whole numbers, or data are missing
            (`stimuli`).
    """
    stimuli(studies.size(STUDY, PLANS, preset))
    chosen = presets.get(preset)
    return [
        Cell(STUDY, source, seed, "source", "none", n_test=chosen.n_source_test)
        for seed in presets.replicates(chosen, seeds)
        for source in sources(preset, seed).values()
    ]


def run(preset: str = "cifar-small", seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """Make the frame of the study, cell by cell; cells and networks in the cache are read.

    Returns:
        Columns as in `transfer.run`, and `shape`: the class of the stimuli's shape, or "all". Rows of target
        "source" are about CIFAR-10's test images, those of target "cue_conflict" about the stimuli.

    Raises:
        ValueError: see `plan`.
    """
    todo = plan(preset, seeds)
    digest = stimuli(PLANS[preset]).digest
    return studies.frame(preset, todo, partial(rows, digest=digest), partial(_is_cached, digest=digest))
