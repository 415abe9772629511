"""One writer a folder; a resumed run is the same run; a crash at any point is mended by going on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ecg_vlm.cli import main
from render.dataset.llava import LlavaDialogues
from render.dataset.parquet import write_dataset
from render.dataset.rows import Options
from render.errors import InputError
from render.io import atomic_folder, atomic_write, exclusive, remove_partial, require_empty
from render.simulator.simulate import SimulatedSource
from render.sources.registry import digest_of, open_source
from render.statements import STATEMENTS

SMALL = Options(width=400, shard_size=2)


def crash(*words: object) -> dict[str, Any]:
    """Crash a command; see `crash_points`."""
    script = Path(__file__).with_name("crash_points.py")
    call = subprocess.run(
        [sys.executable, str(script), *map(str, words)], capture_output=True, text=True, timeout=600, check=False
    )
    assert call.returncode == 0, call.stderr
    result: dict[str, Any] = json.loads(call.stdout)
    return result


@pytest.mark.skipif(not hasattr(os, "fork"), reason="crashes are forked processes")
@pytest.mark.parametrize("form", ["parquet", "llava"])
def test_a_render_that_crashes_anywhere_goes_on_to_the_same_bytes(tmp_path, form):
    out = tmp_path / "parent" / "pages"
    words = ("render", "simulated", out, "--limit", 2, "--shard-size", 1, "--width", 400, "--format", form)
    result = crash(4, out, *words)
    assert result["failures"] == [] and result["points"] > 25


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills are of forked processes")
def test_a_render_that_is_killed_at_random_goes_on_to_the_same_bytes(tmp_path):
    out = tmp_path / "parent" / "pages"
    words = ("render", "simulated", out, "--limit", 2, "--shard-size", 1, "--width", 400)
    result = crash("random:3", out, *words)
    assert result["failures"] == [] and result["kills"] > 0 and result["files"] > 3


def test_a_folder_has_one_writer_at_a_time(tmp_path, capsys):
    out = tmp_path / "pages"
    with exclusive(out):
        assert main(["render", "simulated", str(out), "--limit", "1"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(
            f"{out}: another ecg-vlm is writing there; wait until it has ended, or name another folder"
        )
    assert not out.exists(), "nothing was written, so nothing is left"
    assert main(["render", "simulated", str(out), "--limit", "1", "--width", "400"]) == 0


def test_the_lock_ends_with_its_process(tmp_path):
    program = "import os, sys\nfrom render.io import exclusive\nwith exclusive(sys.argv[1]): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    with exclusive(tmp_path):
        pass


def test_a_file_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="is a file, not a folder"), exclusive(path):
            pass


def test_what_a_killed_process_leaves_is_no_content_and_is_removed(tmp_path):
    (tmp_path / "data").mkdir()
    writers = [atomic_write(path) for path in (tmp_path / "begun.json", tmp_path / "data" / ("n" * 240 + ".parquet"))]
    for writer in writers:
        writer.__enter__().write_text("half")
    exporter = atomic_folder(tmp_path / "export")
    folder = exporter.__enter__()
    (folder / "weights").write_text("half")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == 3
    own = tmp_path / ".own.ecg-vlm-notes"
    own.touch()
    remove_partial(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [own] and not folder.exists()
    with pytest.raises(InputError, match="not empty"):
        require_empty(tmp_path)


def test_a_folder_that_a_killed_process_began_is_removed_by_the_next_unless_it_is_in_use(tmp_path):
    program = """
import os, sys
from render.io import atomic_folder
with atomic_folder(sys.argv[1]) as folder:
    (folder / "weights").touch()
    os._exit(9)
"""
    out = tmp_path / "export"
    assert subprocess.run([sys.executable, "-c", program, str(out)], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    with atomic_folder(out) as first:
        assert not left.exists()
        with atomic_folder(out) as second:
            assert first.exists() and second.exists()


def test_a_folder_with_temporary_files_alone_is_empty(tmp_path):
    writer = atomic_write(tmp_path / "begun.json")
    writer.__enter__()
    assert list(tmp_path.iterdir())
    require_empty(tmp_path)


def interrupt(count: int, total: int) -> None:
    if count == 1:
        raise KeyboardInterrupt


def test_another_source_of_the_same_size_is_not_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_dataset(SimulatedSource(3, 4), tmp_path / "d", SMALL, progress=interrupt)
    for other in (SimulatedSource(4, 4), SimulatedSource(3, 4, ("AFIB",))):
        with pytest.raises(InputError, match="was started with other records, labels or folds of the source"):
            write_dataset(other, tmp_path / "d", SMALL, resume=True)
    assert write_dataset(SimulatedSource(3, 4), tmp_path / "d", SMALL, resume=True)["pages"] == 4


def _ptbxl_tables(folder: Path) -> Path:
    """PTB-XL's tables without signals: four records in folds 1, 1, 2 and 2."""
    folder.mkdir()
    columns = "ecg_id,patient_id,age,sex,report,scp_codes,validated_by_human,strat_fold,filename_lr,filename_hr"
    rows = [f"{n},1,60,0,sinus,\"{{'NORM': 100.0}}\",True,{1 + n // 2},a,b" for n in range(4)]
    (folder / "ptbxl_database.csv").write_text("\n".join([columns, *rows]), encoding="utf-8")
    codes = "".join(f"{code},{each.superclass}\n" for code, each in STATEMENTS.items())
    (folder / "scp_statements.csv").write_text(f",diagnostic_class\n{codes}", encoding="utf-8")
    return folder


def test_other_folds_and_changed_labels_are_another_source_a_moved_folder_is_not(tmp_path):
    folder = _ptbxl_tables(tmp_path / "ptbxl")
    sources = {fold: open_source(f"ptbxl:{folder}", folds=[fold]) for fold in (1, 2)}
    digests = {fold: digest_of(source) for fold, source in sources.items()}
    assert len(sources[1]) == len(sources[2]) and digests[1] != digests[2] and "" not in digests.values()
    assert digest_of(open_source(f"ptbxl:{folder}", folds=[1], limit=1)) not in digests.values()
    new_place = folder.rename(tmp_path / "new_place")
    assert digest_of(open_source(f"ptbxl:{new_place}", folds=[1])) == digests[1]
    table = new_place / "ptbxl_database.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("'NORM'", "'LVH'", 1), encoding="utf-8")
    assert digest_of(open_source(f"ptbxl:{new_place}", folds=[1])) != digests[1]


def test_other_dialogues_are_not_resumed(tmp_path):
    file = tmp_path / "dialogues.json"
    turns = [{"from": "human", "value": "Rhythm?"}, {"from": "gpt", "value": "Sinus rhythm."}]
    extras = {"source": "simulated", "image": "a.png", "conversations": turns}
    samples = [{"record_id": f"sim-3-{n}", **extras} for n in range(4)]
    file.write_text(json.dumps(samples), encoding="utf-8")

    def render(**arguments):
        dialogues = LlavaDialogues(file, "simulated")
        return write_dataset(SimulatedSource(3, 4), tmp_path / "d", SMALL, dialogue_source=dialogues, **arguments)

    with pytest.raises(KeyboardInterrupt):
        render(progress=interrupt)
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("Rhythm?", "Rhythm!"), encoding="utf-8")
    with pytest.raises(InputError, match="was started with other dialogues"):
        render(resume=True)
    file.write_text(text, encoding="utf-8")
    assert render(resume=True)["pages"] == 4
