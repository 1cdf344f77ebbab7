"""What figures and sentences call things, and the colour and marker that each has everywhere."""

import tomllib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

SHAPES = ("digits", "lower", "greek")  # targets on which shape alone decides
TEXTURED = "digits_textured"  # the target with a fine cue of its own
DOSES, LEAD_DOSE = (0, 8, 14), 8  # grey levels of the texture in 02's worlds, and where its leads are judged
HOME_DOSE = 6  # and where those of 01 are, since the second version of its protocol
PHOTOS = ("mnist", "fashion_mnist", "cifar10", "kmnist", "svhn")  # data sets that judge sources of real images

TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_NAMES = {value: name for table in TABLES.values() for value, name in table.items()}

# Okabe and Ito's colours, told apart by readers with any common kind of colour blindness; markers say it once more.
WHEEL = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKS = ("o", "D", "s", "v", "^", "P", "X", "*")
COLOURS = {"standard": "#0072B2", "noise": "#009E73", "randomised": "#E69F00", "robust": "#D55E00"}
COLOURS |= {"untrained": "#7F7F7F", "scratch": "#CC79A7", "from scratch": "#CC79A7"}
MARKERS = {"standard": "o", "noise": "s", "robust": "D", "randomised": "^", "untrained": "X"}
MARKERS |= {"scratch": "v", "from scratch": "v"}


def name(value) -> str:
    """What a reader sees for a value of a frame: "digits (real)" for "digits"; a reader's own data set as it is."""
    return _NAMES.get(value, str(value))


def eps(value: float) -> str:
    """A radius in grey levels, such as "4/255"."""
    return f"{255 * value:g}/255"


def named(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The frame with readable values in some columns, as ordered categories: in the order of these tables."""
    for column in columns:
        order = in_order(frame[column].unique())
        labels = [name(value) for value in order]
        frame = frame.assign(**{column: pd.Categorical(frame[column].map(name), list(dict.fromkeys(labels)))})
    return frame


def in_order(values: Iterable) -> list:
    """Values without repetition, in the order in which figures show them; those without a place last, as they come."""
    there = list(dict.fromkeys(values))
    known = [value for value in (*COLOURS, *_NAMES) if value in there]
    return list(dict.fromkeys([*known, *there]))


def looks(values: Iterable) -> tuple[dict, dict]:
    """A colour and a marker for each value: the fixed ones of source networks, else the next that is free."""
    colours, markers = {}, {}
    for k, value in enumerate(values):
        colours[value] = COLOURS.get(value, WHEEL[k % len(WHEEL)])
        markers[value] = MARKERS.get(value, MARKS[k % len(MARKS)])
    return colours, markers
