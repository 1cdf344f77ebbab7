"""What becomes of robustness on the way? The study behind notebook 05 (Shafahi et al. 2020)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from rtkit import evaluation, methods, presets, robustness, studies
from rtkit.adversaries import Adversary
from rtkit.data.glyphs import World
from rtkit.methods import Method
from rtkit.presets import Preset
from rtkit.sources import Source
from rtkit.studies import students
from rtkit.studies.students import Student
from rtkit.threat import ThreatModel
from rtkit.training import Phase

STUDY = "retention"
MODULES = (*students.MODULES, "studies/retention")
EPS = 4 / 255  # training radius of the robust source
THREAT = ThreatModel("linf", EPS)  # under which every student is judged
TARGET, AMPLITUDE = "digits_cued", 8 / 255  # the target and the strength of its texture, which is always right
MAIN_SHAPE = 0.85  # how often a digit is its label's own: as the source's letters are
ATTACK_STEPS, N_TEST = 10, 300  # of either attack; test images attacked
LAMBDA = 0.15  # of learning without forgetting, where it appears once
LOW_DATA = 100  # images
HEAD_SHARE = 0.2  # of the steps, on the head alone, before learning without forgetting begins
DEPTHS = ("last_block", "last_stage", "last_two_stages", "full_network")
# One grid for every arm; `tuning` shows the search, by clean validation accuracy, as somebody would who trains on
# natural images and does not look at robustness.
LEARNING_RATE_GRID = (0.03, 0.1, 0.3)
LEARNING_RATES = {
    "head": 0.3,
    "head, statistics adapt": 0.3,
    "mlp": 0.3,
    "last_block": 0.03,
    "last_stage": 0.03,
    "last_two_stages": 0.03,
    "full_network": 0.1,
    "last_stage, statistics frozen": 0.03,
    "lwf": 0.3,
    "adversarial, from scratch": 0.3,
    "adversarial, fine-tuned": 0.1,
}
TUNING_SEEDS = (100, 101)


@dataclass(frozen=True)
class Plan:
    """How much of the study a preset runs.

    Args:
        n_train, steps: target images and SGD steps of a student.
        shapes: how often a digit is its label's own, the headline's axis.
        lambdas: of learning without forgetting, in the main regime.
        low_data: image counts of the comparison with adversarial training.
        extended: every depth at every shape, BatchNorm's policies, two hidden layers, the standard source in every arm
            and adversarial fine-tuning, in the first three replicates.
    """

    n_train: int = 900
    steps: int = 200
    shapes: tuple[float, ...] = (0.7, MAIN_SHAPE, 1.0)
    lambdas: tuple[float, ...] = (LAMBDA,)
    low_data: tuple[int, ...] = (LOW_DATA,)
    extended: bool = False


PLANS = {
    "smoke": Plan(40, 4, (MAIN_SHAPE, 1.0), low_data=(20,)),
    "glyphs": Plan(),
    "glyphs-full": Plan(
        shapes=(0.7, 0.775, MAIN_SHAPE, 0.925, 1.0),
        lambdas=(0.005, 0.015, 0.05, LAMBDA, 0.5),
        low_data=(50, LOW_DATA, 300, 900),
        extended=True,
    ),
}


def method(name: str, steps: int, lr: float, weight: float = LAMBDA) -> Method:
    """A method by the name that the frame gives it.

    Frozen layers keep their BatchNorm statistics, as in the authors' code, unless the name says that they adapt.

    Args:
        weight: lambda_d of learning without forgetting.

    Raises:
        ValueError: there is none of that name.
    """
    budget = {"steps": steps, "lr": lr, "batch_size": 50}
    base, _, policy = name.partition(", statistics ")
    if base in ("head", "mlp", "mlp 2"):
        hidden = {"head": (), "mlp": (64,), "mlp 2": (64, 64)}[base]
        phase = Phase(trainable=0, batchnorm="adapt" if policy == "adapt" else "frozen", **budget)
        return Method("source", (phase,), hidden)
    if base == "lwf":
        return methods.lwf(weight=weight, warmup_steps=max(1, int(HEAD_SHARE * steps)), batchnorm="frozen", **budget)
    if base.startswith("adversarial"):
        phase = Phase(adversary=Adversary("pgd", THREAT, steps=2), **budget)
        return Method("random" if base.endswith("scratch") else "source", (phase,))
    found = methods.transfer(base, **budget)
    return replace(found, phases=(replace(found.phases[0], batchnorm="adapt" if policy != "frozen" else "frozen"),))


@dataclass(frozen=True)
class Arms:
    """Makes the students of one replicate."""

    preset: Preset
    plan: Plan
    seed: int
    study: str = STUDY

    def student(
        self,
        name: str,
        source: str = "robust",
        shape: float = MAIN_SHAPE,
        n: int = 0,
        weight: float = LAMBDA,
        target: str = TARGET,
        lr: float = 0.0,
    ) -> Student:
        """A student of a method (see `method`), from the robust or the standard source."""
        network = Source.of(self.preset, source, EPS if source == "robust" else 0.0, self.seed)
        n = n or (network.n_source if target == "source" else self.plan.n_train)
        lr = lr or LEARNING_RATES["mlp" if name == "mlp 2" else name]
        world = World(texture_amplitude=AMPLITUDE, shape_reliability=shape)
        knobs = (("shape_reliability", shape), ("weight", weight if name == "lwf" else 0.0))
        made = method(name, self.plan.steps, lr, weight)
        return Student(self.study, name, made, network, self.seed, target, n, world, knobs)


def _replicate(preset: Preset, plan: Plan, seed: int, targets: Sequence[str]) -> list[Student]:
    arms = Arms(preset, plan, seed)
    main = ("head", "full_network", "lwf")
    made = [arms.student(name, shape=shape) for shape in plan.shapes for name in main]
    made += [arms.student(name) for name in (*DEPTHS, "mlp")]
    made += [arms.student(name, "standard") for name in main]
    made += [arms.student(name, n=n) for n in plan.low_data for name in ("head", "adversarial, from scratch")]
    made.append(arms.student("lwf", target="source"))
    made += [arms.student("lwf", weight=weight) for weight in plan.lambdas]
    for target in targets:
        n = studies.sizes((plan.n_train,), target, preset.world, seed)[0]
        made += [arms.student(name, source, n=n, target=target) for name in main for source in ("robust", "standard")]
    if plan.extended and seed in preset.seeds[:3]:
        made += [arms.student(name, shape=shape) for shape in plan.shapes for name in DEPTHS]
        made += [arms.student(name) for name in ("mlp 2", "head, statistics adapt", "last_stage, statistics frozen")]
        made += [arms.student(name, "standard") for name in (*DEPTHS, "mlp", "mlp 2")]
        made += [arms.student("adversarial, fine-tuned", n=n) for n in plan.low_data]
        made.append(arms.student("full_network", target="source"))
    return list(dict.fromkeys(made))


def _measure(student: Student) -> Iterator[dict]:
    done = students.trained(student)
    yield from students.clean_rows(student, done)
    yield student.row("collapsed", float(student.source.load()[1]["collapsed"]), 64)
    yield from _attacked(student, done.net, done.task.test)
    if student.target == "source":
        net, test = student.source.load()[0], done.task.test
        yield student.row("clean_accuracy", evaluation.accuracy(net, test), len(test), method="source itself")
        yield from _attacked(student, net, test, method="source itself")


def _attacked(student: Student, net, test, **more) -> Iterator[dict]:
    test = test[: min(N_TEST, student.source.n_source // 10)]
    found = robustness.robustness(net, test, THREAT, steps=ATTACK_STEPS, seed=student.seed)
    yield student.row("robust_accuracy", found.robust, found.n_test, **more)
    yield student.row("self_check_warnings", len(found.warnings), found.n_test, **more)


def rows(student: Student) -> list[dict]:
    """The rows of one student, from the cache or computed."""
    return students.cached(student, MODULES, _measure)


def is_cached(student: Student) -> bool:
    """Whether `rows` would only have to read."""
    return students.is_cached(student, MODULES)


def plan(preset: str, seeds: Sequence[int] | None = None, targets: Sequence[str] = ()) -> list[Student]:
    """All students of the study at a preset, without training any; `targets` as in `run`."""
    chosen, size = presets.get(preset), studies.size(STUDY, PLANS, preset)
    found = [_replicate(chosen, size, seed, targets) for seed in presets.replicates(chosen, seeds)]
    return [student for replicate in found for student in replicate]


def run(preset: str = "glyphs", seeds: Sequence[int] | None = None, targets: Sequence[str] = ()) -> pd.DataFrame:
    """Make the frame of the study, student by student; what is in the cache is read.

    Args:
        targets: data sets by name; on each the main methods are run, from either source.

    Returns:
        The columns of `Student.row`, and `shape_reliability` (of the target) and `weight` (lambda_d). Accuracies are
        fractions, robust ones under `THREAT`.

    Raises:
        ValueError: there is no such preset or target, or the seeds are no whole numbers.
    """
    return studies.frame(preset, plan(preset, seeds, targets), rows, is_cached)


def _validation(student: Student) -> tuple[float, float]:
    done = students.trained(student)
    held_out = done.task.validation
    attacked = robustness.robustness(done.net, held_out[:150], THREAT, steps=10, seed=student.seed)
    return evaluation.accuracy(done.net, held_out), attacked.robust


def tuning(preset: str = "glyphs") -> pd.DataFrame:
    """Clean and robust validation accuracy in percent by method, lambda_d and learning rate, on the tuning seeds.

    The study takes the rate of the highest clean accuracy, the smaller where two tie, and of the lambdas the one whose
    mean over clean and robust accuracy is highest.
    """
    chosen, size = presets.get(preset), PLANS[preset]
    every = [(name, LAMBDA, lr) for name in LEARNING_RATES for lr in LEARNING_RATE_GRID]
    every += [("lwf", weight, LEARNING_RATES["lwf"]) for weight in PLANS["glyphs-full"].lambdas if weight != LAMBDA]
    made = [
        Arms(chosen, size, seed, "tuning").student(name, weight=weight, lr=lr)
        for seed in TUNING_SEEDS
        for name, weight, lr in every
    ]
    needed = list(dict.fromkeys(student.source for student in made))
    _, found = studies.spread((studies.load_source, needed, "source networks"), (_validation, made, "students"))
    index = pd.MultiIndex.from_tuples(every * len(TUNING_SEEDS), names=["method", "lambda_d", "lr"])
    return 100 * pd.DataFrame(found, index=index, columns=["clean", "robust"]).groupby(level=[0, 1, 2]).mean()
