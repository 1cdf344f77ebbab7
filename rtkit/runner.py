"""Running notebooks without a browser, and what is said at the end."""

import os
import sys
from pathlib import Path

import papermill

from rtkit import claims, presets, store, studies
from rtkit.claims import Verdict

NOTEBOOKS = store.ROOT / "notebooks"


def scorecard(preset: str) -> list[Verdict]:
    """All claims at a preset, from the records of the reader's own runs.

    Raises:
        ValueError: there is no such preset.
    """
    scope = presets.get(preset).scope
    judged = {}
    for study in studies.NAMES:
        path = studies.record_path(study, preset)
        if path.exists():
            judged |= {name: Verdict(**found) for name, found in store.load_record(path)["verdicts"].items()}
    return claims.scorecard(preset, scope, judged, studies.NAMES)


def run(notebooks: list[Path], preset: str) -> int:
    """Execute notebooks at a preset, keep the executed copies, print the scorecard; return the exit status.

    A notebook that fails keeps its partly executed copy, and the others go on.

    Raises:
        ValueError: there is no such preset.
    """
    presets.get(preset)
    folder = store.RUNS / "notebooks" / preset
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for notebook in notebooks:
        print(f"{notebook.name} at preset {preset}", file=sys.stderr)
        try:
            papermill.execute_notebook(
                notebook, folder / notebook.name, {"preset": preset}, cwd=notebook.parent, stderr_file=sys.stderr
            )
        except papermill.PapermillExecutionError as error:
            failed.append(notebook.name)
            print(f"{notebook.name} failed: {error.ename}: {error.evalue}", file=sys.stderr)
    with_numbers = claims.table(scorecard(preset)).to_string(max_colwidth=60)
    print(with_numbers)
    print(f"\nexecuted notebooks: {os.path.relpath(folder)}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
