"""Source networks: trained once, kept under a key, handed to every study."""

from dataclasses import dataclass

import torch

from rtkit import compute, evaluation, methods, models, store, tasks
from rtkit.data.augmentation import crop_and_flip
from rtkit.data.glyphs import Images, World
from rtkit.data.pictures import Pictures
from rtkit.definitions import code
from rtkit.presets import Preset
from rtkit.training import train


@dataclass(frozen=True)
class Source:
    """A source network: everything that decides its weights.

    Args:
        kind: see `methods.source`.
        source_eps: training radius, for pixels in [0, 1], in the norm of its kind.
        seed: the replicate; redraws training images and initialisation.
        architecture: see `models.create`.
        steps: SGD steps; lr: peak learning rate.
    """

    kind: str
    source_eps: float
    seed: int
    world: World | Pictures
    architecture: str
    n_source: int
    steps: int
    lr: float

    @classmethod
    def of(
        cls, preset: Preset, kind: str, source_eps: float, seed: int, world: World | Pictures | None = None
    ) -> "Source":
        """A source network with the budget of a preset, in its world or another."""
        budget = (preset.architecture, preset.n_source, preset.source_steps, preset.source_lr)
        return cls(kind, source_eps, seed, world or preset.world, *budget)

    def images(self, split: str = "train", n: int | None = None) -> Images:
        """The first n images (by default as many as it was trained on) of the task the network learned."""
        return tasks.source(self.world, n or self.n_source, self.seed, split)

    def create(self) -> models.Network:
        """The network as it is before its training."""
        return models.create(tasks.classes(self.world), self.architecture, self.seed)

    @property
    def config(self) -> dict:
        """All that decides its weights beside the code."""
        return {"source": self, "compute": compute.kind()} | tasks.fingerprints(self.world)

    def is_there(self) -> bool:
        """Whether it need not be trained any more."""
        return store.has_network(self.config, code(Source))

    def load(self) -> tuple[models.Network, dict]:
        """Return the network in eval mode and the facts of its training; train it if it is not in the cache.

        The facts are `seconds`, `gradients`, `watch` and `collapsed` (see `training.History`), and `mean` and `std` of
        each feature over the first 2,000 training images, by which probes standardise.
        """
        state, facts = store.network(self.config, code(Source), self._train)
        net = self.create()
        net.load_state_dict(state)
        return net.to(compute.device(), memory_format=torch.channels_last).eval(), facts

    def _train(self) -> tuple[dict, dict]:
        images, net = self.images(), self.create()
        phases = methods.source(self.kind, self.source_eps, self.steps, self.lr)
        # The glyph world draws every letter turned, scaled and shifted already.
        augment = crop_and_flip if isinstance(self.world, Pictures) else None
        with compute.stopwatch() as seconds:
            history = train(net, images, phases, self.seed, held_out=self.images("held_out", 64), augment=augment)
        spent = seconds()
        found = evaluation.features(net, images[:2000])
        facts = {"seconds": spent, "gradients": history.gradients, "watch": history.watch}
        facts |= {"collapsed": history.collapsed, "mean": found.mean(0).tolist(), "std": found.std(0).tolist()}
        return net.state_dict(), facts
