"""Accuracy against robustness: the study behind notebook 06 (Cao et al. 2022, Song et al. 2021, Zhu et al. 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from rtkit import evaluation, methods, presets, studies
from rtkit.data.glyphs import World
from rtkit.methods import Method
from rtkit.objectives import Term
from rtkit.presets import Preset
from rtkit.sources import Source
from rtkit.studies import students
from rtkit.studies.students import Student
from rtkit.studies.tradeoff_cells import accuracy, is_cached, rows
from rtkit.training import Phase

STUDY = "tradeoff"
MAIN_EPS = 2 / 255  # training radius of what appears at one radius only
TRADES_EPS = 4 / 255  # whose knob is beta
ATTACK_STEPS = 2  # of training
KERNEL_STEPS = 15  # of ARKS, the authors' number: fewer never leave the middle of the kernel, whatever its width
MAIN_BETA = 3.0  # of TRADES where it is taught
WEIGHTS = (1.0, 3.0)  # of either of VFD's distances: a knob of its own, so no weight is chosen
MAIN_WEIGHT = 3.0  # in the ablation
LOGITS_WEIGHT = 1.0  # see `tuning`
SMOOTHING = 0.3  # of RAT's labels at distance eps
SETTLED, LOW = 0.2, 0.02  # share of the training spent at a constant small rate; that rate as a share of the peak
LEARNING_RATE_GRID = (0.1, 0.2, 0.4)
LEARNING_RATE = 0.4  # of all arms, see `tuning`
WEIGHT_GRID = (0.3, 1.0, 3.0)
TUNING_SEEDS = (100, 101)


@dataclass(frozen=True)
class Plan:
    """How much of the study a preset runs.

    Args:
        steps: SGD steps of each network.
        radii: training radii of PGD-AT, the knob of its frontier; zero is standard training.
        betas: of TRADES, its knob; none leaves TRADES out.
        sigmas: widths of the ARKS kernel, l2; none leaves it out.
        replicates: where no seeds are named; a network costs the better part of a minute.
        extended: the ablations of the teacher, MART and RAT as well, and a smaller weight.
    """

    steps: int = 240
    radii: tuple[float, ...] = (0.0, 1 / 255, 2 / 255, 4 / 255)
    betas: tuple[float, ...] = ()
    sigmas: tuple[float, ...] = ()
    replicates: int = 3
    extended: bool = False


PLANS = {
    "smoke": Plan(6, (0.0, MAIN_EPS)),
    "glyphs": Plan(),
    "glyphs-full": Plan(betas=(1.0, MAIN_BETA, 6.0), sigmas=(0.5, 1.0, 2.0), replicates=5, extended=True),
}


def both(distance: str, weight: float) -> tuple[Term, Term]:
    """A teacher's distance on clean and on attacked images."""
    return Term(distance, weight), Term(distance, weight, on="attacked")


def settled(phase: Phase) -> tuple[Phase, Phase]:
    """Split a phase: its schedule first, then a share at a small constant rate, in which a converged network rests."""
    rest = max(1, round(SETTLED * phase.steps))
    # The adversary's radius has grown by then.
    adversary = replace(phase.adversary, warmup=0.0) if phase.adversary else None
    last = replace(phase, steps=rest, lr=LOW * phase.lr, schedule="constant", adversary=adversary)
    return replace(phase, steps=max(1, phase.steps - rest)), last


@dataclass(frozen=True)
class Arms:
    """Makes the students of one replicate, all with the same budget."""

    preset: Preset
    steps: int
    seed: int
    study: str = STUDY

    def student(
        self,
        name: str,
        base: str,
        eps: float,
        knob: float,
        lr: float = LEARNING_RATE,
        teacher: str = "standard",
        teach: tuple[Term, ...] = (),
        **options,
    ) -> Student:
        """A student of `methods.adversarial`, or of standard training at eps zero.

        Args:
            knob: what its base's frontier is drawn over.
            lr: peak learning rate.
            teacher: kind of the source network that it is taught by, if `teach` says how.
        """
        source = Source.of(self.preset, teacher, 0.0 if teacher == "standard" else 4 / 255, self.seed)
        if eps:
            attack_steps = KERNEL_STEPS if base == "arks" else ATTACK_STEPS
            method = methods.adversarial(
                base, eps, steps=self.steps, lr=lr, attack_steps=attack_steps, teach=teach, **options
            )
        else:
            method = Method("random", methods.source("standard", 0.0, self.steps, lr))
        method = replace(method, phases=settled(method.phases[0]))
        knobs = (("knob", knob), ("teacher", teacher if teach else "none"))
        knobs += (("weight", teach[0].weight if teach else 0.0),)
        return Student(self.study, name, method, source, self.seed, "source", source.n_source, World(), knobs)


def _replicate(preset: Preset, plan: Plan, seed: int) -> list[Student]:
    arms = Arms(preset, plan.steps, seed)
    main = {"eps": MAIN_EPS, "knob": 255 * MAIN_EPS}

    def vfd(name: str, base: str, weights: Sequence[float] = WEIGHTS, **options) -> list[Student]:
        return [arms.student(name, base, teach=both("features", weight), **options) for weight in weights]

    made = [arms.student("pgd_at", "pgd_at", eps, 255 * eps) for eps in plan.radii]
    made += vfd("pgd_at+vfd", "pgd_at", **main)
    if plan.betas:
        trades = {"eps": TRADES_EPS, "knob": MAIN_BETA, "beta": MAIN_BETA}
        made += [arms.student("trades", "trades", TRADES_EPS, beta, beta=beta) for beta in plan.betas]
        made += vfd("trades+vfd", "trades", **trades)
    if plan.extended:
        distances = both("features", MAIN_WEIGHT)
        made += vfd("pgd_at+vfd", "pgd_at", WEIGHT_GRID[:1], **main)
        made += [
            arms.student("clean images only", "pgd_at", teach=distances[:1], **main),
            arms.student("attacked images only", "pgd_at", teach=distances[1:], **main),
            arms.student("logits", "pgd_at", teach=both("logits", LOGITS_WEIGHT), **main),
            arms.student("robust teacher", "pgd_at", teach=distances, teacher="robust", **main),
            arms.student("mart", "mart", **main),
            arms.student("region", "rat", **main),
            arms.student("rat", "rat", smoothing=SMOOTHING, **main),
        ]
    return made + [arms.student("arks", "arks", sigma, sigma) for sigma in plan.sigmas]


def plan(preset: str, seeds: Sequence[int] | None = None) -> list[Student]:
    """All students of the study at a preset, without training any."""
    chosen, size = presets.get(preset), studies.size(STUDY, PLANS, preset)
    seeds = presets.replicates(chosen, seeds or chosen.seeds[: size.replicates])
    return list(dict.fromkeys(student for seed in seeds for student in _replicate(chosen, size, seed)))


def run(preset: str = "glyphs", seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """Make the frame of the study, student by student; what is in the cache is read.

    Returns:
        The columns of `Student.row`, and `knob` (training radius in 255ths, beta or sigma), `teacher`, its `weight`,
        `checkpoint` ("last", or "best" on validation images). Accuracies are fractions, robust ones under
        `tradeoff_cells.THREAT`.

    Raises:
        ValueError: there is no such preset, or the seeds are no whole numbers.
    """
    return studies.frame(preset, plan(preset, seeds), rows, is_cached)


def _validation(student: Student) -> tuple[float, float]:
    """Clean and robust accuracy of a student on validation images."""
    done = students.trained(student)
    return evaluation.accuracy(done.net, done.task.validation), accuracy(done.net, done.task.validation)


def tuning(preset: str = "glyphs") -> pd.DataFrame:
    """Clean and robust validation accuracy in percent by what is taught, weight and learning rate, on the tuning seeds.

    RAT, which has no teacher, is tried at each rate as well.

    The study takes the rate, one for all arms, and for logits the weight, whose mean over both accuracies is highest.
    Of the features' weights it judges two, of which one hardly and one clearly moves clean accuracy here.
    """
    chosen, size = presets.get(preset), PLANS[preset]
    settings = [(taught, float(taught != "none"), lr) for taught in ("none", "features") for lr in LEARNING_RATE_GRID]
    settings += [("features", w, LEARNING_RATE) for w in WEIGHT_GRID if w != 1]
    settings += [("logits", w, LEARNING_RATE) for w in WEIGHT_GRID]
    settings += [("rat", 0.0, lr) for lr in LEARNING_RATE_GRID]
    base = {"rat": {"base": "rat", "smoothing": SMOOTHING}}
    made = [
        Arms(chosen, size.steps, seed, "tuning").student(
            distance,
            eps=MAIN_EPS,
            knob=255 * MAIN_EPS,
            lr=lr,
            teach=both(distance, weight) if weight else (),
            **base.get(distance, {"base": "pgd_at"}),
        )
        for seed in TUNING_SEEDS
        for distance, weight, lr in settings
    ]
    needed = list(dict.fromkeys(student.source for student in made))
    _, found = studies.spread((studies.load_source, needed, "source networks"), (_validation, made, "students"))
    index = pd.MultiIndex.from_tuples(settings * len(TUNING_SEEDS), names=["taught", "weight", "lr"])
    frame = 100 * pd.DataFrame(found, index=index, columns=["clean", "robust"])
    return frame.groupby(level=[0, 1, 2]).mean().assign(mean=lambda table: table.mean(axis=1))
