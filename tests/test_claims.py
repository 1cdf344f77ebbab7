"""The judge: its arithmetic, its refusals, and how often it errs when there is nothing to find."""

import copy
import math
import pickle
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rtkit import claims, frames, plots, say
from rtkit.claims import Part
from rtkit.frames import Interval, Missing, OutOfRange, interval
from rtkit.judge import Judge, decide, judge, p_value, parts

CLAIM = claims.load()["U-C1"]


def part(values) -> Part:
    found = interval(values)
    return Part("", found.effect, found.low, found.high, 0.0)


def frame(*values: float) -> pd.DataFrame:
    return pd.DataFrame({"seed": range(len(values)), "value": values, "n_test": 597})


def effect(part: pd.DataFrame) -> float:
    return float(part.value.iloc[0])


def verdict(*values: float, claim=CLAIM, **options):
    return judge(claim, effect, frame(*values), preset="glyphs", scope="mechanism", **options)


def test_every_claim_of_every_paper_is_there():
    families = {"U-C": 9, "S-C": 10, "NFD-C": 7, "LwF-C": 7, "VFD-C": 5, "RAT-R": 3, "ARKS-A": 3, "C101-T": 3}
    own = {"INF-K": 3, "KIT-T": 2, "NFD-K": 2}  # questions of the kit
    expected = {f"{family}{k + 1}" for family, count in (families | own).items() for k in range(count)}
    assert set(claims.load()) == expected
    assert sum(families.values()) == 47
    for claim in claims.load().values():
        assert claim.statement.endswith(".")
        assert claim.fidelity in ("authors' code", "paper text", "reconstruction", "own question")
        assert (claim.fidelity == "own question") == (claim.paper == "rtkit")
        assert claim.study or claim.untestable


def test_an_interval_is_the_wider_of_two_known_ones():
    few = [1.0, 2.5, -0.5, 3.0, 1.5]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(few), scale=stats.sem(few))
    found = interval(few)
    assert (found.effect, found.low, found.high, found.replicates) == pytest.approx((1.5, low, high, 5))
    values = [0.1, 0.2, 0.2, 0.4, 0.9, 3.1, 0.3, 0.5]  # skewed to the right: the mean may well lie far above
    low, high = stats.t.interval(0.95, 7, loc=np.mean(values), scale=stats.sem(values))
    found, turned = interval(values), interval([-value for value in values])
    assert found.low == pytest.approx(low)
    # Hall's transformation of the standardised mean follows Student's t where the true mean is at the interval's end.
    skew, far = stats.skew(values, bias=False), (np.mean(values) - found.high) / np.std(values, ddof=1)
    moved = far + skew / 3 * far**2 + skew**2 / 27 * far**3 + skew / 48
    assert moved * 8**0.5 == pytest.approx(stats.t.ppf(0.025, 7))
    assert found.high > high
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert (interval([2.0] * 8).low, interval([2.0] * 8).high) == (2, 2)


def test_a_single_replicate_says_nothing():
    found = interval([3.0])
    assert (found.effect, found.low, found.high) == (3.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="at least one replicate"):
        interval([])


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((5.0, 6.0, 5.5, 4.5, 5.0), "supported"),
        ((-5.0, -6.0, -5.5, -4.5, -5.0), "contradicted"),
        ((5.0, -6.0, 1.0, -1.0, 2.0), "inconclusive"),
    ],
)
def test_three_verdicts_and_a_flipped_frame_flips_them(values, word):
    opposite = {"supported": "contradicted", "contradicted": "supported", "inconclusive": "inconclusive"}
    assert verdict(*values).verdict == word
    assert verdict(*[-value for value in values]).verdict == opposite[word]


def test_conjunction():
    good, bad, unsure = Part("", 2, 1, 3, 0), Part("", -2, -3, -1, 0), Part("", 0, -1, 1, 0)
    assert decide([good, good]) == "supported"
    assert decide([good, bad]) == decide([unsure, bad]) == "contradicted"
    assert decide([good, unsure]) == "inconclusive"
    assert decide([Part("", 2, 1, 3, 1.5)]) == "inconclusive"

    def both(part):
        return {"first": effect(part), "second": -effect(part)}

    found = judge(CLAIM, both, frame(*(5, 6) * 5), preset="glyphs", scope="mechanism")
    assert (found.verdict, found.reason) == ("contradicted", "weakest part: second")
    assert found.effect == pytest.approx(-5.5)

    def wide(part):  # its bound is the lowest of all, but it contradicts nothing
        return {"first": 10 * (effect(part) - 5), "second": -1}

    found = judge(CLAIM, wide, frame(4, 6, 5, 6, 4), preset="glyphs", scope="mechanism")
    assert (found.verdict, found.reason, found.effect) == ("contradicted", "weakest part: second", -1)


def test_refusals_say_why():
    values = (5.0, 6.0, 5.5, 4.5, 5.0)
    assert verdict(*values[:2]).reason == "not_run: 2 of 5 replicates"
    assert verdict(*values, failed_controls=["null"]).reason == "invalid_control: null"
    assert verdict(*values, arms=lambda part: (97.0, 96.0)).reason == "saturated"
    assert verdict(*values, arms=lambda part: (1.0, 4.0)).reason == "saturated"
    assert verdict(*values, arms=lambda part: (97.0, 94.0)).verdict == "supported"
    capped = verdict(*values, collapsed=[3])
    assert (capped.verdict, capped.reason) == ("inconclusive", "collapsed: seed 3")
    assert verdict(5.0, math.nan, 5.5, 5.0, 6.0).reason.startswith("undefined")


def test_only_missing_rows_mean_that_a_claim_was_not_run():
    options = {"preset": "glyphs", "scope": "mechanism"}
    shown = frame(5, 6, 5, 6, 5).assign(metric="clean_accuracy")
    missing = judge(CLAIM, lambda part: frames.mean(part, "robust_accuracy"), shown, **options)
    assert (missing.verdict, missing.reason) == ("not_judged", "not_run")
    with pytest.raises(KeyError, match="methd"):  # a slip is an error, not a claim that was not run
        judge(CLAIM, lambda part: frames.mean(part, methd="last_stage"), shown, **options)

    def apart(part):
        raise OutOfRange("no common range")

    assert judge(CLAIM, apart, shown, **options).reason == "out_of_range: no common range"


def test_a_part_has_a_margin_of_its_own_and_is_printed_as_it_is():
    """A loss of 2 within an allowance of 5 is supported, and shown as a loss of 2."""

    def effect(part):
        return {"gain": part.value.iloc[0], "cost": (-2.0, -5.0)}

    found = judge(CLAIM, effect, frame(9, 10, 9, 10, 9), preset="glyphs", scope="mechanism")
    assert (found.verdict, found.reason) == ("supported", "weakest part: cost")
    assert (found.effect, found.margin) == (-2, -5)
    assert [(part.name, part.margin) for part in found.parts] == [("gain", 0), ("cost", -5)]
    assert claims.Verdict.read(found.to_dict()) == found
    dear = judge(CLAIM, lambda part: {"cost": (-6.0, -5.0)}, frame(9, 10, 9, 10, 9), preset="glyphs", scope="mechanism")
    assert dear.verdict == "contradicted"


def judged(*values: float, preset: str = "glyphs") -> Judge:
    shown = frame(*values).assign(metric="clean_accuracy", arm="robust")
    shown.attrs = {"study": "transfer", "preset": preset, "run": "mine"}
    return Judge(shown, collapsed=())


def test_a_check_that_fails_stops_every_later_verdict_and_one_that_is_shown_none():
    made = judged(5, 6, 5.5, 5, 6)
    made.check("far apart", "shown", lambda part: part.value.iloc[0])
    assert made("U-C1", effect).verdict == "supported"
    made.check("not there", "> 0", lambda part: frames.mean(part, "robust_accuracy"))
    assert len(made.controls) == 1
    made.check("small", "< 3", lambda part: part.value.iloc[0])
    assert made("U-C1", effect).reason == "invalid_control: small"
    assert "**FAIL**: small, must be < 3" in say.checks(made).data
    assert "**shown**: far apart" in say.checks(made).data


@pytest.mark.parametrize(
    ("must", "holds"), [("> 4", True), ("> 5", False), (">= 5", True), ("< 6", False), ("= 1", False)]
)
def test_what_a_check_asks(must, holds):
    assert frames.control("name", must, frame(5, 6, 5.5), effect).holds == holds


def test_cards_say_the_scope_and_turn_with_the_numbers():
    up, down = judged(5, 6, 5.5, 5, 6), judged(-5, -6, -5.5, -5, -6)
    for made, word in ((up, "SEEN IN THIS WORLD"), (down, "OPPOSITE SEEN IN THIS WORLD")):
        made("U-C1", effect)
        assert word in say.card(made, "U-C1").data
    smoke = judged(5, preset="smoke")
    smoke("U-C1", effect)
    assert "NOT JUDGED: SMOKE" in say.card(smoke, "U-C1").data
    assert smoke.interval("U-C1").effect == 5
    real = judged(5, 6, 5.5, 5, 6, preset="photos")
    assert say.word(real("U-C1", effect)).startswith("supported (exploratory")


def test_words_follow_intervals():
    above, below, between = Interval(2, 1, 3, 5), Interval(-2, -3, -1, 5), Interval(0, -1, 1, 5)
    assert [say.which(one, "a", "b", "c") for one in (above, below, between)] == ["a", "b", "c"]
    assert say.compare(above).startswith("the robust source is **ahead** of the standard source: +2.0 points")
    assert "not clearly different" in say.compare(between)
    assert say.number(Interval(3.0, -math.inf, math.inf, 1)) == "+3.0 points (one replicate)"
    assert say.number(above, "%", sign=False) == "2.0 % [1.0, 3.0]"
    assert say.listed(["a", "b", "c"]) == "a, b and c"

    def nothing():
        raise Missing("no rows")

    assert say.tell(nothing).data == say.NOT_RUN


def test_a_number_has_the_unit_of_the_part_that_decided():
    def two(part):
        return {"points": effect(part), "log odds": -effect(part) / 10}

    found = judge(CLAIM, two, frame(*(5, 4) * 5), preset="glyphs", scope="mechanism")
    assert (found.verdict, claims.unit_of(found)) == ("contradicted", "log odds")
    assert [claims.unit_of(found, part) for part in found.parts] == ["points", "log odds"]
    assert "-0.5 [-0.5, -0.4] log odds" in " ".join(claims.text([found]).split())
    assert claims.unit_of(verdict(5, 6, 5, 6, 5)) == "points"


def test_scorecard_has_a_line_and_a_reason_for_every_claim():
    found = {"U-C1": verdict(5, 6, 5, 6, 5)}
    card = {line.claim: line for line in claims.scorecard("glyphs", "mechanism", found, ["transfer"])}
    assert list(card) == list(claims.load())
    assert card["U-C1"].verdict == "supported"
    assert card["U-C2"].reason == "not_run"
    assert card["U-C8"].reason == "no_experiment"
    assert card["S-C10"].reason.startswith("untestable_here: ")
    regime = verdict(1, 2, 1, 2, 1, claim=claims.get("U-C1@no texture"))
    more = claims.scorecard("glyphs", "mechanism", found | {"U-C1@no texture": regime}, ["transfer"])
    assert [line.claim for line in more][:2] == ["U-C1", "U-C1@no texture"]
    assert claims.get("U-C1@no texture").statement == CLAIM.statement
    smoke = claims.scorecard("smoke", None, {}, ["transfer"])
    assert {line.verdict for line in smoke} == {"not_judged"}


def test_the_scorecard_in_words_fits_80_columns_and_leaves_nothing_out():
    regime = claims.get("U-C1@a regime whose name takes up the better part of a line")
    found = [
        verdict(5, 6, 5, 6, 5),
        replace(verdict(1, 2, 1, 2, 1, claim=regime), marks=("knobs were changed: " + "x = 1, " * 20,)),
    ]
    found += claims.scorecard("glyphs", "mechanism", {}, ["transfer"])
    text = claims.text(found)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].startswith("U-C1      supported    +5.4 [")
    flat = " ".join(text.split())
    for one in found:
        for told in (one.claim, one.reason, one.paper_effect, *one.marks):
            assert " ".join(told.split()) in flat


def test_log_odds():
    assert frames.log_odds(50, 100) == 0
    assert frames.log_odds(0, 100) == -frames.log_odds(100, 100) == pytest.approx(math.log(0.5 / 100.5))


NOISES = {
    "Gaussian": lambda rng, size: rng.standard_normal(size),
    "t3": lambda rng, size: rng.standard_t(3, size),
    "skewed": lambda rng, size: (rng.gamma(4, size=size) - 4) / 2,  # of skewness 1
    "skewed to the left": lambda rng, size: (4 - rng.gamma(4, size=size)) / 2,
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("count", [1, 2, 6])
def test_effects_at_their_margins_are_rarely_called_anything(count, noise):
    """Under the null no word is said in more than 3.5 % of studies of ten replicates, nor of conjunctions of parts.

    The parts share half of their noise, as they share source networks. By the t interval alone, skewed noise would be
    contradicted in 5 % of studies.
    """
    rng, studies = np.random.default_rng(0), 600
    draw = partial(NOISES[noise], rng)
    effects = draw((studies, count, 10)) + (draw((studies, 1, 10)) if count > 1 else 0)
    words = [decide(parts({str(k): (one, 0.0) for k, one in enumerate(found)}, CLAIM)) for found in effects.tolist()]
    for word in ("supported", "contradicted"):
        # A count of 600 strays by 0.75 points: what is asked lies two of its standard deviations above 3.5 %.
        assert words.count(word) / studies <= 0.05
    if count == 1:
        assert set(words) == {"supported", "contradicted", "inconclusive"}  # the judge is not merely mute


def test_null_is_said_within_the_bound_alone():
    small = replace(CLAIM, bound=1.0)
    assert verdict(0.1, -0.2, 0.1, 0.0, -0.1, claim=small).verdict == "null"
    assert verdict(0.1, -0.2, 0.1, 0.0, -0.1, claim=replace(CLAIM, bound=0.0)).verdict == "inconclusive"
    assert verdict(3.9, -0.2, 0.1, 2.9, -2.9, claim=small).verdict == "inconclusive"
    assert verdict(0.4, 0.5, 0.4, 0.5, 0.6, claim=small).verdict == "supported"


def test_a_replicate_that_cannot_be_compared_is_left_out_and_counted():
    def gated(part):
        if part.value.iloc[0] < 0:
            raise OutOfRange("the base spans too little")
        return part.value.iloc[0]

    options = {"preset": "glyphs", "scope": "mechanism"}
    found = judge(CLAIM, gated, frame(5, 6, -1, 5, 6, 5), **options)
    assert (found.verdict, found.replicates, found.reason) == ("supported", 5, "5 of 6 replicates can be compared")
    found = judge(CLAIM, gated, frame(5, 6, -1, 5, -6, 5), **options)
    assert (found.verdict, found.reason) == ("not_judged", "out_of_range: 4 of 6 replicates can be compared, 5 must")


def test_what_cannot_fail_is_not_judged():
    assert verdict(5, 6, 5, 6, 5, claim=replace(CLAIM, certain="by construction")).reason == "certain: by construction"


def test_correlations_are_averaged_as_fishers_z():
    values = (0.9, 0.99, 0.5, 0.95, 0.8)
    found = verdict(*values, claim=replace(CLAIM, unit="correlation")).parts[0]
    z = interval(np.arctanh(values))
    assert (found.effect, found.low, found.high) == pytest.approx(np.tanh([z.effect, z.low, z.high]))
    assert found.high < 1


def test_a_p_value_is_below_a_twentieth_where_the_interval_excludes_the_margin():
    rng = np.random.default_rng(0)
    for k in range(300):
        noise = rng.exponential(1, 10) - 1 if k % 2 else rng.normal(0, 1, 10)
        sample = list(noise + rng.normal(0, 0.6))
        found = frames.interval(sample)
        assert (p_value({"": (sample, 0.0)}, CLAIM) < 0.05) == (found.low > 0 or found.high < 0)


def test_p_values_and_their_adjustment():
    rng = np.random.default_rng(0)
    sample = rng.normal(1, 1, 7).tolist()  # too few to see skewness by: Student's t alone
    two_sided = stats.ttest_1samp(sample, 0).pvalue
    assert p_value({"": (sample, 0.0)}, CLAIM) == pytest.approx(two_sided)
    other = rng.normal(5, 1, 7).tolist()
    assert p_value({"a": (sample, 0.0), "b": (other, 0.0)}, CLAIM) == pytest.approx(two_sided)  # the weaker one decides
    below = [-value for value in sample]
    assert p_value({"a": (below, 0.0), "b": (other, 0.0)}, CLAIM) == pytest.approx(2 * two_sided)  # two looks
    base = verdict(5, 6, 5, 6, 5)
    family = [replace(base, claim=f"U-C{k}", p=p) for k, p in ((1, 0.001), (2, 0.02), (3, 0.03), (5, 0.04))]
    assert [claims.adjusted(family)[f"U-C{k}"] for k in (1, 2, 3, 5)] == [
        ("supported", "supported"),
        *[("inconclusive", "supported")] * 3,  # Holm: 0.004, 0.06, 0.06, 0.06; Benjamini and Hochberg: all 0.04 or less
    ]
    alone = claims.adjusted([*family[1:2], replace(family[0], claim="LwF-C1", p=0.03)])
    assert set(alone.values()) == {("supported", "supported")}  # two studies, two families


def test_power_of_the_judge_matches_its_figure():
    """At ten replicates an effect of one standard deviation is found seven times in ten."""
    rng = np.random.default_rng(1)
    effects = 1.0 + rng.standard_normal((1000, 10))
    rate = np.mean([decide([part(values)]) == "supported" for values in effects.tolist()])
    expected = stats.nct.sf(stats.t.ppf(0.975, 9), 9, 10**0.5)  # by t alone; the bootstrap takes a tenth of it
    assert expected - 0.12 < rate < expected
    assert expected == pytest.approx(0.8, abs=0.03)


NEAR_ENDS = pd.DataFrame(
    [
        {"metric": metric, "arm": arm, "seed": seed, "value": value}
        for metric, arm, values in (
            ("clean_accuracy", "robust", (1.0, 0.98, 0.6)),
            ("clean_accuracy", "standard", (0.0, 0.3, 0.02)),
            ("generalisation_gap", "robust", (0.9, -0.2, 0.95)),
            ("loo_pearson", "robust", (0.99, 0.7, 1.0)),
            ("self_check_warnings", "robust", (3, 0, 1)),
            ("removal_measured", "robust", (-4.0, 9.0, 2.0)),
        )
        for seed, value in enumerate(values)
    ]
)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (lambda f: frames.mean(f, arm="robust"), None, 100),
        (lambda f: frames.mean(f, arm="standard"), 0, None),
        (lambda f: frames.lead(f), None, 100),
        (lambda f: -frames.lead(f), -100, None),
        (lambda f: 2 * frames.lead(f) - frames.lead(f, "standard", "robust"), None, 300),
        (lambda f: sum([frames.lead(f), frames.lead(f)]) / 2, None, 100),
        (lambda f: min(frames.mean(f, arm="robust"), frames.mean(f, arm="standard")), 0, None),
        (lambda f: 100 - frames.mean(f, arm="standard"), None, 100),
        (lambda f: frames.mean(f, "generalisation_gap"), -100, 100),
        (lambda f: frames.mean(f, "loo_pearson"), None, 100),
        (lambda f: frames.mean(f, "self_check_warnings"), 0, None),
        (lambda f: frames.mean(f, "removal_measured"), None, None),
        (lambda f: frames.mean(f.assign(value=f.value - 5), arm="robust"), None, None),  # no shares any more
    ],
)
def test_an_interval_ends_where_its_statistic_does(value, low, high):
    found, plain = frames.over_seeds(NEAR_ENDS, value), interval(frames.by_seed(NEAR_ENDS, value).tolist())
    assert found.effect == plain.effect
    assert found.low == (plain.low if low is None else low) >= plain.low
    assert found.high == (plain.high if high is None else high) <= plain.high


def test_arithmetic_with_ranges_changes_no_number():
    a, b = frames.Ranged(0.1 + 0.2, 0, 1), frames.Ranged(0.7, 0, 1)
    for found, plain in ((a + b, 0.3 + 4e-17 + 0.7), (a - b, 0.1 + 0.2 - 0.7), (3 * a, 3 * (0.1 + 0.2)), (a / 3, 0.1)):
        assert float(found) == pytest.approx(plain)
        assert type(found) is frames.Ranged
    assert float(a - b) == (0.1 + 0.2) - 0.7
    assert ((a - b).low, (a - b).high, (1 - a).low, (1 - a).high, (a / -2).low) == (-1, 1, 0, 1, -0.5)
    assert [type(one) for one in (a * 0.5, a / b, a + 0.5, 0.5 - a)] == [float] * 4
    assert copy.deepcopy(a).high == pickle.loads(pickle.dumps(a)).high == 1


@pytest.mark.parametrize(
    ("claim", "values", "low", "high"),
    [
        ("U-C1", (99.0, 60.0, 20.0), None, 100),
        ("U-C1", (-99.0, -60.0, -20.0), -100, None),
        ("U-C1", (150.0, 160.0, 170.0), None, 160),  # in another unit than the claim's: never past the mean
        ("NFD-C2", (99.0, 60.0, 20.0), None, None),  # log odds know no end
    ],
)
def test_a_verdict_has_no_interval_beyond_its_unit(claim, values, low, high):
    found, plain = verdict(*values, claim=claims.get(claim)), interval(values)
    assert found.low == (plain.low if low is None else low)
    assert found.high == (plain.high if high is None else high)
    assert found.parts[0].high == found.high
    assert found.effect == plain.effect


def test_a_shorter_interval_covers_as_often():
    rng = np.random.default_rng(0)
    for truth in (1.0, 50.0, 97.0, 99.7):  # per cent
        drawn = [100 * rng.binomial(200, truth / 100, 5) / 200 for _ in range(150)]
        for values in drawn:
            whole, cut = interval(values), interval(values, within=(0, 100))
            assert (whole.low <= truth <= whole.high) == (cut.low <= truth <= cut.high)
            assert 0 <= cut.low <= cut.effect <= cut.high <= 100


def test_one_replicate_more_is_expected_where_it_can_lie():
    plain, cut = frames.predicted([90.0, 99.0, 60.0]), frames.predicted([90.0, 99.0, 60.0], (-100, 100))
    assert plain.high > 100 == cut.high
    assert (cut.effect, cut.low) == (plain.effect, plain.low)


def test_figures_draw_the_same_ends():
    shown = frames.per_replicate(NEAR_ENDS[NEAR_ENDS.metric == "clean_accuracy"], "arm")
    for found in (shown, shown.sort_values("arm"), shown[shown.arm != "other"]):
        ax = plots.ladder(found, "arm")
        ends = [y for line in ax.lines for y in line.get_ydata()]
        assert max(ends) == 100
        assert min(ends) == 0
        plt.close(ax.figure)
    ax = plots.ladder(frames.paired(NEAR_ENDS[NEAR_ENDS.metric == "clean_accuracy"]).assign(what="lead"), "what")
    assert max(y for line in ax.lines for y in line.get_ydata()) == 100
    plt.close(ax.figure)
