"""Published networks of Zhu et al. (2022), carried to other targets or attacked: frames of results/published.

    PYTHONPATH=. RTKIT_DATA=DATA python scripts/arks.py FOLDER [--attacked] [--out OUT]

FOLDER holds the networks that `results/published/sources.toml` names, DATA what they learned and the targets
(data/README.md). By default `transfer_arks`: those on Fashion-MNIST, of which there are ten trainings each, are carried
to other targets; a replicate is one training of the source, and one subset of a target. With --attacked
`tradeoff_arks`: those on CIFAR-10, three standard ones and one of either robust kind, are attacked on 500 test images.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from rtkit import attacks, compute, store
from rtkit.data import named, pictures
from rtkit.data.pictures import Pictures
from rtkit.evaluation import accuracy, batches, logits
from rtkit.probe import probe, standardise
from rtkit.threat import ThreatModel

KINDS = {"erm": "erm", "arks": "arks_1.0", "wrm": "wrm_1.0", "shuffled": "erm"}
SOURCES = {"erm": "standard", "arks": "robust", "wrm": "robust", "shuffled": "other"}
TARGETS, SIZES, WORLD = ("kmnist", "mnist", "usps"), (100, 400), Pictures("fashion_mnist", 28)


def weights(folder: Path, kind: str, number: int) -> dict[str, torch.Tensor]:
    """The weights of one training; of the kind "shuffled" those of a standard one, in each tensor in random order."""
    with np.load(folder / f"arks_fashion_mnist_{KINDS[kind]}.npz") as file:
        found = {name: file[name][number].astype("float32") for name in file if name != "seeds"}
    if kind == "shuffled":
        rng = np.random.default_rng([number, 18])
        found = {name: rng.permutation(value.ravel()).reshape(value.shape) for name, value in found.items()}
    return {name: torch.from_numpy(value) for name, value in found.items()}


@torch.no_grad()
def layers(w: dict[str, torch.Tensor], images) -> dict[str, torch.Tensor]:
    """Features before the fully connected layer (N, 2304) and after it (N, 128), of grey images of 28 pixels."""
    found = {"maps": [], "penultimate": []}
    for part in compute.to_pixels(images.x[:, :1]).split(500):  # (N, 1, 28, 28)
        x = F.max_pool2d(F.elu(F.conv2d(part, w["bottom_layers.0.weight"], w["bottom_layers.0.bias"], padding=1)), 2)
        x = F.max_pool2d(F.elu(F.conv2d(x, w["bottom_layers.3.weight"], w["bottom_layers.3.bias"])), 2).flatten(1)
        found["maps"].append(x)
        found["penultimate"].append(F.elu(F.linear(x, w["penultimate_layer.weight"], w["penultimate_layer.bias"])))
    return {name: torch.cat(parts) for name, parts in found.items()}


def rows(folder: Path, kind: str, number: int):
    """What probes of both layers score on each target; the source's training images say how features are scaled."""
    w = weights(folder, kind, number)
    own = layers(w, pictures.source(WORLD, 2000, number))
    for name in TARGETS:
        task = pictures.target(name, number, WORLD.size)
        few, test = {n: task.subset_index(n, number) for n in SIZES}, task.test
        pool, unseen = layers(w, task.pool), layers(w, test)
        for layer, features in own.items():
            scale = features.mean(0), features.std(0)
            seen, asked = (standardise(part[layer], *scale) for part in (pool, unseen))
            for n, index in few.items():
                # A ridge does not see directions in which no training image lies: as many coordinates as images.
                turn = torch.linalg.svd(seen[index, :-1], full_matrices=False)[2].T  # (min(n, D), D) turned
                x, z = (torch.cat([part[:, :-1] @ turn, part[:, -1:]], 1) for part in (seen[index], asked))
                head = probe(x, task.pool.y[index], len(test.classes), number)
                share = float(((z @ head).argmax(1) == test.y).double().mean())
                fact = {"source": SOURCES[kind], "network": kind, "target": name, "method": "probe", "layer": layer}
                fact |= {"n_train": n, "seed": number}
                yield fact | {"metric": "clean_accuracy", "value": round(share, 6), "n_test": len(test)}


CIFAR = {"erm": "erm_3", "arks": "arks_0.1", "wrm": "wrm_50.0"}
RADII = (1, 2, 4, 8)  # grey levels of 255


class ResNet20(torch.nn.Module):
    """The networks on CIFAR-10 as their files have them: three stages of three blocks, a 1 x 1 shortcut in each."""

    def __init__(self, folder: Path, kind: str, number: int):
        super().__init__()
        with np.load(folder / f"arks_cifar_10_{CIFAR[kind]}.npz") as file:
            for name in set(file) - {"seeds"}:
                value = torch.from_numpy(file[name][number].astype("float32"))
                self.register_buffer(name.replace(".", "_"), value)

    def _normal(self, x: torch.Tensor, name: str) -> torch.Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, var, scale, shift = (getattr(self, f"{name}_{part}") for part in parts)
        return F.batch_norm(x, mean, var, scale, shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1] (N, 3, 32, 32) -> logits (N, 10)."""
        x = F.relu(self._normal(F.conv2d(x, self.bottom_layers_0_weight, padding=1), "bottom_layers_1"))
        for stage, block in np.ndindex(3, 3):
            name, stride = f"bottom_layers_{3 + stage}_{block}", 1 + (stage > 0 and block == 0)
            y = F.conv2d(x, getattr(self, f"{name}_conv1_weight"), stride=stride, padding=1)
            y = F.relu(self._normal(y, f"{name}_bn1"))
            y = self._normal(F.conv2d(y, getattr(self, f"{name}_conv2_weight"), padding=1), f"{name}_bn2")
            short = F.conv2d(x, getattr(self, f"{name}_shortcut_0_weight"), stride=stride)
            x = F.relu(y + self._normal(short, f"{name}_shortcut_1"))
        return F.linear(F.avg_pool2d(x, 2).flatten(1), self.top_layer_weight, self.top_layer_bias)


def attacked(folder: Path):
    """Clean accuracy of each network, and what stands on it of attacks made on itself and on another standard one."""
    images = named.images(named.arrays("cifar10", 32), "test", 32, slice(0, 500))
    nets = {(kind, k): ResNet20(folder, kind, k).eval() for kind in CIFAR for k in range(3 if kind == "erm" else 1)}
    for (kind, k), net in nets.items():
        fact = {"source": SOURCES[kind], "network": kind, "target": "cifar10", "seed": k, "n_test": len(images)}
        yield fact | {"metric": "clean_accuracy", "value": round(accuracy(net, images), 6), "radius": 0}
        other = nets["erm", 1 if (kind, k) == ("erm", 0) else 0]
        for radius, (way, made_on) in product(RADII, {"robust_accuracy": net, "transferred_accuracy": other}.items()):
            generator, stands = torch.Generator().manual_seed(k), 0
            for x, y in batches(images):
                how = {"steps": 20, "loss": attacks.margin, "generator": generator}
                moved = attacks.pgd(made_on, x, y, ThreatModel("linf", radius / 255), **how)
                stands += int(((logits(net, moved).argmax(1) == y) & (logits(net, x).argmax(1) == y)).sum())
            share = round(stands / len(images), 6)
            yield fact | {"metric": way, "value": share, "radius": radius}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="carry the published networks of Zhu et al. to targets, or attack them"
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--attacked", action="store_true", help="attack those on CIFAR-10 instead")
    parser.add_argument("--out", type=Path, default=store.RESULTS / "published")
    words = parser.parse_args()
    torch.set_num_threads(1)
    if words.attacked:
        frame = pd.DataFrame(attacked(words.folder)).assign(study="tradeoff", method="none", n_train=0)
        frame = frame.assign(source_eps=frame.source.map({"standard": 0.0}))
    else:
        found = [row for number in range(10) for kind in KINDS for row in rows(words.folder, kind, number)]
        frame = pd.DataFrame(found).assign(study="transfer", source_eps=np.nan)
    frame = frame.assign(source_seed=0, step=0, texture_amplitude=np.nan, shape_reliability=np.nan)
    store.save_frame(frame, words.out / f"{frame.study[0]}_arks.csv.gz")
