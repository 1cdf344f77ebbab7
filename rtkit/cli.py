"""The command line: `rtkit run`, `rtkit study`, `rtkit scorecard`."""

import argparse
import sys

from rtkit import PRESETS


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit status (2 where the arguments make no sense)."""
    parser = argparse.ArgumentParser(prog="rtkit", description="A study kit on robust transfer learning.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = {
        "choices": PRESETS,
        "default": "glyphs",
        "help": "world, network and budget (default: glyphs)",
    }
    run = commands.add_parser("run", help="execute the notebooks and print the scorecard")
    run.add_argument("--preset", **wanted)
    study = commands.add_parser("study", help="compute a study's frame and verdicts without Jupyter")
    study.add_argument("name", choices=["transfer"])
    study.add_argument("--preset", **wanted)
    study.add_argument("--tune", action="store_true", help="show the search for learning rates, on tuning seeds only")
    score = commands.add_parser("scorecard", help="print every claim with the verdict of your own runs")
    score.add_argument("--preset", **wanted)
    arguments = parser.parse_args(argv)

    # Imported here so that --help and a mistyped word answer at once.
    from rtkit import runner

    try:
        if arguments.command == "run":
            return runner.run(sorted(runner.NOTEBOOKS.glob("[0-9]*.ipynb")), arguments.preset)
        if arguments.command == "study":
            from rtkit.studies import transfer
            from rtkit.studies import transfer_effects as effects

            if arguments.tune:
                print(transfer.tuning(arguments.preset).round(1).to_string())
                return 0
            frame = transfer.run(arguments.preset)
            effects.publish(frame, arguments.preset)
        runner.print_scorecard(arguments.preset)
    except KeyboardInterrupt:
        print("interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
