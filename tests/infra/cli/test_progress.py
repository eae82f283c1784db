from __future__ import annotations

import io
import logging
import sys

import pytest

from infra.cli import progress
from infra.cli.progress import BarProgress, PlainProgress


def test_plain_progress_says_each_stage_once_and_a_long_one_at_intervals(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    shown = PlainProgress(12, stream)
    shown.started("", "prepare data")
    shown.advanced("prepare data", 1, 2, "img")
    shown.finished("", "prepare data", cached=False, seconds=1.25)
    shown.started("sims omega=1", "t=01 train base")
    for second in range(25):
        clock[0] = 101.0 + second
        shown.advanced("t=01 train base", second, 25, "img", loss=0.123456, img_per_s=1000.0)
    shown.finished("sims omega=1", "t=01 train base", cached=True, seconds=0.0)
    shown.close()
    assert stream.getvalue().splitlines() == [
        "[ 1/12] prepare data: 1.2 s",
        "[ 1/12] sims omega=1: t=01 train base: 9 of 25 img, loss 0.1235, img_per_s 1000",
        "[ 1/12] sims omega=1: t=01 train base: 19 of 25 img, loss 0.1235, img_per_s 1000",
        "[ 2/12] sims omega=1: t=01 train base: cached",
    ]


def test_a_label_that_begins_with_its_model_is_said_alone_and_no_run_exceeds_its_total():
    stream = io.StringIO()
    shown = PlainProgress(1, stream)
    for label in ("sims |D_p|=16 seed=0: train base", "train base"):
        shown.started("sims |D_p|=16 seed=0", label)
        shown.finished("sims |D_p|=16 seed=0", label, cached=False, seconds=1.0)
    assert stream.getvalue().splitlines() == [
        "[1/1] sims |D_p|=16 seed=0: train base: 1.0 s",
        "[2/2] sims |D_p|=16 seed=0: train base: 1.0 s",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["20", "80"])
def test_bars_on_a_terminal(columns, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    shown = BarProgress(3)
    try:
        for number, cached in enumerate([False, True, False]):
            shown.started("sims omega=1 |D_s|=32", f"t={number}")
            shown.advanced(f"t={number}", 1, 2, "img", loss=1.0)
            shown.finished("sims omega=1 |D_s|=32", f"t={number}", cached, 1.0)
            shown.advanced("late", 2, 2, "img")
    finally:
        shown.close()
    assert shown.progress.tasks[shown.run].completed == 3
    printed = " ".join(terminal.getvalue().split())
    assert "sims omega=1 |D_s|=32: t=0: 1.0 s" in printed
    assert "t=1: cached" not in printed


def test_options_in_what_stages_say_are_worded_as_the_command_line_writes_them(capsys):
    with progress.shown(PlainProgress(1)):
        logging.getLogger("sims_core.studies").warning("%s: pass `recompute` %s", "train", "train")
    assert "train: pass --recompute train\n" in capsys.readouterr().err
