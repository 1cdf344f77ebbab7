"""The explorer of notebook 03: pick a test image, see whom each source's head learned it from."""

from collections.abc import Mapping

import ipywidgets
from matplotlib.figure import Figure

from rtkit.plots import influence as figures
from rtkit.studies.influence_heads import Frozen, rankings
from rtkit.widgets import choice, explorer, slider


def sentence(heads: Mapping[str, Frozen], ranked: Mapping[str, dict], t: int, score: str) -> str:
    """Say what both heads decide, and how many of the ten images ranked first share the test image's label."""
    said = []
    for name, found in heads.items():
        chances = (found.test[0][t] @ found.head.weights.T).softmax(0)
        top, classes = int(chances.argmax()), found.test_images.classes
        first = ranked[name][score][t].topk(10).indices
        same = int((found.train[1][first] == found.test[1][t]).sum())
        said.append(
            f"the {name} source's head says {classes[top]} ({100 * chances[top]:.0f} %), {same} of 10 share its label"
        )
    first = next(iter(heads.values()))
    return (
        f"A {first.test_images.classes[int(first.test[1][t])]}, ranked by {figures.SCORES[score]}: {'; '.join(said)}."
    )


def influence_explorer(heads: Mapping[str, Frozen], count: int = 40) -> ipywidgets.Widget:
    """Choose a test image and a way of ranking; see the images ranked first and last, both sources side by side.

    Args:
        heads: by source, on the same training and test images; `count`: how many test images to offer.
    """
    first = next(iter(heads.values()))
    count = min(count, len(first.test[1]))
    queries = {name: tuple(part[:count] for part in found.test) for name, found in heads.items()}
    ranked = {name: rankings(found.head, found.train, queries[name]) for name, found in heads.items()}
    labels = [first.test_images.classes[int(y)] for y in first.test[1][:count]]
    controls = [
        slider("test image", [(f"{t + 1}: {label}", t) for t, label in enumerate(labels)], 0),
        choice("ranked by", [(figures.SCORES[name], name) for name in figures.SCORES]),
    ]

    def draw(figure: Figure, t: int, score: str) -> str:
        scores = {name: each[score] for name, each in ranked.items()}
        figures.gallery(first.test_images, first.train_images, scores, [t], figure, k=4)
        return sentence(heads, ranked, t, score)

    return explorer(controls, draw, (10, 1.9))
