"""What holds the project together: versions that agree, commands that answer, a tree that stays clean."""

import re
import subprocess
import tomllib
from importlib import import_module

import pytest
import yaml
from packaging.requirements import Requirement

from rtkit import PRESETS, presets, records, runner, store

ROOT = store.ROOT
REQUIRED = {"torch", "torchvision", "jupyterlab", "ipywidgets", "seaborn", "captum", "papermill"}


def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for line in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line
    return {name.lower(): version for name, version in (line.split("==") for line in pins)}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_versions_agree_everywhere():
    """pyproject's ranges hold the lock's pins; environment.yml installs the same packages at the same versions."""
    pins = lock()
    needs = [Requirement(line) for line in project()["dependencies"]]
    extra = [Requirement(line) for line in project()["optional-dependencies"]["test"]]
    assert {need.name for need in needs} >= REQUIRED
    for need in needs + extra:
        assert need.specifier.contains(pins[need.name]), f"{need} does not hold {pins[need.name]}"
    text = (ROOT / "environment.yml").read_text()
    conda = dict(re.findall(r"^      - ([a-z-]+)==(\S+)$", text, re.MULTILINE))
    assert conda == {need.name: pins[need.name] for need in needs + extra}
    assert "--constraint requirements.lock" in text
    assert f"python{project()['requires-python']}" in text


def test_the_package_asks_for_torch_2_6_or_newer():
    (torch,) = [need for need in map(Requirement, project()["dependencies"]) if need.name == "torch"]
    assert torch.specifier.contains("2.6.0")
    assert not torch.specifier.contains("2.5.1")


def test_required_top_level_is_there():
    for name in ("notebooks", "rtkit", "data", "tests", "environment.yml", "README.md", "LICENSE", "Makefile"):
        assert (ROOT / name).exists(), name


def test_files_stay_small_enough_to_read():
    sizes = {path: len(path.read_text().splitlines()) for path in (ROOT / "rtkit").rglob("*.py")}
    for path, size in sizes.items():
        assert size <= 270, f"{path} has {size} lines"


def test_public_functions_say_what_they_do():
    import ast

    for path in (ROOT / "rtkit").rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def test_presets_are_the_same_everywhere():
    assert list(presets.PRESETS) == list(PRESETS)
    for name in PRESETS:
        assert f"`{name}`" in (ROOT / "README.md").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "gpu.yml").read_text())
    assert workflow[True]["workflow_dispatch"]["inputs"]["preset"]["options"] == list(
        PRESETS
    )  # YAML reads "on" as true


def test_readme_lists_every_notebook_and_command():
    text = (ROOT / "README.md").read_text()
    for path in runner.paths():
        assert f"| {runner.title(path).replace(' ·', '')} |" in text
    for command in ("run", "study", "list", "scorecard", "report", "data", "import-checkpoint", "doctor"):
        assert f"| `rtkit {command}" in text


def test_the_readme_holds_the_verdicts_of_the_kit_s_records():
    text = (ROOT / "README.md").read_text()
    assert records.with_verdicts(text) == text, "make verdicts"
    assert "| U-C1 | Utrera et al. 2021 |" in text


def test_the_records_of_the_kit_were_made_by_this_code():
    """The committed frames, judged again by the code as it is, give the committed verdicts, and the hashes agree."""
    kept = [record for record in records.every() if record.origin == "kit"]
    assert kept
    for record in kept:
        effects = import_module(f"rtkit.studies.{record.study}_effects")
        assert effects.verdicts(records.frame(record.study, record.preset), record.preset) == record.verdicts
        assert record.same_code, f"{record.study} at {record.preset}: run the study again and copy its record here"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_git_holds_nothing_generated():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in listed if re.search(r"^runs/|__pycache__|\.safetensors$|\.ipynb_checkpoints", name)]
    assert [name for name in listed if name.startswith("data/")] == ["data/README.md"]
