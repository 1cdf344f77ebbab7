"""The cells of the study behind notebook 04: what an attacker makes, and which students fall for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch

from rtkit import attacks, compute, evaluation, feature_attacks, models, store, tasks
from rtkit.data.glyphs import World
from rtkit.data.pictures import Pictures
from rtkit.feature_attacks import THREAT
from rtkit.sources import Source
from rtkit.studies import attack_students, students
from rtkit.studies.attack_students import STUDY, WHITE_BOX, Plan
from rtkit.studies.students import Student
from rtkit.training import train

MODULES = (*students.MODULES, "feature_attacks", "studies/attack_students", "studies/attack_cells")
UNITS = 5  # most active features of the source, on its own training images
STEPS = 10  # of 0.4 eps; on tuning seed 100 forty of 0.1 eps fooled as many, to a point or two


@dataclass(frozen=True)
class Attacker:
    """Who has the public source and, for the adaptive attack, as many labelled images of the target as a student."""

    source: Source
    seed: int
    plan: Plan
    world: World | Pictures
    batch_size: int

    def make(self) -> dict[str, torch.Tensor]:
        """All attacked test images by form: "neuron J" five times, "features", "stages", "paper", "adaptive"."""
        task, (net, facts) = tasks.target(self.plan.target, self.world, self.seed), self.source.load()
        generator = torch.Generator(device=compute.device()).manual_seed(self.seed)
        units = torch.tensor(facts["mean"]).topk(UNITS).indices.tolist()
        surrogate = self.surrogate()
        parts = []
        for x, _ in evaluation.batches(task.test[: self.plan.n_test]):
            made = feature_attacks.attacked(net, x, units, steps=STEPS, generator=generator)
            made["paper"] = feature_attacks.attacked(net, x, [0], forms=("neuron",), generator=generator)["neuron 0"]
            with compute.autocast():
                own = evaluation.logits(surrogate, x).argmax(1)
                made["adaptive"] = attacks.pgd(surrogate, x, own, THREAT, loss=attacks.margin, generator=generator)
            parts.append({form: _pack(attacked - x) for form, attacked in made.items()})
        return {form: torch.cat([part[form] for part in parts]) for form in parts[0]}

    def surrogate(self):
        """A student of the attacker's own: the full method, images that no student of size n has, another seed."""
        task, seed = tasks.target(self.plan.target, self.world, self.seed), self.seed + 10**4
        taken = set(task.subset_index(self.plan.n_train, self.seed).tolist())
        own = [k for k in range(len(task.pool)) if k not in taken][: self.plan.n_train]
        net = models.create(len(task.classes), self.source.architecture, seed)
        phases = attack_students.method("nfd", self.plan, self.batch_size)[0].phases
        train(net, task.pool[own], phases, seed, reference=self.source.load()[0])
        return net

    @property
    def config(self) -> dict:
        """All that decides the attacked images."""
        knobs = {name: getattr(self.plan, name) for name in ("target", "n_train", "n_test", "steps", "averaged")}
        who = {"source": self.source, "seed": self.seed, "world": self.world, "batch_size": self.batch_size} | knobs
        seen = tasks.fingerprints(self.world, self.plan.target)
        return {"attacker": who, "code": store.code_hash(MODULES), "compute": compute.kind()} | seen


def _pack(delta: torch.Tensor) -> torch.Tensor:
    # Steps of eps / 127, towards zero so that none leaves the ball: an eighth of the space, an error of 0.05/255.
    return (delta * (127 / THREAT.eps)).trunc().to(torch.int8).cpu()


@lru_cache(maxsize=2)
def attacked(attacker: Attacker) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """The test images as they are, their labels, and their attacked copies by form, made once per replicate."""
    packed = store.network(attacker.config, lambda: (attacker.make(), {}))[0]
    images = tasks.target(attacker.plan.target, attacker.world, attacker.seed).test[: attacker.plan.n_test]
    x = compute.to_pixels(images.x)
    copies = {form: (x + delta.to(x) * (THREAT.eps / 127)).clamp(0, 1) for form, delta in sorted(packed.items())}
    return x, images.y.to(x.device), copies


def _decisions(net, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([evaluation.logits(net, part).argmax(1) for part in x.split(evaluation.BATCH)])


def _features(net, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), attacks.frozen(net):
        return torch.cat([net.features(part) for part in x.split(evaluation.BATCH)])


def _success(done: Student, net, attacker: Attacker, own: bool = False) -> Iterator[dict]:
    """Success rates of every form; `own` counts changes of the network's own decisions instead of wrong ones."""
    x, y, copies = attacked(attacker)
    decided = _decisions(net, x)
    y = decided if own else y
    seen = {form: _decisions(net, copy) for form, copy in copies.items()}
    generator = torch.Generator(device=x.device).manual_seed(attacker.seed + 7)
    tried = [form for form in seen if form.split()[0] in ("neuron", "features", "stages")]
    noisy = feature_attacks.noise(x, THREAT, len(tried), generator)
    groups = {"any": tried, "neurons": [form for form in tried if form.startswith("neuron")]}
    groups |= {form: [form] for form in ("features", "stages", "paper", "adaptive")}
    found = {name: torch.stack([seen[form] for form in forms]) for name, forms in groups.items()}
    found["noise"] = torch.stack([_decisions(net, copy) for copy in noisy])
    found["clipping"] = _decisions(net, feature_attacks.clip_as_the_paper(x))[None]
    if done.n_train != attacker.plan.n_train:
        del found["adaptive"]  # a larger set holds the attacker's images
    if done.name in WHITE_BOX:
        reached = attacks.pgd(net, x, y, THREAT, steps=STEPS, loss=attacks.margin, generator=generator)
        found["white box"] = _decisions(net, reached)[None]
    for form, decisions in found.items():
        count, right = feature_attacks.fooled(decided, y, decisions)
        yield done.row("attack_success_rate", count / max(right, 1), right, form=form)


def _rows(cell: Student, attacker: Attacker) -> Iterator[dict]:
    if cell.name == "source":
        yield from _success(cell, cell.source.load()[0], attacker, own=True)
        x = attacked(attacker)[0]
        changed = float(((feature_attacks.clip_as_the_paper(x) - x).abs() > 1e-6).float().mean())
        yield cell.row("clipped_pixels", changed, len(x), form="clipping")
        return
    done = students.trained(cell)
    yield from (row | {"form": ""} for row in students.clean_rows(cell, done))
    yield from _success(cell, done.net, attacker)
    x, _, copies = attacked(attacker)
    for form, images in (("", x), ("stages", copies["stages"])):
        alike = feature_attacks.similarity(_features(done.net, images), _features(cell.source.load()[0], images))
        yield cell.row("similarity", alike, len(x), form=form)


@dataclass(frozen=True)
class Cell:
    """One student with the attacker whose images it is shown; the student "source" is the public source itself."""

    student: Student
    attacker: Attacker

    @property
    def source(self) -> Source:
        return self.student.source


def _key(cell: Cell) -> dict:
    return {"student": cell.student} | cell.attacker.config


def rows(cell: Cell) -> list[dict]:
    """The rows of one cell, from the cache or computed."""
    return store.cell(STUDY, _key(cell), MODULES, lambda: list(_rows(cell.student, cell.attacker)))


def is_cached(cell: Cell) -> bool:
    """Whether `rows` would only have to read."""
    return store.cell_path(STUDY, _key(cell), MODULES).exists()
