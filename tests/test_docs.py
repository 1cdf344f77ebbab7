"""README and docs: links that lead somewhere, numbers that are those of the records, a quiz for each notebook."""

import ast
import json
import re

import pytest

from rtkit import PRESETS, STUDIES, cli, labels, lesson, records, runner, store
from rtkit.data.glyphs import World
from rtkit.frames import mean, paired, pick

ROOT = store.ROOT
README = ROOT / "README.md"
PAGES = [README, ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCS = ("methods", "own_images", "published_networks", "other_libraries", "clusters", "costs", "gpu", "figures")
DOCS += ("protocols", "teachers")


def prose(text: str) -> str:
    """Markdown without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path) -> set[str]:
    """What a link can lead to within a file: headings, of a notebook as Jupyter names them, else as GitHub does."""
    if path.suffix == ".ipynb":
        text = "\n".join(source for kind, _, source in lesson.cells(path) if kind == "markdown")
        return {title.replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    titles = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def answers() -> dict[str, str]:
    """The line of each notebook in the README's table."""
    return dict(re.findall(r"^\| \[(\d\d) · .+?\]\(.+?\) \|(.+)\|$", README.read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.is_relative_to(ROOT), target
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path), target


def test_every_page_is_linked_from_the_readme():
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} == set(DOCS)
    assert all(f"](docs/{name}.md)" in README.read_text() for name in DOCS)


def test_the_readme_is_short_and_starts_with_the_notebooks():
    text = README.read_text()
    words = [word for word in text.split() if re.search(r"\w", word)]
    assert 400 < len(words) < 750
    assert text.index("make lab") < text.index("make reproduce")
    assert "supported" not in text.lower()  # a word for real images; the built world has others
    assert all(path in text for path in ("docs/world.png", "docs/lead_by_shape_bias.png"))


def test_the_readme_names_presets_commands_and_notebooks():
    text = README.read_text()
    for name in PRESETS:
        assert re.search(rf"^\| `{name}`", text, re.MULTILINE), name
    (commands,) = [one for one in cli._parser()._actions if one.dest == "command"]
    for name in commands.choices:
        assert f"| `rtkit {name}" in text, name
    for path in lesson.paths():
        assert f"[{lesson.title(path)}](notebooks/{path.name})" in text
    assert sorted(answers()) == [path.name[:2] for path in lesson.paths()]


WORDS = {"supported": "seen", "contradicted": "opposite seen", "null": "no difference", "inconclusive": "cannot tell"}


def test_the_readme_tells_the_numbers_of_the_records():
    kept = {}
    for path in (store.RESULTS / "glyphs").glob("*.json"):
        kept |= json.loads(path.read_text())["verdicts"]
    line, text = answers(), " ".join(README.read_text().split())
    ladder = records.load("transfer", records.REAL, "kit").verdicts
    ahead, behind = ladder["U-C1@dissimilar"], ladder["U-C1@alike"]
    assert (ahead.verdict, behind.verdict) == ("supported", "contradicted")
    told_there = f"ahead by {ahead.effect:.1f} points on digits and Japanese letters"
    middle = f"behind by {-ladder['U-C1@middle'].effect:.1f} on clothes and objects"
    assert f"{told_there}, {middle}, and by {-behind.effect:.1f} on CIFAR-10" in text

    def told(claim, words):
        """A number as words have it, and the verdict's own word; or how far the registered replicates got."""
        one = kept[claim]
        if one["reason"].startswith("invalid_control"):
            return f"by {one['effect']:.1f} points, but a registered check failed: not judged"
        if one["verdict"] == "not_judged":
            return f"Not yet told: {one['reason'].removeprefix('not_run: ')}"
        return words.format(effect=f"{abs(one['effect']):.1f}", word=WORDS[one["verdict"]])

    assert told("U-C1", "by {effect} points ({word})") in line["01"]
    assert f"lead by {kept['U-C1']['effect']:.1f} points" in text
    assert told("S-C9", "{effect} points behind ({word})") in line["02"]
    assert (kept["INF-K1"]["verdict"], kept["U-C8"]["verdict"]) == ("contradicted", "inconclusive")
    assert "less well (opposite seen); on photographs a little better" in line["03"]
    assert records.load("influence", records.REAL, "kit").verdicts["INF-K1@CIFAR-10"].verdict == "supported"
    assert kept["NFD-C4@authors' budget"]["verdict"] == "supported"
    assert "42 % for none (seen)" in line["04"]
    assert kept["LwF-C2"]["verdict"] == "contradicted"
    assert told("LwF-C2", "adds {effect} points") in line["05"]
    photographed = records.load("retention", records.REAL, "kit").verdicts["LwF-C2@CIFAR-10, adapting"]
    assert photographed.verdict == "supported"
    frozen = records.load("retention", records.REAL, "kit").verdicts["LwF-C2@CIFAR-10"]
    fall = next(part for part in frozen.parts if part.name == "robustness falls")
    assert fall.low > 0
    assert f"on photographs costs {fall.effect:.1f}; with adapting it costs most of it" in line["05"]
    assert told("VFD-C2", "by {effect} points ({word})") in line["06"]
    judged = {name: one["verdict"] for name, one in kept.items() if one["verdict"] != "not_judged"}
    claimed = len({name.partition("@")[0] for name in judged})
    counted = ", ".join(f"{list(judged.values()).count(key)} {word}" for key, word in WORDS.items())
    assert f"judges {claimed}," in line["07"]
    assert counted in line["07"]
    agreed = {"04": [], "others": []}
    for one in (one for name in (records.REAL, records.SECOND) for one in records.scorecard(name)):
        name, _, regime = one.claim.partition("@")
        rest = regime.partition(", ")[2]
        letters = judged.get(f"{name}@{rest}" if rest else name)
        if {letters, one.verdict} <= {"supported", "contradicted"}:
            agreed["04" if name.startswith("NFD") else "others"].append(letters == one.verdict)
    (yes, of), (few, among) = ((sum(one), len(one)) for one in agreed.values())
    assert f"On photographs 04's agree ({yes} of {of} clear ones), others seldom ({few} of {among})" in line["07"]


def test_what_01_and_the_teachers_say_of_photographs():
    """The robust source: 1 point ahead on digits, 4 on Japanese letters, 5 and 4 behind on CIFAR-10 and Caltech-101."""
    rows = pick(records.frame("transfer", records.REAL), metric="clean_accuracy", source=("standard", "robust"))
    rows = pick(rows, method=("probe", "last_stage"), source_eps=(0.0, 2 / 255))
    rows = rows[rows.source_seed == rows.seed]
    by = rows.pivot_table(index=["method", "target"], columns="source", values="value")
    lead = (100 * (by.robust - by.standard)).unstack("method")
    last = lead.last_stage.drop("source", errors="ignore")
    digits = round(last[["mnist", "usps"]].mean())
    assert [digits, *last[["kmnist", "caltech101", "cifar10"]].round()] == [1, 4, -4, -5]
    assert abs(last["fashion_mnist"]) < 0.5
    assert lead.filter(regex="_8$", axis=0).abs().max().max() <= 2
    told = "ahead by 1 point on digits and by 4 on Japanese letters, behind by 4 on Caltech-101 and by 5 on CIFAR-10"
    assert told in lesson.path("01").read_text(encoding="utf-8")
    assert "on Japanese ones it led by 4 points, on digits by 1" in (ROOT / "docs" / "teachers.md").read_text(
        encoding="utf-8"
    )


def test_the_readme_tells_the_numbers_of_the_frames():
    line, text = answers(), " ".join(README.read_text().split())
    transfer, attacked = records.frame("transfer", "glyphs"), records.frame("attack_success", "glyphs")
    transfer = pick(transfer, architecture="small-16", source_eps=(0.0, 4 / 255))
    at = {"target": "source", "texture_amplitude": World().texture_amplitude}
    standard, robust = (mean(transfer, "robust_accuracy", source=s, **at) for s in ("standard", "robust"))
    assert f"right on {standard:.0f} letters of 100, a robust one on {robust:.0f}." in line["00"]
    where = {"form": "any", "role": "judged"}
    fooled = [mean(attacked, "attack_success_rate", method=m, **where) for m in ("fine_tuning", "nfd")]
    assert all(f"{share:.0f} %" in line["04"] for share in fooled)
    digits = pick(records.frame("attack_success", records.REAL), target="mnist")
    tuned, nfd = (mean(digits, "attack_success_rate", method=m, **where) for m in ("fine_tuning", "nfd"))
    assert f"On photographs, {tuned:.0f} and {nfd:.0f} % (MNIST)" in line["04"]
    assert records.load("attack_success", records.REAL, "kit").verdicts["NFD-C2@MNIST"].verdict == "supported"
    by = ["texture_amplitude", "seed"]
    bias = pick(transfer, source="standard", metric="shape_bias").set_index(by).value
    few = {"metric": "clean_accuracy", "method": "fixed_feature", "n_train": 100, "target": labels.SHAPES}
    ahead = paired(pick(transfer, **few), *by[:1], arm="source").set_index(by).value
    both = 100 * bias.to_frame("bias").join(ahead.rename("lead"), how="inner").dropna()
    texture, shape = (part.lead.mean() for part in (both[both.bias <= 50], both[both.bias > 50]))
    assert f"leads by {texture:.0f} points. Where it reads letters, by {shape:.0f}." in text


def test_teachers_have_a_plan_of_ninety_minutes_and_five_questions_a_notebook():
    text = (ROOT / "docs" / "teachers.md").read_text()
    plan = text[text.index("## A plan of 90 minutes") : text.index("### What to discuss")]
    assert sum(map(int, re.findall(r"^\| (\d+) \|", plan, re.MULTILINE))) == 90
    _, *quizzes = re.split(r"^### (?=\[\d\d)", text[text.index("## Quiz") :], flags=re.MULTILINE)
    assert len(quizzes) == len(lesson.paths())
    for path, quiz in zip(lesson.paths(), quizzes, strict=True):
        assert quiz.startswith(f"[{lesson.title(path)}](../notebooks/{path.name})")
        assert re.findall(r"^(\d)\. ", quiz, re.MULTILINE) == list("12345")
        assert len(re.findall(r"<details><summary>answer</summary>.+</details>$", quiz, re.MULTILINE)) == 5


def test_guesses_that_teachers_are_shown_are_those_of_the_notebook():
    text = (ROOT / "docs" / "teachers.md").read_text()
    shown = ast.literal_eval(re.search(r"-p guess '(\{.+?\})'", text)[1])
    assert set(shown) == set(ast.literal_eval(runner.parameters(lesson.path("01"))["guess"]["default"]))


def test_code_on_the_pages_is_python():
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            ast.parse(block)


def test_commands_on_the_pages_exist():
    (commands,) = [one for one in cli._parser()._actions if one.dest == "command"]
    for page in PAGES:
        found = re.findall(r"(?:^    |^       |`)rtkit ([a-z-]+)", page.read_text(), re.MULTILINE)
        assert set(found) <= set(commands.choices), page
    assert set(re.findall(r"rtkit study (\w+)", README.read_text())) <= {
        *STUDIES,
        *(path.name[:2] for path in lesson.paths()),
    }
