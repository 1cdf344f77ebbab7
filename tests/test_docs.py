"""README and docs: links that lead somewhere, numbers that are those of the records, a quiz for each notebook."""

import ast
import json
import re

import pytest

from rtkit import PRESETS, STUDIES, cli, labels, lesson, records, runner, store
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


def test_the_readme_tells_the_numbers_of_the_records():
    kept = {}
    for path in store.RESULTS.glob("*/*.json"):
        kept |= {(path.parent.name, name): one for name, one in json.loads(path.read_text())["verdicts"].items()}

    def number(preset, claim, key="effect"):
        return kept[preset, claim][key]

    line, text = answers(), " ".join(README.read_text().split())
    assert f"by {number('glyphs', 'U-C1'):.1f} points" in line["01"]
    assert f"lead by {number('glyphs', 'U-C1'):.1f} points" in text
    assert f"does not lead: −{-number('cifar-small', 'U-C1'):.1f} points" in text
    assert f"{number('glyphs', 'S-C9'):.1f} points behind" in line["02"]
    assert (kept["glyphs", "INF-K1"]["verdict"], kept["glyphs", "U-C8"]["verdict"]) == ("contradicted", "inconclusive")
    assert "less well (opposite seen)" in line["03"]
    assert kept["glyphs", "NFD-C4@authors' budget"]["verdict"] == "supported"
    assert "costs no accuracy (seen)" in line["04"]
    frozen = kept["glyphs", "LwF-C2"]
    assert (frozen["verdict"], f"adds {-frozen['effect']:.1f} points" in line["05"]) == ("contradicted", True)
    taught = [number("glyphs-full", "VFD-C1", key) for key in ("effect", "low", "high")]
    assert "{:.1f} points more accurate, between −{:.1f} and {:.1f}".format(*(abs(x) for x in taught)) in line["06"]
    assert taught[1] < 0 < taught[2]
    glyphs = {name: one["verdict"] for (preset, name), one in kept.items() if preset == "glyphs"}
    judged = {name.partition("@")[0] for name, word in glyphs.items() if word != "not_judged"}
    words = list(glyphs.values())
    seen, opposite, open_ = (words.count(word) for word in ("supported", "contradicted", "inconclusive"))
    assert f"judges {len(judged)}," in line["07"]
    assert f"{seen} seen, {opposite} opposite seen, {open_} cannot tell" in line["07"]


def test_the_readme_tells_the_numbers_of_the_frames():
    line, text = answers(), " ".join(README.read_text().split())
    transfer, attacked = records.frame("transfer", "glyphs"), records.frame("attack_success", "glyphs")
    standard, robust = (mean(transfer, "robust_accuracy", target="source", source=s) for s in ("standard", "robust"))
    assert f"right on {standard:.0f} letters of 100, a robust one on {robust:.0f}." in line["00"]
    where = {"form": "any", "role": "judged"}
    fooled = [mean(attacked, "attack_success_rate", method=m, **where) for m in ("fine_tuning", "nfd")]
    assert all(f"{share:.0f} %" in line["04"] for share in fooled)
    wide, by = records.frame("transfer", "glyphs-full"), ["texture_amplitude", "shape_reliability", "seed"]
    own = wide[wide.seed == wide.source_seed]
    bias = pick(own, source="standard", metric="shape_bias").set_index(by).value
    few = {"metric": "clean_accuracy", "method": "fixed_feature", "n_train": 100, "source_eps": (0.0, 4 / 255)}
    ahead = paired(pick(own, target=labels.SHAPES[:2], **few), *by[:2], arm="source").set_index(by).value
    both = 100 * bias.to_frame("bias").join(ahead.rename("lead"), how="inner").dropna()
    low, high = both[both.bias < 10].lead.mean(), both[both.bias > 90].lead.mean()
    assert f"leads by {low:.0f} points. Where it reads letters (above 90 %), by {high:.0f}." in text


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
