"""What the studies found, as it lies on disk: frames, records, and the scorecard made of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtkit import PRESETS, claims, store
from rtkit.claims import Verdict

if TYPE_CHECKING:
    import pandas as pd

# Each study with the notebook that it stands behind (02 and 06 have one of glyphs and one of real images) and the
# modules whose code its verdicts depend on.
_CELLS = (*store.CELL_MODULES, "studies/cells", "studies/judging", "claims")
STUDIES = {"transfer": "01", "shape_bias": "02", "influence": "03", "attack_success": "04", "retention": "05"}
STUDIES |= {"tradeoff": "06", "cue_conflict": "02", "new_test_set": "06"}
_STUDENTS = (*store.CELL_MODULES, "studies/students", "studies/judging", "claims")
_TRANSFER = (*_CELLS, "published", "studies/imagenet", "studies/transfer", "studies/transfer_effects")
_INFLUENCE = ("_heads", "_plans", "", "_effects")
_ATTACKS = ("attack_students", "attack_cells", "attack_success", "attack_success_effects")
MODULES = {
    "transfer": _TRANSFER,
    "shape_bias": (*_TRANSFER, "shape_bias", "studies/shape_bias", "studies/shape_bias_effects"),
    "influence": (*_TRANSFER, "influence", *(f"studies/influence{part}" for part in _INFLUENCE)),
    "attack_success": (*_TRANSFER, "studies/students", "feature_attacks", *(f"studies/{name}" for name in _ATTACKS)),
    "retention": (*_STUDENTS, "studies/retention", "studies/retention_effects"),
    "tradeoff": (*_STUDENTS, *(f"studies/tradeoff{part}" for part in ("_cells", "", "_effects"))),
    "cue_conflict": (*_TRANSFER, "shape_bias", "studies/cue_conflict", "studies/cue_conflict_effects"),
    "new_test_set": (*_CELLS, "studies/new_test_set", "studies/new_test_set_effects"),
}


def path(study: str, preset: str, folder: Path | None = None) -> Path:
    """Where a study's record lies: under runs/ the reader's own, under results/ those that come with the kit."""
    return (folder or store.RUNS / "records") / preset / f"{study}.json"


def _code(study: str) -> str:
    """A hash of all that decides a study's verdicts beside its data: code, presets, the claims' margins."""
    margins = {name: claim.margin for name, claim in claims.load().items() if claim.study == study}
    return store.key(margins, ("presets", *MODULES[study]))


def publish(
    study: str, preset: str, frame: "pd.DataFrame", record: dict, folder: Path | None = None, world=None
) -> Path:
    """Keep a study's frame and record; return the record's path, with the frame beside it as compressed CSV.

    The record of a run on real images says what they were: a data set's split need not be the official one.

    Args:
        world: what the source networks learned, if not the preset's world.
    """
    from rtkit import compute, presets  # only who computes needs torch

    where = path(study, preset, folder)
    store.save_frame(frame, where.with_suffix(".csv.gz"))
    facts = {"study": study, "preset": preset, "seeds": sorted({int(seed) for seed in frame.seed})}
    facts |= {"compute": compute.kind(), "code": _code(study)} | _data(world or presets.get(preset).world, frame)
    return store.save_record(where, facts | record)


def _data(world, frame: "pd.DataFrame") -> dict:
    """The data sets of real images that a frame rests on: how many images each has, and their hash."""
    from rtkit.data import named
    from rtkit.data.targets import NAMES

    size, found = getattr(world, "size", 32), {}
    for name in sorted(
        {getattr(world, "name", ""), *frame[frame.n_train > 0].target} & set(named.names()) - set(NAMES)
    ):
        arrays = named.arrays(name, size)
        found[name] = {part: len(arrays[f"y_{part}"]) for part in ("train", "test")}
        found[name]["sha256"] = named.fingerprint(name, size)
    return {"data": found} if found else {}


def frame(study: str, preset: str) -> "pd.DataFrame | None":
    """The frame of a study that comes with the kit, or None where there is none at this preset."""
    where = path(study, preset, store.RESULTS).with_suffix(".csv.gz")
    return store.load_frame(where) if where.exists() else None


def latest(study: str, preset: str) -> "pd.DataFrame | None":
    """The frame of the reader's own run of a study, else that which comes with the kit, else None."""
    where = path(study, preset).with_suffix(".csv.gz")
    return store.load_frame(where) if where.exists() else frame(study, preset)


@dataclass(frozen=True)
class Record:
    """One study at one preset: whose run it was ("kit" or "yours"), what it found, and whether this code made it."""

    origin: str
    study: str
    preset: str
    seeds: tuple[int, ...]
    compute: str
    same_code: bool
    versions: dict[str, str]
    verdicts: dict[str, Verdict]


def load(study: str, preset: str, origin: str = "yours") -> Record | None:
    """Read the record of a study at a preset, or None where there is none.

    One that is damaged, or was written by a version of the kit with other fields, is passed over with a warning.
    """
    where = path(study, preset, {"kit": store.RESULTS, "yours": None}[origin])
    if not where.exists():
        return None
    try:
        data = store.load_record(where)
        same, found = data["code"] == _code(study), {key: Verdict(**kept) for key, kept in data["verdicts"].items()}
        return Record(origin, study, preset, tuple(data["seeds"]), data["compute"], same, data["versions"], found)
    except (ValueError, KeyError, TypeError) as error:
        message = f"{where} cannot be read ({error}) and is passed over; delete it, or run the study again"
        warnings.warn(message, store.DamagedFile, stacklevel=2)
        return None


def every() -> list[Record]:
    """All records there are, the kit's before the reader's own."""
    found = [load(study, preset, origin) for origin in ("kit", "yours") for preset in PRESETS for study in STUDIES]
    return [record for record in found if record]


def scorecard(preset: str, *, kit: bool = False) -> list[Verdict]:
    """One verdict for every claim at a preset: that of the reader's own record, or the reason why there is none.

    Args:
        kit: where the reader has no record of a study, take the one that comes with the kit.
    """
    found = [load(study, preset) or (load(study, preset, "kit") if kit else None) for study in STUDIES]
    judged = {name: verdict for record in found if record for name, verdict in record.verdicts.items()}
    return claims.scorecard(preset, PRESETS[preset], judged, tuple(STUDIES))


def overview(found: Sequence[Record]) -> "pd.DataFrame":
    """Claims by presets: paper, the paper's number, and the verdict at each preset that has one, in a few words.

    Args:
        found: the records to draw on; where two speak of a claim at a preset the later one counts.
    """
    import pandas as pd

    columns = {}
    for preset in dict.fromkeys(record.preset for record in found if record.verdicts):
        verdicts = {key: value for record in found if record.preset == preset for key, value in record.verdicts.items()}
        card = claims.scorecard(preset, PRESETS[preset], verdicts, tuple(STUDIES))
        columns[preset] = {verdict.claim: claims.short(verdict) for verdict in card}
    place = {name: k for k, name in enumerate(claims.load())}
    order = sorted(set().union(*columns.values()), key=lambda name: (place[name.partition("@")[0]], name))
    table = pd.DataFrame(columns).reindex(order).fillna("not judged: not run")
    table.insert(0, "paper", [claims.get(name).paper for name in order])
    table.insert(1, "the paper's number", [claims.get(name).paper_effect for name in order])
    return table.rename_axis("claim")


_BEGIN, _END = "<!-- verdicts, written by `make verdicts` -->\n", "<!-- end of the verdicts -->\n"


def with_verdicts(text: str) -> str:
    """Put the kit's verdicts, claims by presets, between a text's two marks, as a Markdown table of what was judged."""
    table = overview([record for record in every() if record.origin == "kit"])
    heads = [f"`{name}` ({PRESETS[name]})" if name in PRESETS else name for name in table.columns]
    judged = [row for row in table.reset_index().to_numpy().tolist() if any(str(cell)[:3] != "not" for cell in row[3:])]
    rows = [["claim", *heads], ["---"] * (1 + len(heads)), *judged]
    lines = "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    return f"{before}{_BEGIN}{lines}{_END}{after}"


if __name__ == "__main__":
    import sys

    readme = Path(sys.argv[1])
    readme.write_text(with_verdicts(readme.read_text()))
