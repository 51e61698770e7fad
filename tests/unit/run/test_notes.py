"""A note on a run: one line beside its log, also one that an editor wrote; what cannot be written is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from eegwatch.cli import main
from eegwatch.run.notes import LONGEST, NotNoted, note_of, write_note
from tests.conftest import ONE_CYCLE, LogWriter


def test_a_note_is_one_line_and_an_empty_one_is_removed(tmp_path: Path) -> None:
    assert note_of(tmp_path) == ""
    write_note(tmp_path, " two\nlines ")
    assert (tmp_path / "note.txt").read_text() == "two lines\n" and note_of(tmp_path) == "two lines"
    (tmp_path / "note.txt").write_bytes(b"\xff an editor's\n\nnote" + b"x" * 9999)
    assert note_of(tmp_path).startswith("\ufffd an editor's notexx") and len(note_of(tmp_path)) == LONGEST
    write_note(tmp_path, "  ")
    write_note(tmp_path, "")
    assert not (tmp_path / "note.txt").exists()


def test_a_note_that_is_too_long_or_has_no_place_is_refused_in_words(tmp_path: Path) -> None:
    write_note(tmp_path, "kept")
    with pytest.raises(NotNoted, match="at most 500 characters, this one has 501"):
        write_note(tmp_path, "x" * 501)
    with pytest.raises(NotNoted, match=r"gone/note.txt: No such file or directory"):
        write_note(tmp_path / "gone", "words")
    assert note_of(tmp_path) == "kept"


def test_the_shell_writes_shows_and_lists_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = LogWriter(tmp_path / "20261124-120000-a")
    writer.run(ONE_CYCLE)
    writer.healthy(1, 20, ONE_CYCLE)
    writer.log.close()
    assert main(["note", str(tmp_path), "lower", "LR"]) == 0
    assert main(["note", str(writer.folder)]) == 0
    assert capsys.readouterr().out == "20261124-120000-a: lower LR\n" * 2
    assert main(["runs", str(tmp_path)]) == 0
    assert "lower LR" in capsys.readouterr().out
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) in (0, 1)
    assert "lower LR" in (tmp_path / "r.html").read_text()
    assert main(["note", str(tmp_path / "nothing")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
