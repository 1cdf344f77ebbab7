"""Checks of the notebooks' warm-up exercises: they say whether an answer is right, and if not, what to look at."""


def _say(right: bool, hint: str) -> bool:
    print("Right." if right else f"Not yet: {hint}")
    return right


def at_least_one_false(share: float | None) -> bool:
    """Notebook 07: the share of worlds without effects in which at least one of twenty claims gets a false verdict."""
    right = 1 - 0.95**20
    if share is None:
        return _say(False, "put a number or a formula in place of None.")
    if abs(share - 1) < 1e-9:
        return _say(False, "that is the expected number of false verdicts; asked is how often there is one or more.")
    if abs(share - 0.95**20) < 5e-3:
        return _say(False, "that is the share of worlds in which all twenty are right.")
    return _say(abs(share - right) < 5e-3, "how often are all twenty right, if one is right in 95 cases of 100?")
