"""How much of the influence study each preset runs.

Apart from `studies.influence` because a cell's cache key holds its plan: another plan retires no cell of the others.
"""

from dataclasses import dataclass

TARGETS = ("digits", "lower")  # of the glyph world


@dataclass(frozen=True)
class Plan:
    """How much of the study a preset runs.

    Args:
        n_train: the claim's size, then sizes at which the standard source may reach the robust one's accuracy. At
            `glyphs` 100 images go with 650 parameters as 3,200 with 20,490 in the paper.
        steps: of fine-tuning, until the head interpolates: 20 epochs of 400 images, or 80 of 100.
        n_proof, dims: images and principal components of the proof, n_proof >= 3 * 10 * (dims + 1).
        n_few: images of the head with more parameters than images, and of the search for wrong labels.
        removed: images left out one by one; subsets: retrainings for LDS; queries: test images of both.
        k: images removed together.
        targets: see `tasks.target`; the proof is made on the first.
    """

    n_train: tuple[int, ...] = (100, 400, 900)
    steps: int = 160
    n_proof: int = 900
    dims: int = 24
    n_few: int = 400
    removed: int = 40
    subsets: int = 40
    queries: int = 60
    k: int = 20
    targets: tuple[str, ...] = TARGETS


PLANS = {
    "smoke": Plan((20, 40), steps=5, n_proof=120, dims=3, n_few=60, removed=4, subsets=5, queries=8, k=5),
    "glyphs": Plan(),
    "glyphs-full": Plan((100, 200, 400, 900), removed=120, subsets=100, queries=200),
    # 650 parameters a head, as in the glyph world.
    "cifar-small": Plan((100, 400, 1600), targets=("mnist", "cifar10")),
}
