"""The command line; `rtkit --help` lists the commands."""

import argparse
import io
import os
import signal
import sys
from pathlib import Path

from rtkit import PRESETS, PUBLISHED, STUDIES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rtkit", description="A study kit on robust transfer learning.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, preset: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        if preset:
            command.add_argument("--preset", help=f"one of {', '.join(PRESETS)} (default: glyphs)")
        return command

    run = add("run", "execute notebooks, each in a process of its own, and print the scorecard")
    run.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="a number such as 01, or a file (default: all)")
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters",
                     help="a notebook's parameter, such as -p seeds '[0, 1]' (see rtkit list)")  # fmt: skip
    run.add_argument(
        "--cluster", metavar="ADDRESS", help="of a Dask scheduler whose workers compute (docs/clusters.md)"
    )
    study = add("study", "compute a study's frame and verdicts without Jupyter")
    study.add_argument("name", metavar="NAME", help="the number of a notebook, or a study (see rtkit list)")
    study.add_argument("--tune", action="store_true", help="show the search for learning rates, on tuning seeds only")
    study.add_argument("--cluster", metavar="ADDRESS", help="as with rtkit run")
    study.add_argument("--judge", action="store_true", help="judge the frame that comes with the kit anew, beside it")
    add("list", "list notebooks with their parameters, studies and presets", preset=False)
    score = add("scorecard", "print every claim with the verdict of your own runs")
    score.add_argument("--json", action="store_true", help="as a list of objects")
    add("compare", "compare your own run with what comes with the kit, number by number")
    add("report", "write the executed notebooks and the scorecard as HTML to be read offline")
    data = add("data", "list the data sets of real images, or download one", preset=False)
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "list what is present under data/, and how to get the rest"
    actions.add_parser("list", help=text, description=text)
    text = "download a data set through torchvision, to data/NAME.npz"
    get = actions.add_parser("get", help=text, description=text)
    get.add_argument("name", metavar="NAME", help="a data set (see rtkit data list)")
    convert = add("import-checkpoint", "convert published network weights, executing nothing in them", preset=False)
    convert.add_argument("file", metavar="FILE", help="as published, such as resnet50_l2_eps3.ckpt")
    convert.add_argument("--to", metavar="FOLDER", help="where the safetensors go (default: data/checkpoints)")
    text = "tell what this machine offers: versions, device, number format, data; and what is stale"
    doctor = add("doctor", text, preset=False)
    doctor.add_argument("--tidy", action="store_true", help="delete what no code reads any more from the cache")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit status (2 where the arguments make no sense)."""
    parser = _parser()
    arguments = parser.parse_args(argv)

    # Imported here so that --help answers at once.
    from rtkit import runner

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a letter shows a question mark
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that no kernel is left behind
    try:
        return _command(arguments)
    except runner.UsageError as error:
        parser.exit(2, f"rtkit: {error}\n")
    except KeyboardInterrupt:
        print("interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        parser.exit(1, f"rtkit: {error}\n")


def _command(arguments: argparse.Namespace) -> int:
    from rtkit import runner

    pairs = [("preset", arguments.preset)] if getattr(arguments, "preset", None) else []
    pairs += getattr(arguments, "parameters", [])
    given = dict(pairs)
    if len(given) < len(pairs):
        raise runner.UsageError(f"a parameter is given twice: {', '.join(name for name, _ in pairs)}")
    preset, status = given.get("preset", "glyphs"), 0
    if preset not in PRESETS:
        raise runner.UsageError(runner.nearest("preset", preset, PRESETS))
    if arguments.command == "doctor":
        from rtkit import doctor

        return doctor.main(arguments.tidy)
    if arguments.command == "list":
        return _list()
    if arguments.command == "data":
        return _data(arguments)
    if arguments.command == "import-checkpoint":
        return _import(Path(arguments.file), arguments.to)
    if arguments.command == "compare":
        from rtkit import records

        print("\n".join(filter(None, (records.compare(study, preset) for study in STUDIES))) or "nothing to compare")
        return 0
    if arguments.command == "report":
        from rtkit import report

        return report.main(preset)
    if getattr(arguments, "cluster", None):
        from rtkit import cluster

        os.environ["RTKIT_CLUSTER"] = arguments.cluster  # notebooks look there
        try:
            cluster.backend(0)  # says now, not in a notebook, what the workers lack
        except ValueError as error:
            raise runner.UsageError(str(error)) from error
    if arguments.command == "run":
        status = runner.run([runner.find(word) for word in arguments.notebooks] or runner.paths(preset), given, preset)
    elif arguments.command == "study":
        _study(arguments.name, preset, arguments.tune, arguments.judge)
        if arguments.tune:
            return 0
    runner.print_scorecard(preset, as_json=getattr(arguments, "json", False))
    return status


def _study(word: str, preset: str, tune: bool, judge: bool) -> None:
    """Compute a notebook's studies that run at a preset and keep their records; or tune, or judge the kit's anew."""
    from rtkit import lesson, runner, store

    homes = {name: number for name, (number, _) in STUDIES.items()}
    numbers = homes | {number: number for number in homes.values()}
    if word not in numbers:
        raise runner.UsageError(runner.nearest("study", word, STUDIES))
    number = numbers[word]
    known = {name: presets for name, (home, presets) in STUDIES.items() if word in (name, home)}
    if not any(preset in presets for presets in known.values()):
        valid = dict.fromkeys(one for presets in known.values() for one in presets)
        raise runner.UsageError(f"{word} does not run at the preset {preset!r}, only at {', '.join(valid)}")
    runner.writable(store.RUNS if tune else (store.RESULTS if judge else store.RUNS / "records") / preset)
    path, values = lesson.path(number), {"preset": preset, "run": "kit" if judge else "mine"}
    try:
        space = lesson.execute(path, values, lesson.GRID if tune else lesson.STUDY)
        if tune:
            _tune(word, preset, space)
            return
    except ValueError as error:  # no such plan, or a data set that is missing or of no use
        raise runner.UsageError(str(error)) from error
    from rtkit import records
    from rtkit.judge import Judge

    judges = {found for found in space.values() if isinstance(found, Judge)}  # each once, by however many names
    for found in judges:
        if found.study in known and found.preset in (preset, *([PUBLISHED] if judge else [])):
            records.publish(found, store.RESULTS if judge else None)


def _tune(word: str, preset: str, space: dict) -> None:
    from rtkit import experiment, runner

    if "tried" not in space:
        raise runner.UsageError(f"{word} has nothing to tune")
    print(experiment.tune(space["tried_rows"], space["tried"], preset).round(1).to_string())


def _import(path: Path, to: str | None) -> int:
    from rtkit import checkpoints, published, runner

    folder = Path(to) if to else published.folder()
    try:
        made = checkpoints.convert(path, folder)
    except ValueError as error:
        raise runner.UsageError(str(error)) from error
    except OSError as error:
        raise runner.UsageError(f"{error.strerror}; name another folder with --to") from error
    print("\n".join(filter(None, (str(made), published.hint(made.stem)))))
    return 0


def _list() -> int:
    from rtkit import lesson, runner

    for path in runner.paths():
        print(f"{path.stem}\n    {lesson.title(path)}")
        for name, facts in runner.parameters(path).items():
            print(f"    -p {name} ({facts['inferred_type_name']}, default {facts['default']}): {facts['help']}")
    print("\nstudies: " + ", ".join(f"{name} (notebook {number})" for name, (number, _) in STUDIES.items()))
    print("presets: " + ", ".join(PRESETS))
    return 0


def _data(arguments: argparse.Namespace) -> int:
    from rtkit import runner
    from rtkit.data import downloads, named

    if arguments.action == "list":
        for name, state, text in downloads.listing():
            print(f"{name:<16} {state:<9} {text}")
        print(f"\nimages of your own: a folder of class folders in {named.folder()}; data/README.md gives the layouts")
        return 0
    name, present = arguments.name, named.names()
    if name not in named.TORCHVISION and name not in present:
        raise runner.UsageError(runner.nearest("data set", name, named.TORCHVISION))
    try:
        path = named.find(name) if name in present else downloads.get(name)
        print(f"{'present' if name in present else 'written'}: {path}")
    except ValueError as error:
        print(f"rtkit: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
