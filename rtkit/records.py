"""What the studies found, as it lies on disk: frames, records, and the scorecard made of them. Imports no torch."""

import tomllib
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import pandas as pd
from scipy import stats

from rtkit import DRAWN, PRESETS, PUBLISHED, SCOPES, STUDIES, claims, protocols, store
from rtkit.claims import Verdict
from rtkit.frames import Interval
from rtkit.judge import Judge, rows_code

REAL = "photos"  # the preset of real images that the kit has results for
SECOND = "tiny-imagenet"  # the same with another source
EXPLORED = "cifar-small"  # what the first was called before, when it was explored


def path(study: str, preset: str, folder: Path | None = None) -> Path:
    """Where a study's record lies: under runs/ the reader's own, under results/ those that come with the kit."""
    return (folder or store.RUNS / "records") / preset / f"{study}.json"


class Made(tuple):
    """How cells were made, a dict for each way. Never copied: pandas copies the `attrs` of a frame at every step."""

    def __deepcopy__(self, _):
        return self


def summary(cells: Iterable[dict]) -> Made:
    """How some cells (`store.cell`) were made: one entry for each code, number format, machine and set of versions."""
    found = {}
    for one in cells:
        made = {"code": one["code"], "compute": one["config"].get("compute", "")} | one["made"]
        when, seconds = made.pop("when"), made.pop("seconds")
        entry = found.setdefault(store.to_json(made), made | {"cells": 0, "seconds": 0.0, "first": when, "last": when})
        entry["cells"] += 1
        entry["seconds"] = round(entry["seconds"] + seconds, 2)
        entry |= {"first": min(entry["first"], when), "last": max(entry["last"], when)}
    return Made(found.values())


def upgraded(made: Iterable[dict]) -> list[str]:
    """With which other versions than those at hand some cells were computed, of what draws images and does sums."""
    here = store.versions()
    return sorted({f"{name} {one[name]} (here {here[name]})" for one in made for name in ("torch", "numpy", "pillow")
                   if one[name] != here[name]})  # fmt: skip


def frame(study: str, preset: str, folder: Path | None = store.RESULTS) -> pd.DataFrame | None:
    """The frame of a study that comes with the kit, or None where there is none at this preset; `attrs` say so."""
    where = path(study, preset, folder).with_suffix(".csv.gz")
    if not where.exists():
        return None
    found, run = store.load_frame(where), "kit" if folder == store.RESULTS else "mine"
    made = Made(store.load_record(path(study, preset, folder))["made"])
    found.attrs = {"study": study, "preset": preset, "run": run, "changed": {}, "made": made}
    return _as_registered(found)


def _as_registered(found: pd.DataFrame) -> pd.DataFrame:
    """A frame, marked as changed where cells of its notebook judge photographs otherwise than was registered."""
    study, preset = found.attrs["study"], found.attrs["preset"]
    if protocols.current(study, preset) and "photographs" in protocols.since(study, preset):
        found.attrs["changed"] = found.attrs["changed"] | {"the judging of photographs": ()}
    return found


def published(name: str, query: str = "") -> pd.DataFrame:
    """Numbers that others have published, in the columns of a study's frame.

    `attrs["unit"]` says what an interval is over; sources.toml beside them has paper, commit, terms and traps.

    Args:
        name: a frame of results/published/; query: which of its rows, as `DataFrame.query` takes it.
    """
    folder = store.RESULTS / PUBLISHED
    source = tomllib.loads((folder / "sources.toml").read_text(encoding="utf-8"))[name]
    found = store.load_frame(folder / f"{name}.csv.gz")
    found = found.query(query) if query else found
    found.attrs = {"study": source["study"], "preset": PUBLISHED, "run": "kit", "unit": source["unit"]}
    return found


def any_frame(study: str) -> pd.DataFrame | None:
    """The kit's frame of a study at the first preset that it has one for."""
    return next((found for preset in STUDIES[study][1] if (found := frame(study, preset)) is not None), None)


def worlds(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The frame that tells a notebook's story, of the glyph world, and the one of real images.

    One is `found`, the run at hand; the other comes with the kit, and may be None for real images.
    """
    study, preset = found.attrs["study"], found.attrs["preset"]
    found = found[found.seed != found.attrs.get("live", -1)]  # one replicate more is no part of the story
    return (found, photographs(study)) if preset in DRAWN else (frame(study, "glyphs"), found)


def sides(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The frame that the sections of a notebook tell of and judge, and that of photographs.

    At a preset of photographs the run at hand is theirs, and that of letters comes with the kit; else it is the first,
    and photographs come with the kit (None where it has none). A replicate of a live run stays in it.
    """
    study = found.attrs["study"]
    letters = found.attrs["preset"] not in (REAL, SECOND)
    return (found, photographs(study)) if letters else (frame(study, "glyphs"), _as_registered(found))


def photographs(study: str) -> pd.DataFrame | None:
    """The kit's frame of real images, or what was explored of them earlier, on which no verdict rests."""
    found = frame(study, REAL)
    if found is None and (found := frame(study, EXPLORED, store.RESULTS / "explored")) is not None:
        found.attrs["preset"] = REAL  # as the preset is called now
    return found


def publish(judge: Judge, folder: Path | None = None) -> None:
    """Keep a study's frame with its record, by default under runs/.

    What the kit's own run says stays where it is, and a run with changed knobs or a live replicate is no record.
    """
    facts = judge.frame.attrs
    if folder is None and (facts["run"] == "kit" or any(facts.get("changed", {}).values()) or "live" in facts):
        return
    study, preset, found = judge.study, judge.preset, judge.frame
    where = path(study, preset, folder)
    kept = store.load_record(where) if folder and where.exists() else {}
    record = {"study": study, "preset": preset, "seeds": sorted({int(seed) for seed in found.seed})}
    record |= {"reading": protocols.reading(study), "made": list(facts.get("made", ()))}
    protocol = protocols.current(study, preset)
    record |= {"protocol": protocol["hash"]} if protocol and protocols.status(found) == "confirmatory" else {}
    record |= {"data": kept["data"]} if "data" in kept else _data(preset, found) if not folder else {}
    record |= {"verdicts": {name: verdict.to_dict() for name, verdict in judge.verdicts.items()}}
    record |= {"collapsed": judge.collapsed, "controls": [asdict(one) for one in judge.controls]}
    if not folder:  # a frame that is only judged anew stays as it was
        store.save_frame(found, where.with_suffix(".csv.gz"))
    store.save_record(where, record)


def _data(preset: str, found: pd.DataFrame) -> dict:
    """The data sets of real images that a frame rests on: how many images each has, and their hash."""
    from rtkit import presets
    from rtkit.data import named

    size, facts = getattr(presets.get(preset).world, "size", 32), {}
    there = {getattr(presets.get(preset).world, "name", ""), *found[found.n_train > 0].target}
    for name in sorted(there & set(named.names()) - set(named.TAKEN)):
        arrays = named.arrays(name, size)
        facts[name] = {part: len(arrays[f"y_{part}"]) for part in ("train", "test")}
        facts[name]["sha256"] = named.fingerprint(name, size)
    return {"data": facts} if facts else {}


def compare(study: str, preset: str) -> str:
    """How one's own run of a study agrees with the kit's, number by number; "" where one of the two is missing."""
    kit, own = frame(study, preset), frame(study, preset, None)
    if kit is None or own is None:
        return ""
    same = [name for name in kit if name not in ("value", "seconds", "gradients", "n_test")]
    alike = [name for name in same if name not in ("cell", "seed", "source_seed")]
    over = kit.groupby(alike, dropna=False).value
    n, half = over.transform("size"), over.transform("std") * over.transform("size").add(1).pow(0.5)
    kit = kit.assign(centre=over.transform("mean"), half=half * stats.t.ppf(0.975, n - 1) / n**0.5)
    both = kit.merge(own[[*same, "value"]], on=same, suffixes=("", "_own"))
    equal = both.value == both.value_own
    inside = ~((both.value_own - both.centre).abs() > both.half) & ~equal
    return (
        f"{study}: {both.cell.nunique()} of {kit.cell.nunique()} cells; of {len(both)} numbers {equal.sum()} are equal "
        f"bit for bit, {inside.sum()} lie where the kit's replicates lead one to expect them, "
        f"{len(both) - equal.sum() - inside.sum()} outside (expected of one replicate more: one in twenty)"
    )


@dataclass(frozen=True)
class Record:
    """One study at one preset: whose run it was ("kit" or "yours"), what it found, how its cells were `made` (see
    `summary`), and whether this code computed them and read them."""

    origin: str
    study: str
    preset: str
    seeds: tuple[int, ...]
    computed_by_this: bool
    read_by_this: bool
    made: tuple[dict, ...]
    verdicts: dict[str, Verdict]
    controls: tuple[dict, ...] = ()


def load(study: str, preset: str, origin: str = "yours") -> Record | None:
    """Read the record of a study at a preset, or None where there is none.

    Its `origin` is "yours", "kit", or "explored": seeds after which rules were changed, on which no verdict rests; or
    "superseded": what a registered protocol found before a later version of it.

    One that is damaged, or was written by a version of the kit with other fields, is passed over with a warning.
    """
    where = path(study, preset, {"kit": store.RESULTS, "yours": None}.get(origin, store.RESULTS / origin))
    if not where.exists():
        return None
    try:
        data = store.load_record(where)
        found = {key: Verdict.read(kept) for key, kept in data["verdicts"].items()}
        computed = {one["code"] for one in data["made"]} <= {rows_code(study)}
        read = data["reading"] == protocols.reading(study)
        seeds, made, controls = tuple(data["seeds"]), tuple(data["made"]), tuple(data.get("controls", ()))
        return Record(origin, study, preset, seeds, computed, read, made, found, controls)
    except (ValueError, KeyError, TypeError) as error:
        message = f"{where} cannot be read ({error}) and is passed over; delete it, or run the study again"
        warnings.warn(message, store.DamagedFile, stacklevel=2)
        return None


def every() -> list[Record]:
    """All records there are, the kit's before the reader's own."""
    where = product(("kit", "yours"), SCOPES, STUDIES)
    return [found for origin, preset, study in where if (found := load(study, preset, origin))]


def scorecard(preset: str) -> list[Verdict]:
    """One verdict for every claim at a preset, or why there is none: of the kit's record, or of the reader's own where
    it has as many replicates."""
    both = [[load(study, preset, origin) for origin in ("yours", "kit")] for study in STUDIES]
    found = [max(filter(None, pair), key=lambda record: len(record.seeds), default=None) for pair in both]
    judged = {name: verdict for record in found if record for name, verdict in record.verdicts.items()}
    return claims.scorecard(preset, PRESETS[preset], judged, tuple(STUDIES))


def interval(verdict: Verdict) -> Interval:
    """The effect that decided a verdict."""
    return Interval(verdict.effect, verdict.low, verdict.high, verdict.replicates)
