"""The cells of notebook 05: what a student is right on, clean and under attack."""

from collections.abc import Iterator

from rtkit import evaluation, robustness
from rtkit.measure import students
from rtkit.measure.students import THREAT, Student
from rtkit.training import History

N_TEST, N_BESIDE = 200, 100  # test images attacked; of the source's own task, and of targets without a cue, fewer


def rows(student: Student) -> Iterator[dict]:
    """Compute the rows of one student; one without phases is its source itself, on the task that it learned."""
    if student.method.phases:
        done = students.trained(student)
    else:
        done = students.Trained(student.source.load()[0], student.task(), History(), 0.0)
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
    done = students.trained(student)
    images = done.task.validation
    attacked = robustness.robustness(done.net, images[:150], THREAT, steps=10, seed=student.seed)
    yield student.row("clean", evaluation.accuracy(done.net, images), len(images))
    yield student.row("robust", attacked.robust, attacked.n_test)
