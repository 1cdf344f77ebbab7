"""Tasks by name: what a world's source networks learn, and the targets, drawn or cut from a data set of real images."""

from collections.abc import Iterable, Sequence

from rtkit.data import glyphs, named, pictures, targets
from rtkit.data.glyphs import SOURCE_LETTERS, Images, World
from rtkit.data.pictures import Pictures
from rtkit.data.targets import Target
from rtkit.knobs import several
from rtkit.limits import must_lie


def source(world: World | Pictures, n: int, seed: int, split: str = "train") -> Images:
    """The first n images of what a world's source networks learn; `split` is "train", "held_out" or "test"."""
    if isinstance(world, Pictures):
        return pictures.source(world, n, seed, split)
    if split == "held_out":
        return glyphs.source(world, n, seed + 10**6)
    return glyphs.source(world, n, seed, split=split)


def classes(world: World | Pictures) -> int:
    """How many classes a world's source networks tell apart."""
    if isinstance(world, Pictures):
        return len(named.arrays(world.name, world.size)["classes"])
    return len(SOURCE_LETTERS)


def own(asked: Iterable[str] | str | None, study: Iterable = ()) -> tuple[str, ...]:
    """The data sets of a reader's own among the targets that a run was asked for, each once.

    Args:
        asked: names, one name, or None.
        study: the cells that the study has anyway: naming a target of theirs changes nothing.

    Raises:
        ValueError: something else than names was given, or one is no data set, or not the reader's alone.
    """
    names = several(asked)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f'targets must be names of data sets such as ["mydata"], got {asked!r}')
    try:
        known = {cell.target for cell in study} if names else set()
    except ValueError:  # a preset without targets of its own, or a data set is missing: its cells will say so
        known = set()
    known -= {"source"} | (set(named.TAKEN) & set(named.names()))  # what nobody may name, what two things are called
    return tuple(dict.fromkeys(str(name) for name in names if name not in known and named.find(name)))


def _drawn(name: str, world: World | Pictures) -> bool:
    """Whether a target is drawn in this world; ValueError if a data set of the reader's bears its name."""
    if isinstance(world, Pictures) or name not in targets.NAMES:
        return False
    if name in named.names():
        named.find(name)  # refuses it
    return True


def target(name: str, world: World | Pictures, seed: int) -> Target:
    """The target task of one replicate: in a glyph world a name of `targets.NAMES`, else a data set by name.

    Raises:
        ValueError: there is no such data set, or it is unusable, see `pictures.target`; or a name has two meanings.
    """
    if isinstance(world, Pictures):
        return pictures.target(name, seed, world.size, world.pool, world.validation, world.test)
    return targets.target(name, world, seed) if _drawn(name, world) else pictures.target(name, seed, glyphs.SIZE)


def fingerprints(world: World | Pictures, target: str = "source") -> dict[str, str]:
    """What a cache key must hold of the real images that a result depends on; nothing where all of them are drawn."""
    found = {}
    if isinstance(world, Pictures) and world.name:
        found[world.name] = named.fingerprint(world.name, world.size)
    if target != "source" and not _drawn(target, world):
        found[target] = named.fingerprint(target, world.size if isinstance(world, Pictures) else glyphs.SIZE)
    return {"images": found} if found else {}


def sizes(wanted: Sequence[int], name: str, world: World | Pictures, seed: int, parts: int = 1) -> tuple[int, ...]:
    """Those numbers of training images that a target has; if none fits, all that it has.

    Args:
        parts: how many share the images; there must be enough for each to have one of every class.
    """
    for n in wanted:
        must_lie("[1, inf)", whole=True, n_train=n)
    if _drawn(name, world):
        return tuple(wanted)
    task = target(name, world, seed)  # seconds for large images: once for both questions
    return tuple(n for n in wanted if parts * len(task.classes) <= n <= len(task.pool)) or (len(task.pool),)
