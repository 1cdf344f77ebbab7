"""Make the frames of results/published/ from the files that the papers' authors and others have published.

    PYTHONPATH=. python scripts/published.py FOLDER [--out OUT]

`results/published/sources.toml` says for each frame which files FOLDER must hold, where they are from, and what its
columns do not say. Frames have the columns and the words of the kit's own (`rtkit.measure`): one row an observation,
values as shares, radii for pixels in [0, 1]; `norm` tells l2 radii from l-infinity ones.
"""

import argparse
import gzip
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from rtkit import store

OUT = store.RESULTS / "published"
TESTED = {"cifar10": 10000, "cifar100": 10000, "svhn": 26032, "mnist": 10000, "fashion_mnist": 10000, "kmnist": 10000}
NAMES = {"fmnist": "fashion_mnist", "flowers": "flowers102", "food": "food101", "pets": "oxford_pets"}
NAMES |= {"ResNet-18": "resnet18", "ResNet-50": "resnet50", "WRN-50-2": "wide_resnet50_2"}
NAMES |= {"WRN-50-4": "wide_resnet50_4", "fixed": "fixed_feature", "full": "full_network"}
NAMES |= {0: "fixed_feature", 1: "last_block", 3: "last_stage", -1: "scratch"}  # by the number of blocks trained
NORMS = {0: "none", 3: "l2", 4: "linf", 8: "linf"}  # of Utrera et al.'s radii
SMALL = ("cifar10", "cifar100")  # the targets of Salman et al. that are 32 pixels wide as they come
# Gavrikov and Keuper's columns of accuracies: what was done to the images, and how many there are.
CHANGES = {"imagenet": ("none", 50000), "stylized": ("texture swapped", 800), "sketch": ("sketch", 800)}
CHANGES |= {"silhouette": ("silhouette", 160), "edge": ("edge", 160)}
# The shorter side of a target's images, in pixels, where its own page states it.
SIDES = dict.fromkeys((*SMALL, "svhn"), 32) | dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), 28)
SIDES |= {"caltech101": 200, "dtd": 300, "flowers102": 500}
SOURCE_SIDE = 224


def tidy(frame: pd.DataFrame, study: str) -> pd.DataFrame:
    """The frame with all columns that effects ask by, those of the glyph world empty."""
    all_ = {"study": study, "method": "none", "source_seed": 0, "step": 0, "n_train": 0, "target": "source"}
    all_ |= {"texture_amplitude": np.nan, "shape_reliability": np.nan}
    return frame.assign(**{name: value for name, value in all_.items() if name not in frame})


def utrera(folder: Path) -> pd.DataFrame:
    """Every fine-tuning run at its end, and on the way those of 50 epochs with 3,200 images; `step` is an epoch."""
    run = ["source_eps", "target_ds", "num_training_images", "unfrozen_blocks", "seed"]
    runs = pd.read_csv(folder / "utrera_runs.csv.gz").sort_values([*run, "epoch"], ignore_index=True)
    end = runs.groupby(run).epoch.transform("max")
    way = (runs.num_training_images == 3200) & (end == 50) & (runs.source_eps < 8) & runs.epoch.isin((11, 21, 31, 41))
    found = runs[(runs.epoch == end) | way]
    eps, target = found.source_eps.clip(0), found.target_ds.replace(NAMES)
    facts = {"method": found.unfrozen_blocks.map(NAMES), "source": np.where(eps > 0, "robust", "standard")}
    facts |= {"source_eps": eps / np.where(eps > 3, 255, 1), "norm": eps.map(NORMS)}
    facts |= {"architecture": "resnet50", "target": target, "n_train": found.num_training_images, "step": found.epoch}
    facts |= {"seed": (found.seed.clip(20000000) - 20000000) // 100000, "n_test": target.map(TESTED)}
    facts |= {"metric": np.where(found.epoch == end[found.index], "clean_accuracy", "accuracy_at_step")}
    return tidy(pd.DataFrame(facts | {"value": (found.nat_prec1 / 100).round(6)}), "transfer")


def salman(folder: Path) -> pd.DataFrame:
    """The authors' tables. A target that was reduced to 32 pixels and enlarged again is called "NAME_low".

    They have no validation set. A target's `validation_accuracy` is the mean of `clean_accuracy` over the *other*
    targets of its resolution, so that a radius chosen by it has not seen the target.
    """
    table = pd.read_csv(folder / "salman_transfer_by_eps.csv.gz")
    name = table.dataset.str.lower().str.replace("-", "").replace(NAMES)
    low, linf, robust = table.resolution == "32", table.norm == "linf_255", table.eps > 0
    facts = {"method": table["mode"].map(NAMES), "source": np.where(robust, "robust", "standard")}
    facts |= {"source_eps": table.eps / np.where(linf, 255, 1)}
    facts |= {"norm": np.where(robust, np.where(linf, "linf", "l2"), "none")}
    facts |= {"architecture": table.architecture.map(NAMES), "target": name + np.where(low, "_low", "")}
    facts |= {"resolution": np.where(low, "low", "native"), "metric": "clean_accuracy", "n_test": np.nan}
    seed = name.map({one: k for k, one in enumerate(sorted(set(name)))})
    facts |= {"seed": seed, "source_seed": np.where(linf & ~robust, seed + 1000, 0)}  # the l-infinity table's own
    found = pd.DataFrame(facts | {"value": (table.accuracy / 100).round(4)})
    keys = ["method", "architecture", "resolution", "norm", "source_eps"]
    group = found.groupby([*(found[key] for key in keys), name.isin(SMALL) & ~low, linf]).value
    others = (group.transform("sum") - found.value) / (group.transform("size") - 1)
    chosen = found.assign(metric="validation_accuracy", value=others.round(6))
    return tidy(pd.concat([found, chosen], ignore_index=True), "transfer")


def shares(shape: int, texture: int, n: int) -> list[dict]:
    """What counts of decisions on cue conflicts say, as in `rtkit.measure.cue_conflict`."""
    counts = {"shape_decisions": shape, "texture_decisions": texture, "other_decisions": n - shape - texture}
    rows = [{"metric": metric, "value": count / n, "n_test": n} for metric, count in counts.items()]
    both = shape + texture
    return rows + ([{"metric": "shape_bias", "value": shape / both, "n_test": both}] if both else [])


def counted(bias: float, hits: float) -> tuple[int, int]:
    """Decisions for shape and texture, of 1,200, from the bias; `hits` counts 80 images without conflict, too.

    Where several fit: the counts that leave the most usual number of those 80 right, 67.
    """
    tried = ((round(bias * both), both) for both in range(1, 1201))
    found = [(shape, both - shape) for shape, both in tried if abs(shape / both - bias) < 1e-12]
    return min(found, key=lambda counts: abs(hits - counts[0] - 67))


def shape_bias(folder: Path) -> pd.DataFrame:
    """What ImageNet networks decide by, and what is left when images are changed or attacked; a seed is a network."""
    table, rows = pd.read_csv(folder / "robust_resnet50_bias.csv.gz"), []
    table = table[table.model != "resnet50_untrained"].sort_values("model", ignore_index=True)
    for seed, one in table.iterrows():
        _, salmans, radius = one.model.partition("robust_resnet50_")
        norm, eps = radius.split("_eps") if salmans else ("none", "0")
        eps = float(eps) / (255 if norm == "linf" else 1)
        kind = "randomised" if "trained_on_SIN" in one.model else "standard" if salmans else "other"
        own = {"network": one.model, "source": "robust" if eps else kind, "source_eps": eps, "seed": seed}
        own |= {"norm": norm if eps else "none", "shape": "all", "change": "", "attack": "none", "target": "source"}
        for column, (change, n) in CHANGES.items():
            seen = {"metric": "clean_accuracy", "value": one[f"top1_acc/{column}"] / 100, "n_test": n}
            rows.append(own | {"change": change} | seen)
        for size in ("low", "high"):  # their loop counts 48 images of the last batch that do not exist as right
            right = one[f"top1_acc/PGD-40/{size}"] / 100 * 50048 - 48
            rows.append(own | {"attack": size, "metric": "robust_accuracy", "value": right / 50000, "n_test": 50000})
        counts = counted(one["shape-bias"], one["top1_acc/cue-conflict"] * 12.8)
        rows += [own | {"target": "cue_conflict"} | row for row in shares(*counts, 1200)]
    found = pd.DataFrame(rows).dropna(subset="value")
    return tidy(found.assign(value=found.value.round(6)), "shape_bias")


def decisions(folder: Path) -> pd.DataFrame:
    """How 32 observers decide 1,200 cue conflicts, over all and by the class of the shape; pairs share a seed."""
    table, rows = pd.read_csv(folder / "cue_conflict_decisions.csv.gz", keep_default_na=False), []
    groups = table[table["shape"] != table.texture].groupby(["source", "observer"])
    pairs = sorted({name.partition("-train-")[0] for _, name in groups.groups if "-train-" in name})
    for number, ((place, name), seen) in enumerate(groups):
        partner, trained, _ = name.partition("-train-")  # on texture-randomised images; the others on photographs
        kind = "randomised" if trained else "robust" if "pgd" in name else "standard"
        own = {"network": name, "place": place, "source": "human" if name.startswith("subject") else kind}
        own |= {"source_eps": np.nan if kind == "robust" else 0.0, "target": "cue_conflict"}
        own["seed"] = pairs.index(partner) if partner in pairs and place.startswith("rgeirhos") else 10 + number
        for shape, part in [("all", seen), *seen.groupby("shape")]:
            by = [int((part.response == part[cue]).sum()) for cue in ("shape", "texture")]
            rows += [own | {"shape": shape} | row for row in shares(*by, len(part))]
    found = pd.DataFrame(rows)
    return tidy(found.assign(value=found.value.round(6)), "cue_conflict")


def robustbench(folder: Path) -> pd.DataFrame:
    """Accuracy and robust accuracy of the leaderboards' networks; a seed is a network."""
    rows = []
    for seed, one in enumerate(json.loads(gzip.decompress((folder / "robustbench_model_info.json.gz").read_bytes()))):
        dataset, threat, name = one["file"].removesuffix(".json").split("/")
        best = [float(one[key]) for key in ("autoattack_acc", "external", "corruptions_acc") if one.get(key)]
        own = {"network": name, "dataset": dataset, "threat": threat, "architecture": one["architecture"], "seed": seed}
        own |= {"extra_data": one["additional_data"], "source": "standard" if name.startswith("Standard") else "robust"}
        own |= {"source_eps": float(Fraction(one["eps"])) if one["eps"] not in (None, "None") else np.nan}
        for metric, value in (("clean_accuracy", float(one["clean_acc"])), ("robust_accuracy", min(best))):
            rows.append(own | {"metric": metric, "value": round(value / 100, 6), "n_test": np.nan})
    return tidy(pd.DataFrame(rows), "tradeoff")


def right(folder: Path) -> pd.DataFrame:
    """Which of 30 networks are right, a column each: a row a pattern, on the old or the new images, and its `count`."""
    found, parts = np.load(folder / "cifar10_1_predictions.npz"), []
    for images, part in (("old", "original"), ("new", "v6"), ("new, v4", "v4")):
        hits = (found[f"predictions_{part}"] == found[f"labels_{part}"]).astype(int).T
        hits = pd.DataFrame(hits, columns=found["models"].tolist())
        parts.append(hits.value_counts(sort=False).reset_index(name="count").assign(images=images))
    return pd.concat(parts, ignore_index=True)


def resolution(folder: Path) -> pd.DataFrame:
    """Leads of the l2 radius 3 over the standard source, in points, by target, and how far its images are enlarged."""
    ours = utrera(folder).query("n_train <= 1600 and metric == 'clean_accuracy'").assign(paper="Utrera et al. 2021")
    theirs = salman(folder).query("metric == 'clean_accuracy' and source_seed == 0").assign(paper="Salman et al. 2020")
    both = pd.concat([ours, theirs]).fillna({"resolution": "native"}).query("source_eps in (0, 3)")
    keys = ["paper", "architecture", "method", "target", "resolution"]
    arms = both.pivot_table("value", keys, "source").mul(100)
    found = (arms.robust - arms.standard).round(3).rename("lead").reset_index()
    side = found.target.map(SIDES).mask(found.resolution == "low", 32)
    return found.assign(side=side, ratio=(SOURCE_SIDE / side).clip(1).round(3))


FRAMES = {"transfer_utrera": utrera, "transfer_salman": salman, "shape_bias_gavrikov": shape_bias}
FRAMES |= {"cue_conflict_geirhos": decisions, "tradeoff_robustbench": robustbench, "new_test_set_c101": right}
FRAMES |= {"resolution": resolution}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="make the frames of results/published/ from the published files")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    words = parser.parse_args()
    for name, make in FRAMES.items():
        store.save_frame(make(words.folder), words.out / f"{name}.csv.gz")
        print(f"{name}: {(words.out / f'{name}.csv.gz').stat().st_size:,} bytes")
