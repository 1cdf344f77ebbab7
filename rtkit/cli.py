"""The command line; `rtkit --help` lists the commands."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from rtkit import PRESETS, PUBLISHED, RENAMED, STUDIES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rtkit", description="A study kit on robust transfer learning.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, do: Callable, to=commands, preset: bool = False) -> Callable:
        command = to.add_parser(name, help=text, description=text)
        command.set_defaults(do=do)
        if preset:
            command.add_argument("--preset", help=f"one of {', '.join(PRESETS)} (default: glyphs)")
        return command.add_argument

    run = add("run", "execute notebooks, each in a process of its own, and print the scorecard", _run, preset=True)
    run("notebooks", nargs="*", metavar="NOTEBOOK", help="a number such as 01, or a file (default: all)")
    run("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters",
        help="a notebook's parameter, such as -p seeds '[0, 1]' (see rtkit list)")  # fmt: skip
    run("--first", action="store_true", help="of the replicates that each notebook has at the preset the first alone")
    study = add("study", "compute a study's frame and verdicts without Jupyter", _study, preset=True)
    study("name", metavar="NAME", help="the number of a notebook, or a study (see rtkit list)")
    study("--tune", action="store_true", help="show the search for learning rates, on tuning seeds only")
    study("--judge", action="store_true", help="judge the frame that comes with the kit anew, beside it")
    text = "write the protocol of its next ten seeds, at so many core-hours (docs/protocols.md)"
    study("--register", type=float, metavar="HOURS", help=text)
    study("--replicates", type=int, default=10, choices=range(5, 11), metavar="N", help="of that protocol, 5 to 10")
    for one in (run, study):
        one("--cluster", metavar="ADDRESS", help="a Dask scheduler whose workers compute (docs/clusters.md)")
    add("list", "list notebooks with their parameters, studies and presets", _list)
    text = "print every claim with the verdict of your own runs"
    score = add("scorecard", text, lambda a, preset: _module("runner").print_scorecard(preset, a.json), preset=True)
    score("--json", action="store_true", help="as a list of objects")
    add("compare", "compare your own run with what comes with the kit, number by number", _compare, preset=True)
    text = "write the executed notebooks and the scorecard as HTML to be read offline"
    add("report", text, lambda _, preset: _module("report").main(preset), preset=True)
    text = "list the data sets of real images, or download one"
    data = commands.add_parser("data", help=text, description=text)
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    add("list", "list what is present under data/, and how to get the rest", _data_list, actions)
    get = add("get", "download a data set through torchvision, to data/NAME.npz", _data_get, actions)
    get("name", metavar="NAME", help="a data set (see rtkit data list)")
    convert = add("import-checkpoint", "convert published network weights, executing nothing in them", _import)
    convert("file", metavar="FILE", type=Path, help="as published, such as resnet50_l2_eps3.ckpt")
    convert("--to", metavar="FOLDER", type=Path, help="where the safetensors go (default: data/checkpoints)")
    text = "tell what this machine offers: versions, device, number format, data; and what is stale"
    doctor = add("doctor", text, lambda arguments, _: _module("doctor").main(arguments.tidy))
    doctor("--tidy", action="store_true", help="delete what no code reads any more from the cache")
    return parser


def _module(name: str):
    """A module of the kit, imported when a command needs it, so that --help answers at once."""
    return import_module(f"rtkit.{name}")


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit status (2 where the arguments make no sense)."""
    parser = _parser()
    arguments, runner = parser.parse_args(argv), _module("runner")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a letter shows a question mark
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that no kernel is left behind
    try:
        return arguments.do(arguments, _preset(arguments)) or 0
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


def _preset(arguments: argparse.Namespace) -> str:
    """The preset that was asked for, by --preset or as a parameter; and a cluster that was named is looked at."""
    runner = _module("runner")
    found = [value for name, value in getattr(arguments, "parameters", []) if name == "preset"]
    found += [arguments.preset] if getattr(arguments, "preset", None) else []
    preset = found[0] if found else "glyphs"
    if preset not in PRESETS:
        raise runner.UsageError(RENAMED.get(preset) or runner.nearest("preset", preset, PRESETS))
    if getattr(arguments, "cluster", None):
        os.environ["RTKIT_CLUSTER"] = arguments.cluster  # notebooks look there
        try:
            _module("cluster").connect(arguments.cluster)  # says now, not in a notebook, what the workers lack
        except ValueError as error:
            raise runner.UsageError(str(error)) from error
    return preset


def _run(arguments: argparse.Namespace, preset: str) -> int:
    runner = _module("runner")
    pairs = [("preset", arguments.preset)] if arguments.preset else []
    pairs += arguments.parameters
    if len(dict(pairs)) < len(pairs):
        raise runner.UsageError(f"a parameter is given twice: {', '.join(name for name, _ in pairs)}")
    paths = [runner.find(word) for word in arguments.notebooks] or runner.paths(preset)
    if runner.run(paths, dict(pairs), preset, arguments.first):
        return 1  # what failed stays the last thing said
    return runner.print_scorecard(preset)


def _study(arguments: argparse.Namespace, preset: str) -> None:
    """Compute a notebook's studies that run at a preset and keep their records; or tune, or judge the kit's anew."""
    lesson, runner, store, word = _module("lesson"), _module("runner"), _module("store"), arguments.name
    tune, judge, register = arguments.tune, arguments.judge, arguments.register
    known = {name: presets for name, (home, presets) in STUDIES.items() if word in (name, home)}
    if not known:
        raise runner.UsageError(runner.nearest("study", word, STUDIES))
    if not any(preset in presets for presets in known.values()):
        valid = dict.fromkeys(one for presets in known.values() for one in presets)
        raise runner.UsageError(f"{word} does not run at the preset {preset!r}, only at {', '.join(valid)}")
    runner.writable(
        store.RUNS if tune else store.RESULTS / preset if judge or register else store.RUNS / "records" / preset
    )
    path, values = lesson.path(STUDIES[next(iter(known))][0]), {"preset": preset, "run": "kit" if judge else "mine"}
    try:
        space = lesson.execute(path, values, lesson.GRID if tune or register else lesson.STUDY)
        if register:
            study = next(name for name in known if preset in known[name])
            facts = _module("protocols").register(
                _module(f"measure.{study}").rows, space["cells"], preset, register, arguments.replicates
            )
            seeds, cost = f"{facts['seeds'][0]} to {facts['seeds'][-1]}", f"{facts['core_hours']} core-hours in all"
            return print(f"{study}, version {facts['version']}: seeds {seeds}, {facts['cells']} cells each, {cost}")
        if tune:
            if "tried" not in space:
                raise runner.UsageError(f"{word} has nothing to tune")
            found = _module("experiment").tune(space["tried_rows"], space["tried"], preset)
            return print(found.round(1).to_string())
    except ValueError as error:  # no such plan, or a data set that is missing or of no use
        raise runner.UsageError(str(error)) from error
    records = _module("records")
    for found in {found for found in space.values() if isinstance(found, records.Judge)}:  # each once, by any name
        if found.study in known and found.preset in (preset, *([PUBLISHED] if judge else [])):
            records.publish(found, store.RESULTS if judge else None)
    runner.print_scorecard(preset)


def _compare(_, preset: str) -> None:
    found = [_module("records").compare(study, preset) for study in STUDIES]
    print("\n".join(filter(None, found)) or f"nothing to compare: run `rtkit run --preset {preset} -p run mine` first")


def _import(arguments: argparse.Namespace, _) -> None:
    published, runner = _module("published"), _module("runner")
    try:
        made = _module("checkpoints").convert(arguments.file, arguments.to or published.folder())
    except ValueError as error:
        raise runner.UsageError(str(error)) from error
    except OSError as error:
        raise runner.UsageError(f"{error.strerror}; name another folder with --to") from error
    print("\n".join(filter(None, (str(made), published.hint(made.stem)))))


def _list(*_) -> None:
    lesson, runner = _module("lesson"), _module("runner")
    for path in runner.paths():
        print(f"{path.stem}\n    {lesson.title(path)}")
        for name, facts in runner.parameters(path).items():
            print(f"    -p {name} ({facts['inferred_type_name']}, default {facts['default']}): {facts['help']}")
    print("\nstudies: " + ", ".join(f"{name} (notebook {number})" for name, (number, _) in STUDIES.items()))
    print("presets: " + ", ".join(PRESETS))


def _data_list(*_) -> None:
    for name, state, text in _module("data.downloads").listing():
        print(f"{name:<16} {state:<9} {text}")
    folder = _module("data.named").folder()
    print(f"\nimages of your own: a folder of class folders in {folder}; data/README.md gives the layouts")


def _data_get(arguments: argparse.Namespace, _) -> int:
    named, runner, name = _module("data.named"), _module("runner"), arguments.name
    present = name in named.names()
    if name not in named.TORCHVISION and not present:
        raise runner.UsageError(runner.nearest("data set", name, named.TORCHVISION))
    try:
        path = named.find(name) if present else _module("data.downloads").get(name)
    except ValueError as error:
        print(f"rtkit: {error}", file=sys.stderr)
        return 1
    print(f"{'present' if present else 'written'}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
