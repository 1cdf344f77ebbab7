"""Checks of the notebooks' warm-up exercises: they say whether an answer is right, and if not, what to look at."""


def _say(right: bool, hint: str) -> bool:
    print("Right." if right else f"Not yet: {hint}")
    return right
