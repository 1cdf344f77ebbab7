"""Every registered verdict once more: from the cells that come with the kit, by pandas and scipy, without the judge."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from rtkit import claims, protocols, store

SOURCES = ("robust", "standard")


def rows(f, **at):
    for column, values in at.items():
        f = f[f[column].isin(values if isinstance(values, tuple) else (values,))]
    return f


def v(f, metric="clean_accuracy", **at):
    """A mean in percent."""
    found = rows(f, metric=metric, **at).value
    assert len(found), (metric, at)
    return 100 * found.mean()


def log_odds(f, **at):
    found = rows(f, **at)
    right, n = (found.value * found.n_test).sum(), found.n_test.sum()
    return math.log((right + 0.5) / (n - right + 0.5))


def influence(f):
    def of(source, metric, **at):
        return v(f, metric, source=source, score="influence", **at)

    lds, error, match = ([of(source, metric, **at) for source in SOURCES] for metric, at in (
        ("lds", {"rank": 50}), ("loo_error", {"n_train": 900}),
        ("top1_match", {"method": "last_stage", "n_train": 100})))  # fmt: skip
    yield "U-C8@as the authors", {"": match[0] - match[1]}
    yield "INF-K1", {"": math.atanh(lds[0] / 100) - math.atanh(lds[1] / 100)}
    yield "INF-K2", {"": math.log(error[1] / error[0])}
    found = rows(f, metric="mislabelled_auc")
    yield "INF-K3", {"": log_odds(found, score="self_influence") - log_odds(found, score="loss")}
    gaps, grid = {}, np.arange(-12, -0.5, 0.5)
    for target, name in (("digits", "digits (real)"), ("lower", "lower-case letters")):
        curves = []
        for source in SOURCES:
            heads = rows(f, target=target, source=source)
            loss = rows(heads, metric="scaled_loss").assign(value=lambda t: np.log10(t.value)).groupby("scale").value
            match = rows(heads, metric="scaled_match", score="influence").groupby("scale").value
            curve = pd.DataFrame({"loss": loss.mean(), "match": 100 * match.mean()}).sort_values("loss")
            inside = (grid >= curve.loss.min()) & (grid <= curve.loss.max())
            curves.append(np.where(inside, np.interp(grid, curve.loss, curve.match), np.nan))
        gaps[name] = np.nanmean(curves[0] - curves[1])
    yield "U-C8", gaps


def attack_success(f):
    f = rows(f, role=("judged", "beside"))
    judged = rows(f, role="judged")
    hit = {name: log_odds(judged, metric="attack_success_rate", method=name, form="any")
           for name in judged.method.unique() if name != "source"}  # fmt: skip
    clean = {name: v(judged, method=name) for name in hit}
    probe, noise = (v(judged, "attack_success_rate", method="probe", form=form) for form in ("any", "noise"))
    valid = probe >= 50 and probe - noise >= 30
    by_noise = log_odds(judged, metric="attack_success_rate", method="fine_tuning", form="noise")
    direct = {}
    for name in ("fine_tuning", "nfd", "nfd_long"):
        found = rows(judged, metric="direct_success_rate", method=name)
        direct[name] = found.assign(radius=found.form.str[7:].astype(float)).sort_values("radius")

    def radius(name, share):
        return np.interp(share, [0, *direct[name].value], [0, *direct[name].radius])

    for regime, nfd, scratch in (("", "nfd", "scratch"), ("@authors' budget", "nfd_long", "scratch_long")):
        dear = {"minus fine-tuning": clean[nfd] - clean["fine_tuning"]}
        yield f"NFD-C4{regime}", dear | {"minus from scratch": (clean[nfd] - clean[scratch], 0)}
        if valid:
            fall = hit["fine_tuning"] - hit[nfd]
            yield f"NFD-C2{regime}", {"fall": fall}
            yield f"NFD-C2@a fifth of the odds{regime.replace('@', ', ')}", {"fall": (fall, math.log(5))}
            lost = clean["fine_tuning"] - clean[scratch], 5
            parts = {"success lost": hit["fine_tuning"] - hit[scratch], "clean accuracy lost, in points": lost}
            yield f"NFD-C3{regime}", parts
            same = {name: radius(name, 1 / (1 + math.exp(-hit[name]))) for name in ("fine_tuning", nfd)}
            yield f"NFD-K1{regime}", {"": math.log(radius(nfd, 0.5) / radius("fine_tuning", 0.5))}
            yield f"NFD-K2{regime}", {"": math.log(same["fine_tuning"] / same[nfd])}
    if valid:
        yield "NFD-C1", {"": hit["fine_tuning"] - by_noise}
        yield "NFD-C1@most images", {"log odds of success": (hit["fine_tuning"], 0)}
        ties = {"L2-SP, change": hit["l2_sp"], "DELTA, change": hit["delta"]}
        yield "NFD-C6", {name: value - hit["fine_tuning"] for name, value in ties.items()}
        rungs = {"dropout, fall": hit["delta_r"] - hit["nfd_dropout"]}
        yield "NFD-C5", rungs | {"averaging, fall": hit["nfd_dropout"] - hit["nfd"]}
        keys = ["method", "n_train", "lr", "weight", "dropout", "steps"]
        ranked = rows(f, metric=("clean_accuracy", "attack_success_rate", "similarity"))
        ranked = ranked.assign(what=ranked.metric + ranked.form.fillna("")).pivot_table("value", keys, "what")
        ranked = ranked.dropna(subset=["clean_accuracy", "attack_success_rateany"]).query("clean_accuracy >= 0.6")
        yield "NFD-C7", {"": stats.spearmanr(ranked["similaritystages"], ranked["attack_success_rateany"]).statistic}


def best_offer(points, clean):
    """The most of the second axis that points, and lines between two of them, offer at this much of the first."""
    enough = points[points[:, 0] >= clean]
    best = max(enough[:, 1]) if len(enough) else max(points[:, 1])
    for a in points[points[:, 0] < clean]:
        for b in enough:
            best = max(best, a[1] + (b[1] - a[1]) * (clean - a[0]) / (b[0] - a[0]))
    return best, len(enough) > 0


def retention(f):
    depths = {"head": 0, "last_block": 1, "last_stage": 2, "last_two_stages": 4, "full_network": 6}

    def at(method, source="robust", target="digits_cued", shape=0.7, normal="frozen", **more):
        where = {"method": method, "source": source, "target": target, "shape_reliability": shape, "batchnorm": normal}
        return np.array([v(f, metric, **where, **more) for metric in ("clean_accuracy", "robust_accuracy")])

    itself, held = at("source itself", target="source"), at("lwf", target="source", weight=OWN)
    yield "LwF-C1", {"": 100 * at("head")[1] / itself[1]}
    parts = {"accuracy": held[0] - itself[0]}
    yield "LwF-C4", parts | {"kept, of 100 points of robust accuracy": (100 * held[1] / itself[1], 50)}
    for normal, regime in (("frozen", ""), ("adapt", "@adapting")):
        points = np.array([at(name, normal=normal) for name in depths])
        (accuracy, robust), (_, before) = (
            np.polyfit(list(depths.values())[:k], points[:k], 1)[0] * list(depths.values())[k - 1] for k in (5, 4)
        )
        falls = {"robustness falls": -robust, "robustness falls before the last step": -before}
        yield f"LwF-C2{regime}", {"accuracy rises": accuracy} | falls
        new = at("lwf", normal=normal, weight=LAMBDA)
        best, inside = best_offer(points, new[0])
        if inside or new[1] >= best:
            parts = {"more accurate than the head": new[0] - points[0, 0]}
            parts |= {"more robust than fine-tuning": new[1] - points[-1, 1]}
            yield f"LwF-C3{regime}", parts | {"more robust than any depth at its accuracy": new[1] - best}
    full, head = (at(name, shape=1.0, normal="adapt") for name in ("full_network", "head"))
    parts = {"accuracy rises": full[0] - head[0], "robustness falls": head[1] - full[1]}
    yield "LwF-C2@digit always right", parts
    more = dict(zip(("accuracy", "robustness"), at("mlp") - at("head"), strict=True))
    parts = {f"{name}, deep minus linear": (by, -3) for name, by in more.items()}
    yield "LwF-C5", parts | {f"{name}, linear minus deep": (-by, -3) for name, by in more.items()}
    few = sorted(rows(f, target="digits").n_train.unique())
    two = (("head", "frozen"), ("adversarial, from scratch", "adapt"))
    ahead = np.subtract(*([at(m, target="digits", normal=b, n_train=n)[1] for n in few] for m, b in two))
    k = next((k for k, by in enumerate(ahead) if by <= 0), len(few))
    star = few[min(k, len(few) - 1)]
    if 0 < k < len(few):
        star = math.exp(np.interp(0, [ahead[k], ahead[k - 1]], np.log([few[k], few[k - 1]])))
    yield "LwF-C6", {"": math.log(star / 100)}
    share = {name: at("head", target=name, n_train=max(few)) for name in ("lower", "digits")}
    lower, digits = (100 * robust / clean for clean, robust in (share["lower"], share["digits"]))
    yield "LwF-C7", {"": lower - digits}


def of_dose(f, dose):
    return f[(255 * f.texture_amplitude).round() == dose]


def ahead(f, first="robust", second="standard", metric="clean_accuracy", **at):
    """One source minus another: a kind of the main radius, or a radius in grey levels."""

    def of(kind):
        if isinstance(kind, int):
            return f[(f.source == "robust") & np.isclose(f.source_eps, kind / 255)]
        return f[(f.source == kind) & ((kind != "robust") | np.isclose(f.source_eps, 4 / 255))]

    return v(of(first), metric, **at) - v(of(second), metric, **at)


def transfer(f):
    shapes, radii = ("digits", "lower", "greek"), (1, 4, 16)
    home = of_dose(f[f.architecture == "small-16"], 6)
    last, fixed = {"method": "last_stage", "target": shapes}, {"method": "fixed_feature", "target": shapes}
    most = {name: 900 if name == "digits" else 1600 for name in shapes}
    few = {"n_train": (100, 400)}
    robust = home[(home.source == "robust") & np.isclose(home.source_eps, 4 / 255)]

    def in_odds(metric="clean_accuracy", **numbers):
        """The lead in log odds, target by target; `numbers` names rows of each."""
        leads = []
        for name in shapes:
            at = {key: value[name] if isinstance(value, dict) else value for key, value in numbers.items()}
            standard = rows(home, source="standard")
            found = [log_odds(one, target=name, metric=metric, **at) for one in (robust, standard)]
            leads.append(found[0] - found[1])
        return np.mean(leads)

    yield "U-C1", {"": ahead(home, **last, **few)}
    at_most = np.mean([[v(one, method="last_stage", target=name, n_train=n) for name, n in most.items()]
                       for one in (robust, rows(home, source="standard"))], axis=1)  # fmt: skip
    fewest = {"points": ahead(home, **last, n_train=100), "log odds": in_odds(method="last_stage", n_train=100)}
    shrunk = {"points": at_most[0] - at_most[1], "log odds": in_odds(method="last_stage", n_train=most)}
    yield "U-C2", {unit: fewest[unit] - shrunk[unit] for unit in fewest}
    yield "U-C3", {"": shrunk["points"]}
    yield "U-C5", {"": ahead(home, **fixed, n_train=100)}

    def chosen(target, standard=False, **at):
        """The radius (0: standard) whose source does best on validation images; the first of equals."""
        choice = {0: rows(home, source="standard")} if standard else {}
        found = home[home.source == "robust"]
        choice |= {radius: found[np.isclose(found.source_eps, radius / 255)] for radius in radii}
        scores = {k: v(one, "validation_accuracy", target=target, **at) for k, one in choice.items()}
        return max(scores, key=scores.get)

    for claim, method in (("S-C1", "fixed_feature"), ("S-C2", "full_network")):
        at = {"method": method, "n_train": 400}
        yield claim, {"": np.mean([ahead(home, chosen(name, **at), target=name, **at) for name in shapes])}
    for regime, recipe in (("", ""), ("@authors", ", authors")):
        block, stage, two = (f"last_{part}{recipe}" for part in ("block", "stage", "two_stages"))
        few = rows(robust, n_train=100)
        deeper = {"last stage over last block, digits (real)": ("digits", stage, block)}
        deeper |= {"last block over last stage, alike": (shapes[1:], block, stage)}
        deeper |= {"last stage over last two stages": (shapes, stage, two)}
        yield (
            f"U-C6{regime}",
            {name: v(few, target=on, method=a) - v(few, target=on, method=b) for name, (on, a, b) in deeper.items()},
        )
    recipe = {"method": "last_stage, authors", "n_train": 400}
    on_the_way = rows(home, metric="accuracy_at_step", **recipe).step.unique()
    total = rows(home, metric="clean_accuracy", **recipe).step.max()
    tenth = on_the_way[np.abs(on_the_way - total / 10).argmin()]
    yield "U-C4", {"": in_odds("accuracy_at_step", step=int(tenth), **recipe) - in_odds(**recipe)}
    fine = {"method": "fixed_feature", "n_train": 100}
    reduced, native = (ahead(home, target=name, **fine) for name in ("digits_textured_8", "digits_textured"))
    yield "S-C5", {"change": reduced - native, "lead at low resolution": reduced}
    textured = tuple(f"{name}_textured" for name in shapes)
    best = [np.mean([chosen(name, True, **fine) for name in names]) for names in (shapes, textured)]
    yield "S-C4", {"": best[0] - best[1]}
    yield "U-C7", {"": ahead(home, "robust", 16, n_train=(100, 400), **last)}
    wide = f[f.architecture == "small-16"]
    parts = {"over standard": "standard", "over noise-trained": "noise"}
    by_dose = {name: [ahead(of_dose(wide, dose), "robust", other, n_train=100, **fixed) for dose in (0, 6, 14)]
               for name, other in parts.items()}  # fmt: skip
    yield "KIT-T1", {name: 10 * np.polyfit((0, 6, 14), leads, 1)[0] for name, leads in by_dose.items()}
    yield "KIT-T2", {name: leads[0] for name, leads in by_dose.items()}
    widths, slopes = {}, {}
    for kind in SOURCES:
        kind_of = of_dose(f[(f.source == kind) & (f.source_eps.isin([0]) | np.isclose(f.source_eps, 4 / 255))], 6)
        kind_of = [kind_of[kind_of.architecture == f"small-{width}"] for width in (4, 8, 16)]
        home_of, away = ([v(one, **at) for one in kind_of] for at in ({"target": "source"}, fixed | {"n_train": 100}))
        widths[kind] = away[2] - away[0]
        if max(home_of) - min(home_of) >= 1:
            slopes[kind] = stats.linregress(home_of, away).slope
    if len(slopes) == 2:
        yield "S-C6", {kind: slopes[kind] for kind in ("standard", "robust")}
    yield "S-C7", {"robust": widths["robust"], "more than standard": widths["robust"] - widths["standard"]}


def shape_bias(f):
    stripes, copies, doses = {"target": "source", "change": "texture swapped"}, ("digits", "lower"), (0, 8, 14)
    foreign = {"zero-shot": stripes, "with a new head": {"target": "source:swapped", "method": "fixed_feature"}}
    found = {}
    for name, at in foreign.items():
        leads = [ahead(of_dose(f, dose), **at) for dose in doses]
        found |= {f"{name}, at 8/255": leads[1], f"{name}, rise over 10/255": 10 * np.polyfit(doses, leads, 1)[0]}
    yield "S-C8", found
    own, swapped, low = (
        ahead(of_dose(f, 8), method="last_stage", target=tuple(f"{name}:{copy}" for name in copies))
        for copy in ("own", "swapped", "low")
    )
    yield "U-C9", {"texture-swapped": swapped - own, "down-scaled": low - own}
    plain = {"method": "fixed_feature", "target": tuple(f"{name}:plain" for name in copies)}
    striped = f[(255 * f.texture_amplitude).round().isin((8, 14))]
    yield "S-C9", {"": ahead(striped, "robust", "randomised", **plain)}


def tradeoff(f):
    f = rows(f, checkpoint="last")

    def at(method, **more):
        return np.array([v(f, metric, method=method, **more) for metric in ("clean_accuracy", "robust_accuracy")])

    def all_of(base, knobs):
        return np.array([at("pgd_at", knob=0.0), *(at(base, knob=knob) for knob in knobs)])

    def lift(points, new):
        """The height above a frontier; None where it cannot be compared."""
        best, inside = best_offer(points, new[0])
        return new[1] - best if inside or new[1] >= best else None

    madry, zhang = all_of("pgd_at", (1.0, 2.0, 4.0)), all_of("trades", (1.0, 3.0))
    for regime, points, base, main, weights in (
        ("", madry, "pgd_at", 2.0, (0.3, 1.0)),
        ("@TRADES", zhang, "trades", 3.0, (0.3,)),
    ):
        if np.ptp(points[:, 0]) >= 5:
            taught = [at(f"{base}+vfd", weight=weight) for weight in weights]
            yield f"VFD-C1{regime}", {"": np.mean(taught, 0)[0] - at(base, knob=main)[0]}
            heights = [height for one in taught if (height := lift(points, one)) is not None]
            if heights:
                yield f"VFD-C2{regime}", {"": np.mean(heights)}
    if np.ptp(madry[:, 0]) >= 5:
        names = ("clean images only", "attacked images only", "logits")
        taught = lift(madry, at("pgd_at+vfd", weight=0.3))
        others = {name: lift(madry, at(name, knob=2.0)) for name in names}
        if None not in (taught, others[names[0]], others[names[1]]):
            yield "VFD-C3", {f"over {name}": taught - others[name] for name in names[:2]}
        if None not in (taught, others["logits"]):
            yield "VFD-C4", {"over logits": taught - others["logits"]}
        near, far, region = (lift(madry, at(name, knob=k)) for name, k in (("rat", 4), ("rat", 8), ("region", 4)))
        if None not in (near, far):
            yield "RAT-R1", {"": (near + far) / 2}
        if None not in (near, region):
            yield "RAT-R3", {"region": region, "smoothing": near - region}
        arks = [at("arks", knob=sigma) for sigma in (0.25, 1.0)]
        costs = []
        for clean, robust in arks:  # the most accurate that is as robust: the axes in the other order
            costs.append(clean - best_offer(madry[:, ::-1], min(robust, madry[:, 1].max()))[0])
        gain = np.mean([one[1] for one in arks]) - madry[0, 1]
        yield "ARKS-A1", {"robust": gain, "clean": (np.mean(costs), -1)}
    wrm = all_of("wrm", (0.25, 1.0))
    arks = [at("arks", knob=sigma) for sigma in (0.25, 1.0)]
    heights = [lift(wrm, one) for one in arks]
    if np.ptp(wrm[:, 0]) >= 5 and None not in heights:
        yield "ARKS-A2", {"": np.mean(heights)}
    yield "ARKS-A3", {"more robust": arks[1][1] - arks[0][1], "less accurate": arks[0][0] - arks[1][0]}
    gap = [v(f, "generalisation_gap", method=method, knob=4.0) for method in ("pgd_at", "rat")]
    yield "RAT-R2", {"": gap[0] - gap[1]}


OWN, LAMBDA = 0.15, 0.15


def ends(values, confidence, fisher):
    """The wider of Student's t and of Hall's interval, the latter by searching its transformation for t."""
    x = np.arctanh(np.clip(values, -0.999, 0.999)) if fisher else np.array(values)
    n, mean, spread = len(x), x.mean(), x.std(ddof=1)
    t, skew = stats.t.ppf((1 + confidence) / 2, n - 1), stats.skew(x, bias=False)
    low, high = mean - t * spread / n**0.5, mean + t * spread / n**0.5
    if n >= 8 and spread > 1e-12:

        def g(z):
            return n**0.5 * (z + skew * z**2 / 3 + skew**2 * z**3 / 27 + skew / (6 * n))

        below, above = (mean - spread * optimize.brentq(lambda z, q=q: g(z) - q, -1e3, 1e3) for q in (t, -t))
        low, high = min(low, below), max(high, above)
    return tuple(np.tanh([mean, low, high])) if fisher else (mean, low, high)


def word(parts, margins, claim):
    """The word that ten replicates of some parts say, by the rules of docs/protocols.md."""
    fisher, k = "correlation" in claim.unit, len(parts)
    plain = {name: ends(values, 0.95, fisher) for name, values in parts.items()}
    sure = {name: ends(values, 0.95 if k == 1 else 1 - 0.025 / k, fisher) for name, values in parts.items()}
    if all(low > margins[name] for name, (_, low, _) in plain.items()):
        return "supported", plain
    if any(high < margins[name] for name, (_, _, high) in sure.items()):
        return "contradicted", plain
    if any(-claim.bound < low and high < claim.bound for _, low, high in sure.values()):
        return "null", plain
    return "inconclusive", plain


STUDIES = {study.__name__: study for study in (transfer, shape_bias, influence, attack_success, retention, tradeoff)}


@pytest.mark.parametrize("study", STUDIES)
def test_every_verdict_follows_from_the_cells(study):
    protocol = protocols.current(study, "glyphs")
    frame = pd.read_csv(store.RESULTS / "glyphs" / f"{study}.csv.gz", keep_default_na=False, na_values=[""])
    record = store.load_record(store.RESULTS / "glyphs" / f"{study}.json")["verdicts"]
    found = {}
    for _, one in frame.groupby("seed"):
        for name, parts in STUDIES[study](one):
            for part, value in parts.items():
                value, margin = value if isinstance(value, tuple) else (value, claims.get(name).margin)
                found.setdefault(name, {}).setdefault(part, (margin, []))[1].append(value)
    assert set(found) <= set(record)
    assert all(record[name]["reason"].startswith("out_of_range") for name in set(record) - set(found))
    for name, parts in found.items():
        if len(set(frame.seed)) == 1:  # no interval, and no word
            assert record[name]["reason"] == f"not_run: 1 of {len(protocol['seeds'])} replicates"
            continue
        said, plain = word({k: values for k, (_, values) in parts.items()}, {k: m for k, (m, _) in parts.items()},
                           claims.get(name))  # fmt: skip
        told = {part["name"]: part for part in record[name]["parts"]}
        assert set(told) == set(plain), name
        for part, (mean, low, high) in plain.items():
            values = [told[part][key] for key in ("effect", "low", "high")]
            within = [np.clip(end, *claims.get(name).range) for end in (low, high)]
            assert values[0] == pytest.approx(mean, rel=1e-6, abs=1e-9), (name, part)
            assert values[1:] == pytest.approx(within, rel=1e-6, abs=1e-6) or values[1] >= low, (name, part)
        if record[name]["verdict"] != "not_judged":
            assert record[name]["verdict"] == said, name
        elif frame.seed.nunique() < len(protocol["seeds"]):
            assert "replicates" in record[name]["reason"]
