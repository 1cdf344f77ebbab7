"""The cells of notebook 05: what a student is right on, clean and under attack."""

from collections.abc import Iterator

from rtkit import compute, evaluation, models, robustness
from rtkit.measure import students
from rtkit.measure.students import THREAT, Student, Trained
from rtkit.training import History, train

N_TEST, N_BESIDE = 120, 100  # test images attacked; of the source's own task, and of targets without a cue, fewer


def trained(student: Student) -> Trained:
    """Train a student, or take its source itself where it has no phases.

    Unlike `students.trained` it watches no epoch: with few images that would be most of the work.
    """
    task, way, network = student.task(), student.method, student.source.load()[0]
    if not way.phases:
        return Trained(network, task, History(), 0.0)
    classes, seed = len(task.classes), student.seed
    if way.init == "source":
        net = models.with_new_head(network, classes, seed, way.hidden)
    else:
        net = models.create(classes, student.source.architecture, seed + 10**5, way.hidden)
    images = task.pool if student.target == "source" else task.subset(student.n_train, seed)
    with compute.stopwatch() as seconds:
        history = train(net, images, way.phases, seed, reference=network)
    return Trained(net, task, history, seconds())


def rows(student: Student) -> Iterator[dict]:
    """Compute the rows of one student; one without phases is its source itself, on the task that it learned."""
    done = trained(student)
    yield from students.clean_rows(student, done)
    yield student.row("collapsed", float(student.source.load()[1]["collapsed"]), 64)
    most = N_BESIDE if student.target in ("source", "digits", "lower") else N_TEST
    test = done.task.test[: min(most, student.source.n_source // 10)]
    for metric, value in students.attacked(student, done.net, test):
        yield student.row(metric, value, len(test))
    checked = robustness.robustness(done.net, test[: len(test) // 3], THREAT, steps=5, seed=student.seed)
    yield student.row("self_check_warnings", len(checked.warnings), checked.n_test)


def validation(student: Student) -> Iterator[dict]:
    """Clean and robust accuracy of a student on validation images: what learning rates and lambda are chosen by."""
    done = trained(student)
    images = done.task.validation
    attacked = robustness.robustness(done.net, images[:150], THREAT, steps=10, seed=student.seed)
    yield student.row("clean", evaluation.accuracy(done.net, images), len(images))
    yield student.row("robust", attacked.robust, attacked.n_test)
