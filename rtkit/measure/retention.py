"""The cells of notebook 05: what a student is right on, clean and under attack."""

from collections.abc import Iterator

from rtkit import evaluation, robustness
from rtkit.measure import students
from rtkit.measure.students import THREAT, Student

N_TEST = 300  # test images attacked


def rows(student: Student) -> Iterator[dict]:
    """Compute the rows of one student; one on the source's own task brings those of the source itself."""
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
    for metric, value in students.attacked(student, net, test):
        yield student.row(metric, value, len(test), **more)
    checked = robustness.robustness(net, test[: len(test) // 3], THREAT, steps=5, seed=student.seed)
    yield student.row("self_check_warnings", len(checked.warnings), checked.n_test, **more)


def validation(student: Student) -> Iterator[dict]:
    """Clean and robust accuracy of a student on validation images: what learning rates and lambda are chosen by."""
    done = students.trained(student)
    images = done.task.validation
    attacked = robustness.robustness(done.net, images[:150], THREAT, steps=10, seed=student.seed)
    yield student.row("clean", evaluation.accuracy(done.net, images), len(images))
    yield student.row("robust", attacked.robust, attacked.n_test)
