"""Running notebooks without a browser, and what is said at the end."""

import os
import sys
from pathlib import Path

import papermill

from rtkit import PRESETS, store

NOTEBOOKS = store.ROOT / "notebooks"


def print_scorecard(preset: str) -> None:
    """Print every claim with the verdict of the reader's own runs at a preset, or the reason why there is none.

    Raises:
        ValueError: there is no such preset.
    """
    # Imported here: while notebooks run, this process needs none of torch's memory.
    from rtkit import claims, presets, studies
    from rtkit.claims import Verdict

    scope = presets.get(preset).scope
    judged = {}
    for study in studies.NAMES:
        path = studies.record_path(study, preset)
        if path.exists():
            judged |= {name: Verdict(**found) for name, found in store.load_record(path)["verdicts"].items()}
    print(claims.table(claims.scorecard(preset, scope, judged, studies.NAMES)).to_string(max_colwidth=60))


def run(notebooks: list[Path], preset: str) -> int:
    """Execute notebooks at a preset, keep the executed copies, print the scorecard; return the exit status.

    A notebook that fails keeps its partly executed copy, and the others go on.

    Raises:
        ValueError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"no preset is called {preset!r}; there are {', '.join(PRESETS)}")
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
    print_scorecard(preset)
    print(f"\nexecuted notebooks: {os.path.relpath(folder)}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
