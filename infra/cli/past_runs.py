"""`sims runs`: what has been run in a store, and several runs beside each other."""

from __future__ import annotations

import json
import shlex
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.bucket import RemoteOption, remote_runs
from infra.cli.shell import (
    JsonOption,
    StoreOption,
    errors,
    existing_store,
    print_list,
    use_store,
)
from sims_core.common.errors import BadInput
from sims_core.common.shown import shown
from sims_core.common.values import shown_value

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.reports.past_runs import PastRun
    from sims_core.reports.side_by_side import RunComparison

runs_app = typer.Typer(no_args_is_help=True, help="Look at runs that have been made.")
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A name that `sims runs ls` lists.")
]


@runs_app.command("ls")
def runs_ls(
    store: StoreOption = None, remote: RemoteOption = False, as_json: JsonOption = False
) -> None:
    """List the runs, the latest first: when, preset, what differs from it, seeds, main figure."""
    with errors():
        if remote:
            with remote_runs() as (url, found):
                print_list(url, "runs", [_row(run) for run in found], _line, as_json)
            return
        from sims_core.reports.past_runs import past_runs

        opened = existing_store(store)
        rows = [_row(run) for run in past_runs(opened)]
        print_list(opened, "runs", rows, _line, as_json)


@runs_app.command("show")
def runs_show(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show a run: parameters, seeds, figures, machine, commit and where its files are."""
    with errors():
        from sims_core.reports.past_runs import find_run

        found = find_run(existing_store(store), run)
        if as_json:
            print(json.dumps({**found.content, **_row(found)}))
            return
        for name, value in _shown(found).items():
            print(f"{name}: {shown(value)}")


@runs_app.command("open")
def runs_open(run: RunArgument, store: StoreOption = None) -> None:
    """Open a run's report in the browser, and print its path."""
    with errors():
        from sims_core.reports.past_runs import find_run

        found = find_run(existing_store(store), run)
        if not found.report.is_file():
            raise BadInput(f"run {run} has no report: it has not ended")
        webbrowser.open(found.report.as_uri())
        print(found.report)


@runs_app.command("rm")
def runs_rm(
    runs: Annotated[list[str], typer.Argument(metavar="RUN [RUN ...]")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove runs: report, table and links. The artifacts stay, since other runs may share them:
    `sims store gc` removes those that nobody else needs."""
    with errors():
        from sims_core.reports.past_runs import find_run
        from sims_core.reports.upkeep import remove_run
        from sims_core.settings import writable_store

        existing_store(store)
        opened = writable_store()
        found = [find_run(opened, run) for run in dict.fromkeys(runs)]
        if not yes and not typer.confirm(f"remove {', '.join(run.name for run in found)}?"):
            raise typer.Exit(1)
        for run in found:
            freed = remove_run(opened, run.folder)
            print(f"removed {run.folder}; {freed} bytes of artifacts were needed by it alone")


@runs_app.command("export")
def runs_export(
    run: RunArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new one, for example run.tar.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run and all that it was made of to one file, from which another machine goes on."""
    with errors():
        from sims_core.reports.past_runs import find_run
        from sims_core.reports.run_archive import export_run
        from sims_core.settings import writable_store

        existing_store(store)
        opened = writable_store()
        target = file.expanduser().absolute()
        moved = export_run(opened, find_run(opened, run).folder, target)
        if as_json:
            print(json.dumps({"file": str(target), **asdict(moved)}))
            return
        print(f"wrote {target}: {moved.artifacts} artifacts, {moved.bytes} bytes")


@runs_app.command("import")
def runs_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `sims runs export` wrote.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a run from another store: every byte is checked before anything of it has a name."""
    with errors():
        from sims_core.reports.run_import import import_run
        from sims_core.settings import writable_store

        use_store(store)
        opened = writable_store()
        moved = import_run(opened, file.expanduser().absolute())
        if as_json:
            print(json.dumps({"store": str(opened.root), **asdict(moved)}))
            return
        print(
            f"run {shown(moved.run)} is in {opened.root}: {moved.new} of its {moved.artifacts} "
            f"artifacts are new{''.join(f', {shown(name)}' for name in moved.names)}"
        )


@runs_app.command("compare")
def runs_compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN [RUN ...]", help="Names, or paths of runs of other stores."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Write a page, CSV, Parquet, table.tex, figure.pdf, BibTeX.",
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs; those that differ in their seed alone are one, with bands over seeds."""
    with errors():
        from sims_core.reports.past_runs import find_run
        from sims_core.reports.side_by_side import compare_runs

        opened = existing_store(store)
        comparison = compare_runs([find_run(opened, run) for run in runs])
        written = []
        if out is not None:
            from sims_core.reports.side_by_side_files import write_comparison

            written = write_comparison(comparison, out.expanduser().absolute())
        if as_json:
            print(json.dumps(_comparison_row(comparison, written)))
            return
        for line in _comparison_lines(comparison):
            print(shown(line))
        for path in written:
            print(f"wrote {path}")


def _row(run: PastRun) -> dict[str, Any]:
    return {
        "run": run.name,
        "state": run.state,
        "when": run.written.isoformat(timespec="seconds"),
        "preset": run.preset,
        "differs": _differs(run),
        "seeds": list(run.seeds),
        "figure": _main_figure(run),
        "bytes": run.size,
    }


def _differs(run: PastRun) -> dict[str, Any] | None:
    """Parameters that are not the preset's own; None: not said, or the preset is gone."""
    from flows.parameters import differing
    from flows.presets import load_presets

    preset = load_presets().get(run.preset)
    if preset is None or not run.parameters:
        return None
    return differing(preset, run.asked)


def _main_figure(run: PastRun) -> str:
    """The run's metric at the end of each line, over seeds with its interval."""
    from sims_core.reports.lines import lines_of

    found = []
    try:
        lines = lines_of(run)
    except BadInput:  # its state says that something is amiss, `store verify` what
        return ""
    for line in lines:
        if over_seeds := line.over_seeds(run.figure):
            last = over_seeds[max(over_seeds)]
            interval = "" if last.low is None else f" [{last.low:.3f}, {last.high:.3f}]"
            found.append(f"{line.name} {last.mean:.3f}{interval}")
    return f"{run.figure.upper()}: {'; '.join(found)}" if found else ""


def _given(differs: dict[str, Any] | None) -> str:
    """The options of `sims run` that give these parameters: overrides take lists as JSON only."""
    if differs is None:
        return "(parameters not said)"
    texts = {
        name: json.dumps(value) if "." in name and isinstance(value, list) else shown_value(value)
        for name, value in differs.items()
    }
    return " ".join(f"-p {shlex.quote(f'{name}={text}')}" for name, text in texts.items())


def _in_kimg(differs: dict[str, Any] | None) -> str:
    """Those of the parameters that are in million images, in kimg as everything else is."""
    from sims_core.reports.summary import in_kimg

    told = {name: in_kimg(name, value) for name, value in (differs or {}).items()}
    return ", ".join(f"{name} is {each}" for name, each in told.items() if each)


def _line(row: dict[str, Any]) -> str:
    several = "s" if len(row["seeds"]) > 1 else ""
    seeds = f"seed{several} {','.join(map(str, row['seeds']))}" if row["seeds"] else "seed not said"
    first = f"{row['run']}  {row['when'][:16].replace('T', ' ')} UTC  {row['state']}"
    asked = " ".join(filter(None, (row["preset"], _given(row["differs"]))))
    asked = "; ".join(filter(None, (f"  {asked}", seeds, _in_kimg(row["differs"]))))
    if row["state"] == "unfinished" and row["preset"] == "?":
        asked = "  no page yet: what was asked is said after the first generation"
    lines = [f"{first}  {row['bytes'] / 1e6:.0f} MB", asked]
    lines += [f"  {row['figure']}"] if row["figure"] else []
    return "\n".join(map(shown, lines))


def _shown(run: PastRun) -> dict[str, str]:
    """What `show` prints."""
    said = run.provenance
    machine, times = said.get("machine") or {}, said.get("times") or {}
    so_far = {"ended": "latest stage ended"} if run.state == "unfinished" else {}
    found = {
        "run": run.name,
        "state": run.state,
        "preset": run.preset,
        "differs": _given(_differs(run)) or "in nothing from the preset",
        "budgets": _in_kimg(_differs(run)),
        "seeds": ", ".join(map(str, run.seeds)) or "not said",
        "answer": str(run.content.get("answer", "")),
        "figures": _main_figure(run),
        "stages": ", ".join(f"{k} {v}" for k, v in (run.content.get("stages") or {}).items()),
        "times": ", ".join(f"{so_far.get(name, name)} {value}" for name, value in times.items()),
        "code": f"version {said.get('version')}, commit {said.get('commit')}" if said else "",
        "libraries": ", ".join(f"{k} {v}" for k, v in (said.get("libraries") or {}).items()),
        "machine": ", ".join(
            str(machine[name]) for name in ("host", "cpu", "cores", "device") if name in machine
        ),
        "size": f"{run.size / 1e6:.0f} MB with artifacts that other runs may share",
        "table": str(run.folder / "metrics.parquet"),
        "report": str(run.report),
    }
    return {name: value for name, value in found.items() if value}


def _comparison_row(comparison: RunComparison, written: list[Path]) -> dict[str, Any]:
    return {
        "runs": [run.name for run in comparison.runs],
        "figures": [figure.name for figure in comparison.figures],
        "table": comparison.table_rows(),
        "differences": comparison.differences,
        "costs": comparison.cost_rows(),
        "notes": comparison.notes,
        "files": list(map(str, written)),
    }


def _comparison_lines(comparison: RunComparison) -> list[str]:
    """The main figure of each line, what differs, costs."""
    from sims_core.reports.summary import with_unit

    figure = comparison.figures[0]
    lines = [f"{figure.title} ({figure.better})"]
    for line in comparison.lines:
        symbol = f"{line.axis} = " if line.axis else ""
        over = (
            f"{f'{symbol}{x:g}: ' if symbol else ''}{found}"
            for x, found in line.over_seeds(figure.name).items()
        )
        lines.append(f"  {line.label}: {'; '.join(over)}")
    lines += [f"note: {note}" for note in comparison.notes]
    for name, values in comparison.differences.items():
        told = [with_unit(name, value) for value in values]
        lines.append(f"differs: {name}: {' | '.join(told)}")
    for row in comparison.cost_rows():
        spent = (f"{name} {value}" for name, value in row.items() if name != "run")
        lines.append(f"cost: {row['run']}: {', '.join(spent)}")
    return lines
