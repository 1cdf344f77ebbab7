"""Notebook 01's study on published ImageNet networks: which of them is carried to which data set, and how."""

from collections.abc import Sequence
from dataclasses import replace

from rtkit import presets, published, studies
from rtkit.presets import Preset
from rtkit.studies.cells import Cell

STUDY = "transfer"
PROTOCOLS = ("fixed_feature", "last_stage", "full_network")  # last_stage: of a ResNet-50 the last three blocks
N_TRAIN = (100, 400, 1600)
# One rate for the standard and the robust network; the glyph world's, which no ImageNet network chose.
LEARNING_RATES = {"fixed_feature": 0.3, "last_stage": 0.1, "full_network": 0.1}


def cells(preset: Preset, seeds: Sequence[int] | None = None, targets: Sequence[str] = ()) -> list[Cell]:
    """All cells of the study at a preset whose source networks come trained, without computing any.

    Source networks are not scored on their own task, for want of ImageNet's images, and there is no probe, which
    standardises features by them. An untrained network stands beside them, with frozen features and the fewest images:
    a control.

    Args:
        seeds: the replicates, each of which redraws the target's images; none or an empty list for the preset's own.
        targets: data sets by name.

    Raises:
        ValueError: no target is named, or there is no such data set; networks are missing (`published.networks`); the
            seeds are no whole numbers.
    """
    if not targets:
        raise ValueError(
            f"the preset {preset.name} has no targets of its own: name data sets, such as "
            "`rtkit run 01 --preset imagenet -p targets '[\"mine\"]'` for a folder data/mine/ (see data/README.md)"
        )
    budget = {"steps": preset.steps, "batch_size": preset.batch_size}
    seeds, sources = presets.replicates(preset, seeds), published.networks(preset.world, preset.architecture)
    sizes = {target: studies.sizes(N_TRAIN, target, preset.world, seeds[0]) for target in targets}
    made = []
    for seed in seeds:
        untrained = replace(sources[0], kind="untrained", file="", sha256="", seed=seed)
        arms = [(source, protocol) for source in sources for protocol in PROTOCOLS]
        for target, few in sizes.items():
            chosen = [(*arm, n) for arm in arms for n in few] + [(untrained, PROTOCOLS[0], few[0])]
            made += [
                Cell(STUDY, source, seed, target, protocol, (n,), lr=LEARNING_RATES[protocol], **budget)
                for source, protocol, n in chosen
            ]
    return made
