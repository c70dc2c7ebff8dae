"""A readout's folder is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from readout.errors import SpecError
from readout.memo.write import write

FILES: dict[str, bytes | str] = {"memo.md": "# é\n", "readout.json": "{}\n", "figures/effects.svg": b"<svg/>"}


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_everything_is_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "memos" / "router" / "2026-10-20"
    write(out, FILES)
    assert _tree(tmp_path) == {
        "memos/router/2026-10-20/memo.md": "# é\n".encode(),
        "memos/router/2026-10-20/readout.json": b"{}\n",
        "memos/router/2026-10-20/figures/effects.svg": b"<svg/>",
    }
    assert os.listdir(out.parent) == ["2026-10-20"]


def test_a_previous_readout_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "day"
    write(out, FILES)
    write(out, {"readout.json": "new"})
    assert _tree(tmp_path) == {"day/readout.json": b"new"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")])
@pytest.mark.parametrize("previous", [True, False])
def test_a_failure_midway_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, previous: bool
) -> None:
    out = tmp_path / "memos" / "day"
    if previous:
        write(out, FILES)
    before = _tree(tmp_path)
    written = Path.write_bytes

    def failing(self: Path, data: bytes) -> int:
        if self.name == "readout.json":
            raise error
        return written(self, data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(SpecError if isinstance(error, OSError) else type(error)) as caught:
        write(out, {"memo.md": "half", "readout.json": "{}"})
    assert _tree(tmp_path) == before
    assert os.listdir(tmp_path) == (["memos"] if previous else [])
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)


def test_an_interrupt_between_the_two_renames_restores_the_old_readout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "day"
    write(out, FILES)
    renamed = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise KeyboardInterrupt
        return renamed(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(out, {"readout.json": "new"})
    assert _tree(out) == {k: v.encode() if isinstance(v, str) else v for k, v in sorted(FILES.items())}
    assert os.listdir(tmp_path) == ["day"]


def test_a_folder_that_is_no_readout_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SpecError, match=r"holds no readout\.json"):
        write(tmp_path, FILES)
    with pytest.raises(SpecError, match="a file stands where"):
        write(tmp_path / "thesis.tex", FILES)
    with pytest.raises(SpecError, match="cannot be written here"):
        write(tmp_path / "thesis.tex" / "day", FILES)
    assert _tree(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "..\\x"])
def test_no_file_leaves_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="inside its folder"):
        write(tmp_path / "day", {path: "x"})
    assert os.listdir(tmp_path) == []
