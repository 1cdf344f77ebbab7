"""Carry published networks that somebody trained ten times over to other targets: results/published/transfer_arks.

    PYTHONPATH=. RTKIT_DATA=DATA python scripts/arks.py FOLDER [--out OUT]

FOLDER holds the networks of Zhu et al. (2022) on Fashion-MNIST that `results/published/sources.toml` names, DATA what
they learned and the targets (data/README.md). A replicate is one training of the source, and one subset of a target.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from rtkit import compute, store
from rtkit.data import pictures
from rtkit.data.pictures import Pictures
from rtkit.probe import probe, standardise

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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="carry the published networks of Zhu et al. to other targets")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=store.RESULTS / "published")
    words = parser.parse_args()
    torch.set_num_threads(1)
    found = [row for number in range(10) for kind in KINDS for row in rows(words.folder, kind, number)]
    frame = pd.DataFrame(found).assign(study="transfer", source_eps=np.nan, source_seed=0, step=0)
    frame = frame.assign(texture_amplitude=np.nan, shape_reliability=np.nan)
    store.save_frame(frame, words.out / "transfer_arks.csv.gz")
