"""What others have published: the frames are sound, say where they are from, and give the numbers that are known."""

import importlib.util
import io
import os
import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from rtkit import STUDIES, labels, store
from rtkit.data import named
from rtkit.data.glyphs import Images

FOLDER, FILES = store.RESULTS / "published", os.environ.get("RTKIT_PUBLISHED")
SOURCES = tomllib.loads((FOLDER / "sources.toml").read_text())
ENTRY = {"paper", "study", "files", "repository", "commit", "terms", "unit", "seed", "traps"}
TIDY = sorted(set(SOURCES) - {"new_test_set_c101", "resolution"})


def frame(name: str, query: str = "index >= 0") -> pd.DataFrame:
    return store.load_frame(FOLDER / f"{name}.csv.gz").query(query)


def check(values, known: str) -> None:
    """The mean of some numbers, with its t interval, is a known one, such as "+9.26 [8.87, 9.65]", as printed."""
    values = np.asarray(values, float)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    found = [values.mean(), values.mean() - half, values.mean() + half]
    for one, printed in zip(found, re.findall(r"[-+]?[\d.]+", known), strict=True):
        assert abs(one - float(printed)) < 0.51 * 10 ** -len(printed.partition(".")[2]), (found, known)


def test_every_frame_names_its_source_and_the_folder_is_no_preset():
    assert {path.name for path in FOLDER.glob("*.csv.gz")} == {f"{name}.csv.gz" for name in SOURCES}
    assert not set(SOURCES) & set(STUDIES)  # whose own frames, at a preset, lie in a folder beside this one
    for name, source in SOURCES.items():
        assert set(source) == ENTRY, name
        assert source["unit"] in ("subsets", "targets", "networks", "images", "trainings")
        assert source["study"] in STUDIES
        assert len(source["repository"]) == len(source["commit"])
        assert all(re.fullmatch("[0-9a-f]{8,40}", commit) for commit in source["commit"])
        assert source["terms"]
        assert source["traps"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 300_000


@pytest.mark.parametrize("name", TIDY)
def test_frames_have_the_columns_and_words_of_the_kits_own(name):
    kits = {"study", "method", "source", "source_eps", "target", "n_train", "seed", "metric", "value", "n_test", "step"}
    found = frame(name)
    assert kits | {"source_seed", "texture_amplitude", "shape_reliability"} <= set(found)
    assert set(found.study) == {SOURCES[name]["study"]}
    assert found.value.between(0, 1).all()
    counted = found[found.n_test.notna()]
    assert ((counted.value * counted.n_test) % 1).between(0.05, 0.95).sum() == 0  # whole images
    facts = ["study", "method", "source", "source_eps", "target", "n_train", "seed", "metric", "step", "source_seed"]
    facts += {
        "norm",
        "architecture",
        "resolution",
        "change",
        "attack",
        "shape",
        "network",
        "threat",
        "dataset",
        "layer",
        "radius",
    } & set(found)
    assert not found.duplicated([*facts, *({"place"} & set(found))]).any()
    assert set(found.method) <= {"none", *labels.TABLES["methods"]}
    assert set(found.source) <= {"standard", "robust", "randomised", "human", "other"}
    standard = found[found.source == "standard"]
    assert len(standard)
    assert (standard.source_eps.fillna(0) == 0).all() or name == "tradeoff_robustbench"
    if "norm" in found:
        radii = found.groupby("norm").source_eps
        assert radii.max()["none"] == 0
        assert radii.max()["linf"] == 8 / 255
        assert radii.min()["l2"] >= 0.01


ARKS = {"transfer_arks", "tradeoff_arks"}  # by scripts/arks.py, from networks in place of numbers


def loaded(name: str):
    spec = importlib.util.spec_from_file_location(name, store.ROOT / "scripts" / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.skipif(not FILES, reason="RTKIT_PUBLISHED names no folder with the published files")
@pytest.mark.parametrize("name", sorted(set(SOURCES) - ARKS))
def test_frames_made_anew_from_the_published_files_are_those(name):
    script = loaded("published")
    assert {*script.FRAMES, *ARKS} == set(SOURCES)
    assert all((Path(FILES) / file).is_file() for file in SOURCES[name]["files"])
    made = io.StringIO(script.FRAMES[name](Path(FILES)).to_csv(index=False))
    pd.testing.assert_frame_equal(pd.read_csv(made), frame(name))


def test_networks_trained_ten_times_have_two_layers():
    counts = frame("transfer_arks").groupby(["network", "target", "layer", "n_train"]).seed.nunique()
    assert (len(counts), set(counts)) == (4 * 3 * 2 * 2, {10})
    shapes = {"bottom_layers.0": (32, 1, 3, 3), "bottom_layers.3": (64, 32, 3, 3), "penultimate_layer": (128, 2304)}
    weights = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": torch.full(shape[:1], -1.0) for name, shape in shapes.items()}
    found = loaded("arks").layers(weights, Images(torch.zeros(3, 3, 28, 28), torch.zeros(3), ("a",)))
    assert {name: tuple(one.shape) for name, one in found.items()} == {"maps": (3, 2304), "penultimate": (3, 128)}
    assert (found["penultimate"] == torch.expm1(torch.tensor(-1.0))).all()  # the activation is an ELU


@pytest.mark.skipif(
    not FILES or not {"usps", "fashion_mnist"} <= set(named.names()),
    reason="RTKIT_PUBLISHED names no folder with the published files, or data/ lacks usps or fashion_mnist",
)
def test_a_training_carried_anew_scores_what_the_table_says(monkeypatch):
    found, script = frame("transfer_arks", "seed == 3 and target == 'usps' and network == 'arks'"), loaded("arks")
    monkeypatch.setattr(script, "TARGETS", ("usps",))
    made = pd.DataFrame(script.rows(Path(FILES), "arks", 3)).set_index(["layer", "n_train"]).value
    assert made.to_dict() == found.set_index(["layer", "n_train"]).value.to_dict()


def test_networks_under_attack_lose_more_as_the_radius_grows():
    found = frame("tradeoff_arks").pivot_table("value", ["network", "seed", "radius"], "metric").reset_index()
    assert found.groupby("network").seed.nunique().to_dict() == {"arks": 1, "erm": 3, "wrm": 1}
    for _, one in found.groupby(["network", "seed"]):
        direct = [one.clean_accuracy.max(), *one.sort_values("radius").robust_accuracy.dropna()]
        assert (np.diff(direct) <= 0).all()
        near = one[one.radius == 2].iloc[0]
        assert near.robust_accuracy <= near.transferred_accuracy  # who holds the network itself does more harm


@pytest.mark.skipif(not FILES, reason="RTKIT_PUBLISHED names no folder with the published files")
def test_published_cifar_networks_are_read_as_they_are():
    net = loaded("arks").ResNet20(Path(FILES), "wrm", 0)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert sum(one.numel() for one in net.buffers()) == 295_610


# Utrera et al.: ten subsets of the target, one source network a radius ---------------------------------------------


def subsets(method: str, query: str = "n_train <= 1600 and metric == 'clean_accuracy'") -> pd.DataFrame:
    """Robust (l2, 3) minus standard in points: a row for each target, number of images and step, a column a subset."""
    rows = frame("transfer_utrera", f"method == '{method}' and norm in ('none', 'l2') and {query}")
    wide = 100 * rows.pivot_table("value", ["target", "n_train", "step"], ["source", "seed"])
    return (wide.robust - wide.standard).dropna()


def test_few_images_last_stage():
    runs = frame("transfer_utrera", "metric == 'clean_accuracy'")
    assert len(runs) == 4812
    leads = subsets("last_stage")
    assert leads.shape == (30, 10)
    check(leads.mean(), "+9.26 [8.87, 9.65]")
    clear = stats.ttest_1samp(leads, 0, axis=1)
    assert ((clear.pvalue < 0.05) & (clear.statistic > 0)).sum() == 28


def test_more_images_in_points_and_log_odds():
    leads = subsets("last_stage")
    few, more = (leads.xs(n, level="n_train").mean() for n in (100, 1600))
    check(few - more, "+2.24 [1.66, 2.82]")
    rows = frame("transfer_utrera", "method == 'last_stage' and n_train <= 1600 and norm in ('none', 'l2')")
    right = rows.value * rows.n_test
    odds = rows.assign(odds=np.log((right + 0.5) / (rows.n_test - right + 0.5)))
    wide = odds.pivot_table("odds", "n_train", ["source", "seed"])
    lead = wide.robust - wide.standard
    check(lead.loc[100] - lead.loc[1600], "-0.022 [-0.050, +0.006]")  # flat
    assert lead.mean(axis=1).between(0.45, 0.56).all()


def test_on_the_way_and_at_the_end():
    way = subsets("last_stage", "n_train == 3200").drop("cifar10")
    early, end = (way.xs(epoch, level="step").mean() for epoch in (11, 50))
    check(early - end, "+6.40 [5.69, 7.11]")
    ratios = way.xs(11, level="step").mean(axis=1) / way.xs(50, level="step").mean(axis=1)
    assert ratios.between(1.4, 2.0).all(), ratios


def test_frozen_features():
    leads = subsets("fixed_feature")
    check(leads.mean(), "+9.47 [9.11, 9.83]")
    assert (leads.mean(axis=1) > 0).all()


def test_signs_of_another_depth():
    rows = frame("transfer_utrera", "norm == 'l2' and n_train <= 1600 and metric == 'clean_accuracy'")
    wide = 100 * rows.pivot_table("value", "target", ["method", "seed"])
    more = wide.last_stage - wide.last_block
    check(more.loc["svhn"], "+6.8 [5.5, 8.1]")
    check(more.loc["cifar10"], "-6.0 [-6.6, -5.3]")
    check(more.loc["cifar100"], "-3.6 [-4.1, -3.2]")


def test_moderate_against_extreme_radius():
    rows = frame("transfer_utrera", "method == 'last_stage' and 200 <= n_train <= 1600 and metric == 'clean_accuracy'")
    rows = rows[(rows.target == "cifar10") & rows.source_eps.isin((3, 8 / 255))]
    wide = 100 * rows.pivot_table("value", "seed", "norm")
    check(wide.l2 - wide.linf, "+3.04 [2.69, 3.39]")


# Salman et al.: the unit is the target -----------------------------------------------------------------------------


def by_radius(architecture: str, method: str = "fixed_feature", metric: str = "clean_accuracy", low: str = "native"):
    """Percent by target and l2 radius."""
    where = f"architecture == '{architecture}' and method == '{method}' and metric == '{metric}'"
    rows = frame("transfer_salman", f"{where} and resolution == '{low}' and norm != 'linf' and source_seed == 0")
    rows = rows.assign(target=rows.target.str.removesuffix("_low"))
    return 100 * rows.pivot_table("value", "target", "source_eps")


SMALL = ["cifar10", "cifar100"]


@pytest.mark.parametrize(
    ("method", "network", "other", "all_targets", "ten"),
    [
        ("fixed_feature", "resnet18", "resnet50", "+2.96 [-1.40, 7.32]", "+0.05 [-0.40, 0.50]"),
        ("fixed_feature", "resnet50", "resnet18", "+3.59 [-0.96, 8.15]", "+0.65 [-0.52, 1.82]"),
        ("full_network", "resnet18", "resnet50", "+0.06 [-0.33, 0.45]", "-0.15 [-0.40, 0.11]"),
    ],
)
def test_the_radius_that_another_architecture_chooses(method, network, other, all_targets, ten):
    right = by_radius(network, method)
    chosen = by_radius(other, method).idxmax(axis=1)
    leads = pd.Series({target: right.loc[target, chosen[target]] - right.loc[target, 0.0] for target in right.index})
    check(leads, all_targets)
    check(leads.drop(SMALL), ten)


@pytest.mark.parametrize(
    ("method", "network", "of_its_resolution", "ten", "of_all"),
    [
        ("fixed_feature", "resnet18", "+2.75 [-1.71, 7.21]", "-0.20 [-1.05, 0.65]", "+0.04 [-2.65, 2.72]"),
        ("fixed_feature", "resnet50", "+3.42 [-1.11, 7.95]", "+0.44 [-0.17, 1.06]", "+2.29 [-1.44, 6.03]"),
        ("full_network", "resnet18", "-0.10 [-0.54, 0.34]", "-0.33 [-0.64, -0.01]", "-0.31 [-0.65, 0.02]"),
        ("full_network", "resnet50", "+0.19 [-0.29, 0.66]", "-0.10 [-0.28, 0.09]", "+0.01 [-0.18, 0.19]"),
    ],
)
def test_the_radius_chosen_leaving_one_target_out(method, network, of_its_resolution, ten, of_all):
    """By the kept `validation_accuracy`, over targets of its resolution, and over all others."""
    right, others = by_radius(network, method), by_radius(network, method, "validation_accuracy")
    robust = [eps for eps in right if eps > 0]
    for target in right.index:
        alike = [one for one in right.index if one != target and (one in SMALL) == (target in SMALL)]
        assert others.loc[target].to_numpy() == pytest.approx(right.loc[alike].mean().to_numpy(), abs=1e-3)
    leads = [right.loc[one, others.loc[one, robust].idxmax()] - right.loc[one, 0.0] for one in right.index]
    check(leads, of_its_resolution)
    check(pd.Series(leads, right.index).drop(SMALL), ten)
    rest = {one: right.drop(one)[robust].mean().idxmax() for one in right.index}
    check([right.loc[one, rest[one]] - right.loc[one, 0.0] for one in right.index], of_all)
    best = right[robust].max(axis=1) - right[0.0]
    assert best.mean() > np.mean(leads)  # what choosing on the test set would have added


@pytest.mark.parametrize(
    ("network", "native", "low", "change"),
    [
        ("resnet18", "-8.66 [-11.62, -5.69]", "+9.66 [6.13, 13.19]", "+18.3 [15.1, 21.5]"),
        ("resnet50", "-5.54 [-8.24, -2.83]", "+12.22 [8.45, 15.98]", "+17.8 [14.2, 21.3]"),
    ],
)
def test_the_targets_resolution(network, native, low, change):
    leads = [by_radius(network, low=part).drop(SMALL) for part in ("native", "low")]
    leads = [part[3.0] - part[0.0] for part in leads]
    check(leads[0], native)
    check(leads[1], low)
    check(leads[1] - leads[0], change)
    assert (leads[1] > leads[0]).sum() == 10


def test_the_best_radius_depends_on_the_target():
    for network in ("resnet18", "resnet50"):
        best = by_radius(network).idxmax(axis=1)
        assert set(best[SMALL]) == {3.0}
        assert best.drop(SMALL).max() <= 1


def test_wider_networks():
    narrow, wide = by_radius("resnet50"), by_radius("wide_resnet50_4")
    robust, standard = (wide[eps] - narrow[eps] for eps in (3.0, 0.0))
    check(robust, "+2.12 [1.36, 2.88]")
    check(standard, "-0.36 [-1.10, 0.38]")
    check(robust - standard, "+2.48 [1.51, 3.45]")


# Networks and observers --------------------------------------------------------------------------------------------


def test_shape_bias_and_stylised_images_against_the_radius():
    rows = frame("shape_bias_gavrikov", "source in ('standard', 'robust')")
    l2 = rows[rows.norm != "linf"].set_index("source_eps")
    bias = l2[l2.metric == "shape_bias"].value
    assert [round(bias[eps], 2) for eps in (0, 0.5, 3, 5)] == [0.21, 0.41, 0.65, 0.69]
    assert stats.spearmanr(bias.index, bias).statistic == pytest.approx(0.988, abs=1e-3)
    stylised = rows[rows.change == "texture swapped"].set_index("network").value.mul(100)
    standard = stylised.pop("robust_resnet50_l2_eps0")
    assert round(standard, 1) == 34.4
    assert 38.5 <= stylised.min() < stylised.max() < 46
    assert stylised.filter(like="_l2_").max() < 44.2
    half = 196 * np.sqrt((stylised * (100 - stylised) + standard * (100 - standard)) / 1e4 / 800)
    assert ((stylised - standard) > half).sum() == 11  # of 14; the others are 4.1, 4.1 and 4.6 ahead


def test_robust_to_texture_is_not_robust_to_an_adversary():
    rows = frame("shape_bias_gavrikov", "network == 'resnet50_trained_on_SIN'")
    bias = rows[rows.metric == "shape_bias"].value.item()
    stylised = rows[rows.change == "texture swapped"].value.item()
    attacked = rows[rows.attack == "high"].value.item()
    assert (round(bias, 2), round(100 * stylised, 1), round(50000 * attacked)) == (0.81, 90.9, 4)


def test_decisions_of_humans_and_of_texture_randomised_networks():
    found = frame("cue_conflict_geirhos", "shape == 'all' and metric == 'shape_bias'")
    assert len(frame("cue_conflict_geirhos", "shape == 'all' and metric == 'shape_decisions'")) == 32
    people = found[found.source == "human"].value
    assert len(people) == 10
    assert (round(100 * people.min(), 1), round(100 * people.max(), 1)) == (91.9, 98.7)
    pairs = 100 * found[found.seed < 5].pivot_table("value", "seed", "source")
    check(pairs.randomised - pairs.standard, "+59.7 [51.6, 67.7]")
    assert found[found.source == "standard"].value.max() < 0.43 < 0.75 < found[found.source == "randomised"].value.min()
    one = frame(
        "cue_conflict_geirhos", "network == 'resnet50' and place == 'rgeirhos/texture-vs-shape' and shape == 'all'"
    )
    one = one.set_index("metric")
    assert one.value.shape_bias == pytest.approx(162 / (162 + 572), abs=1e-6)
    parts = frame("cue_conflict_geirhos", "shape != 'all' and metric == 'shape_decisions'").groupby(
        ["place", "network"]
    )
    assert (parts.n_test.sum() == 1200).all()


def test_accuracy_against_robustness_over_a_leaderboard():
    rows = frame("tradeoff_robustbench")
    assert rows.seed.nunique() == 236
    wide = rows.pivot_table("value", ["dataset", "threat", "source", "network"], "metric")
    ranks = {}
    for place, part in wide.xs("robust", level="source").groupby(["dataset", "threat"]):
        ranks[place] = len(part), round(stats.spearmanr(part.clean_accuracy, part.robust_accuracy).statistic, 2)
    assert ranks["cifar10", "Linf"] == (98, 0.53)
    assert ranks["cifar10", "L2"] == (20, 0.91)
    assert ranks["imagenet", "Linf"] == (29, 0.91)
    standard = wide.xs(("cifar10", "Linf", "standard")).iloc[0]
    assert (standard.clean_accuracy, standard.robust_accuracy) == (0.9478, 0)


def test_new_images_by_a_bootstrap_of_images_and_networks():
    rows = frame("new_test_set_c101").set_index("images")
    parts = {one: (rows.loc[one].drop(columns="count").to_numpy(), rows.loc[one, "count"]) for one in ("old", "new")}
    assert {one: count.sum() for one, (_, count) in parts.items()} == {"old": 10000, "new": 2000}
    rng = np.random.default_rng(0)
    counts = {one: rng.multinomial(count.sum(), count / count.sum(), 400) for one, (_, count) in parts.items()}
    old, new = (100 * counts[one] @ parts[one][0] / counts[one].sum(1)[:, None] for one in ("old", "new"))  # (400, 30)
    at = {one: 100 * count.to_numpy() @ hits / count.sum() for one, (hits, count) in parts.items()}
    drops = at["old"] - at["new"]
    assert (drops.min().round(1), drops.max().round(1)) == (4.0, 14.6)
    assert (np.percentile(old - new, 2.5, axis=0) > 0).all()
    assert np.percentile((old - new)[:, drops.argmin()], [2.5, 97.5]) == pytest.approx([2.8, 5.2], abs=0.3)

    def judged(transform, networks):
        slopes = [np.polyfit(*transform(np.array(pair)), 1)[0] for pair in networks]
        return np.percentile(slopes, [2.5, 97.5])

    images = list(zip(old, new, strict=True))
    both = [(a[k], b[k]) for (a, b), k in zip(images, rng.integers(30, size=(400, 30)), strict=True)]
    plain, probit = (lambda pair: pair), (lambda pair: stats.norm.ppf(pair / 100))
    assert np.polyfit(at["old"], at["new"], 1)[0] == pytest.approx(1.595, abs=1e-3)
    assert judged(plain, both) == pytest.approx([1.44, 1.75], abs=0.04)  # above 1 in percent ...
    assert np.polyfit(*probit(np.array([at["old"], at["new"]])), 1)[0] == pytest.approx(0.950, abs=1e-3)
    assert judged(probit, both) == pytest.approx([0.85, 1.04], abs=0.03)  # ... and not on the probit scale
    assert stats.spearmanr(at["old"], at["new"]).statistic == pytest.approx(0.971, abs=1e-3)
    ranks = [[stats.spearmanr(*pair).statistic for pair in pairs] for pairs in (images, both)]
    assert np.percentile(ranks[0], [2.5, 97.5]) == pytest.approx([0.944, 0.982], abs=0.005)
    assert np.percentile(ranks[1], 2.5) == pytest.approx(0.885, abs=0.02)  # with the networks: below the margin of 0.9


# The figure that reconciles the papers ------------------------------------------------------------------------------


def test_leads_against_the_ratio_of_resolutions():
    rows = frame("resolution")
    assert not rows.duplicated(["paper", "architecture", "method", "target", "resolution"]).any()
    assert len(rows) == 2 * 2 * 4 * 12 + 18  # modes, resolutions, architectures, targets; and Utrera et al.'s
    utrera = rows[(rows.paper == "Utrera et al. 2021") & (rows.method == "last_stage")]
    assert utrera.lead.mean() == pytest.approx(9.26, abs=0.01)
    assert utrera.ratio.between(7, 8).all()
    large = rows[
        (rows.method == "fixed_feature") & (rows.architecture == "resnet18") & ~rows.target.str.startswith("cifar")
    ]
    means = large.groupby("resolution").lead.mean()
    assert (round(means["native"], 1), round(means["low"], 1)) == (-8.7, 9.7)
    assert (rows[rows.resolution == "low"].ratio == 7).all()
    unknown = {"aircraft", "birdsnap", "caltech256", "cars", "food101", "oxford_pets", "sun397"}
    assert set(rows[rows.ratio.isna()].target) == unknown
    assert (rows.ratio.dropna() >= 1).all()
