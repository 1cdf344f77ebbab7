"""Published robust ImageNet networks, in the place of source networks that the kit trains."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from rtkit import compute, models
from rtkit.data import named
from rtkit.data.pictures import Pictures

ADDRESS = "https://huggingface.co/madrylab/robust-imagenet-models"
MAIN_EPS = 3.0  # in l2: the robust network of Utrera et al.'s main contrasts (2021, section 3)
_NAME = re.compile(r"(?P<architecture>\w+)_(?P<norm>l2|linf)_eps(?P<eps>\d+(\.\d+)?)")


@dataclass(frozen=True)
class Published:
    """A network that others trained: everything that decides its weights (Salman et al. 2020, section 2).

    Args:
        kind: "standard" or "robust" (adversarial training), or "untrained": random weights of the same architecture, a
            control that needs no file.
        source_eps: training radius for images of 224 x 224 pixels in [0, 1], an l2 length or an l-infinity radius as
            `norm` says, "l2" or "linf".
        world: the size at which images are shown to it.
        architecture: see `models.create`.
        file: its name in `folder`; sha256: of the published file it was made from.
        seed: 0, for there is one network of each radius; replicates redraw the images of the target alone, and the
            weights of an untrained network.
    """

    kind: str
    source_eps: float
    norm: str
    world: Pictures
    architecture: str
    file: str
    sha256: str
    seed: int = 0

    def load(self) -> tuple[models.Network, dict]:
        """Return the network in eval mode and the facts of its training, as `sources.Source.load` does.

        Its features' `mean` and `std` are not among them, for want of the images it was trained on: no probe.

        Raises:
            ValueError: the file is gone, was made from another one by now, or does not hold such an architecture.
        """
        facts = {"seconds": 0.0, "gradients": 0, "watch": [], "collapsed": False}
        if self.kind == "untrained":
            net = models.create(1000, self.architecture, self.seed)
        else:
            path = folder() / self.file
            metadata, state = _read(path)
            if metadata["sha256"] != self.sha256:
                raise ValueError(f"{path} was made from another published file since the run began; start it again")
            net = models.create(len(state.get("fc.bias", range(1000))), self.architecture, self.seed)
            try:
                net.load_state_dict(models.from_torchvision(state))
            except RuntimeError as error:  # it names what is missing
                raise ValueError(f"{path} holds no {self.architecture}: {error}; {_again(path)}") from error
        return net.to(compute.device(), memory_format=torch.channels_last).eval(), facts


def folder() -> Path:
    """Where `rtkit import-checkpoint` puts networks: data/checkpoints, under $RTKIT_DATA where that is set."""
    return named.folder() / "checkpoints"


def _again(path: Path) -> str:
    return f"run `rtkit import-checkpoint {path.stem}.ckpt` on the file as it was published, under its own name"


def hint(name: str) -> str:
    """What is wrong with a file's name, so that it is never looked at, and how to call it; "" where nothing is.

    Args:
        name: without its suffix.
    """
    found = _NAME.fullmatch(name)
    if found and found["architecture"] in models.RESNETS:
        return ""
    # A browser numbers second downloads, and tools add the epoch, `best` or another suffix.
    plain = re.search(r"(\w+?_(l2|linf)_eps\d+(\.\d+)?)(?![\d.]*\d)", name.lower().replace("-", "_"))
    if plain and plain[1].partition("_l")[0] in models.RESNETS:
        return f"no preset looks for {name!r}: if it is {plain[1]}, call the file {plain[1]}.ckpt and import it"
    return (
        f"no preset looks for {name!r}: `imagenet` takes ARCHITECTURE_NORM_epsRADIUS, such as "
        f"resnet18_l2_eps3, of {', '.join(models.RESNETS)}, in l2 or linf"
    )


def _read(path: Path, weights: bool = True) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """A file's metadata and, if wanted, its weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()} if weights else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot read {path}: {error}; {_again(path)}") from error
    if "sha256" not in metadata:
        raise ValueError(f"{path} does not say which published file it was made from; {_again(path)}")
    return metadata, state


def _there() -> dict[str, list[tuple[str, float, str]]]:
    """(norm, radius, file name) of each network that is there by architecture, the standard one first."""
    found = {}
    for path in sorted(folder().glob("*.safetensors")):
        if hint(path.stem):
            continue
        name = _NAME.fullmatch(path.stem)
        eps = float(name["eps"]) / (255 if name["norm"] == "linf" else 1)
        rows = found.setdefault(name["architecture"], [])
        for norm, other, file in rows:
            if other == eps and (norm == name["norm"] or not eps):
                raise ValueError(f"{file} and {path.name} in {path.parent} are of one radius; keep one of them")
        rows.append((name["norm"], eps, path.name))
    return {architecture: sorted(rows, key=lambda row: (row[1] > 0, row)) for architecture, rows in found.items()}


def networks(world: Pictures, architecture: str) -> tuple[Published, ...]:
    """The published networks that are there: the standard one first, then robust ones, l2 before l-infinity.

    All are of one architecture: the given one, or where it lacks a pair, the first of `models.RESNETS` that has one.

    Raises:
        ValueError: no architecture has both a standard and a robust network, or two files are of one radius; the
            message says what to do.
    """
    there = _there()
    for name in dict.fromkeys((architecture, *models.RESNETS)):
        rows = there.get(name, [])
        if len({eps > 0 for _, eps, _ in rows}) == 2:
            found = ((norm, eps, file, _read(folder() / file, False)[0]["sha256"]) for norm, eps, file in rows)
            kinds = ("standard", "robust")
            return tuple(Published(kinds[eps > 0], eps, norm, world, name, *made) for norm, eps, *made in found)
    files = [Path(file).stem for rows in there.values() for _, _, file in rows]
    unknown = "".join(f"; {hint(path.stem)}" for path in sorted(folder().glob("*.safetensors")) if hint(path.stem))
    raise ValueError(
        f"needs a standard and a robust ImageNet network of one architecture in {folder()}; there "
        f"{'are ' + ', '.join(files) if files else 'is none yet'}{unknown}. Download for example "
        f"{architecture}_l2_eps0.ckpt and {architecture}_l2_eps3.ckpt by hand from {ADDRESS}, "
        "then run `rtkit import-checkpoint FILE` on each"
    )
