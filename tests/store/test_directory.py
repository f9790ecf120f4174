"""A run directory keeps what was computed, and belongs to one model, data set and prompt."""

import itertools
import json
import os
import shutil
import signal

import pytest

from tests.robust.victim import Crash
from tests.store.made import IDENTITY, PAIRS, SETTINGS, failed, records
from voicepatch.errors import UserError
from voicepatch.program import program_hash
from voicepatch.store.directory import RunDir
from voicepatch.store.experiment import read_experiment


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "run")
    run.claim(IDENTITY)
    assert run.begin("prosody", SETTINGS, PAIRS) == 0
    return run


def fill(run):
    for i in range(3):
        run.append("prosody", records(i))


def test_an_experiment_whose_records_went_while_it_ran_is_not_marked_finished(run):
    run.append("prosody", records(0))
    run.records_file("prosody").unlink()
    for i in (1, 2):
        run.append("prosody", records(i))
    with pytest.raises(
        UserError, match="line 1: is of pair p1, layer 0, .* pair p0, .* run the same command again to complete it"
    ):
        run.finish("prosody", {"n_pairs": 3, "n_failed": 0})
    assert not run.config()["experiments"]["prosody"]["finished"]
    assert run.begin("prosody", SETTINGS, PAIRS) == 0


@pytest.mark.parametrize("harm", ["a line lost", "a line changed", "a line twice", "torn", "foreign"])
def test_a_finished_experiment_whose_records_are_damaged_is_completed_by_the_same_command(run, harm):
    fill(run)
    run.finish("prosody", {"n_pairs": 3, "n_failed": 0})
    path = run.records_file("prosody")
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    path.write_text(
        {
            "a line lost": "".join(lines[:3] + lines[4:]),
            "a line changed": whole.replace('"flip_from_base": true', '"flip_from_base": false'),
            "a line twice": "".join(lines[:4] + lines[3:]),
            "torn": whole[:-20],
            "foreign": whole + lines[0].replace('"p0"', '"p9"'),
        }[harm]
    )
    done = run.begin("prosody", SETTINGS, PAIRS)
    assert done == {"a line lost": 1, "a line changed": 0, "a line twice": 2, "torn": 2, "foreign": 3}[harm]
    assert run.remark.startswith("prosody was finished but is resumed, with a copy of its files in replaced-1: ")
    assert run.begin("prosody", SETTINGS, PAIRS) == done and not run.config()["experiments"]["prosody"]["finished"]
    for i in range(done, 3):
        run.append("prosody", records(i))
    run.finish("prosody", {"n_pairs": 3, "n_failed": 0})
    assert path.read_text() == whole and run.begin("prosody", SETTINGS, PAIRS) == 3
    assert (run.path / "replaced-1" / path.name).exists()  # nothing is lost


def test_failed_pairs_are_done_and_those_behind_a_damaged_record_are_not(run):
    run.append("prosody", records(0))
    run.append_failure("prosody", failed(1))
    run.append("prosody", records(2)[:1])
    assert run.begin("prosody", SETTINGS, PAIRS) == 2
    assert run.failures("prosody") == [failed(1)]


@pytest.mark.parametrize("rows", [{"layer": "0"}, {"site": None}, {"other": 1}])
def test_what_the_declaration_does_not_allow_is_never_written(run, rows):
    with pytest.raises(ValueError):
        run.append("prosody", [records(0)[0] | rows])
    assert not run.records_file("prosody").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe has no name here")
@pytest.mark.parametrize("which", ["records_file", "failures_file", "pairs_file"])
def test_a_pipe_where_a_file_should_be_is_refused_and_not_waited_for(run, which):
    run.append("prosody", records(0))
    path = getattr(run, which)("prosody")
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"{path.name}: cannot be read .not a regular file."):
        run.begin("prosody", SETTINGS, PAIRS)
    if which == "records_file":
        with pytest.raises(UserError, match="cannot be written"):
            run.append("prosody", records(0))


def test_records_are_counted_in_whole_pairs(run):
    for i in range(2):
        run.append("prosody", records(i))
    assert RunDir(run.path).begin("prosody", SETTINGS, PAIRS) == 2


def test_a_pair_of_fewer_rows_than_the_layers_is_done_again(run):
    run.append("prosody", records(0)[:1])
    assert run.begin("prosody", SETTINGS, PAIRS) == 0
    assert run.records_file("prosody").read_text() == ""


@pytest.mark.parametrize(
    "torn", ['{"pair_id": "p2", "la', json.dumps(records(2)[0]) + "\n"], ids=["in a line", "after one"]
)
def test_a_torn_tail_is_cut_off_and_the_rest_is_kept(run, torn):
    for i in range(2):
        run.append("prosody", records(i))
    whole = run.records_file("prosody").read_text()
    with run.records_file("prosody").open("a") as file:
        file.write(torn)
    assert run.begin("prosody", SETTINGS, PAIRS) == 2
    assert run.records_file("prosody").read_text() == whole


def test_a_tail_torn_in_the_midst_of_a_character_is_cut_off(run):
    for i in range(2):
        run.append("prosody", records(i))
    whole = run.records_file("prosody").read_bytes()
    run.records_file("prosody").write_bytes(whole + '{"pair_id": "p2", "clip_a": "é'.encode()[:-1])
    assert read_experiment(run.path, run.config(), "prosody").n_measured == 2  # a report may be made before
    assert run.begin("prosody", SETTINGS, PAIRS) == 2
    assert run.records_file("prosody").read_bytes() == whole


def test_nothing_is_trusted_from_a_damaged_line_on(run):
    for i in range(3):
        run.append("prosody", records(i))
    lines = run.records_file("prosody").read_bytes().splitlines(keepends=True)
    lines[3] = b"\0" * len(lines[3][:-1]) + b"\n"
    run.records_file("prosody").write_bytes(b"".join(lines))
    assert run.begin("prosody", SETTINGS, PAIRS) == 1
    assert run.records_file("prosody").read_bytes() == b"".join(lines[:2])


@pytest.mark.parametrize("part", ["model", "data", "task", "prompt", "labels"])
def test_another_model_data_set_or_prompt_is_refused(run, part):
    with pytest.raises(UserError, match=f"another {part}"):
        run.claim(IDENTITY | {part: IDENTITY[part] | {"other": 1}})
    assert run.config()["model"] == IDENTITY["model"]


def test_the_same_data_in_another_place_is_the_same(run):
    for noted in ({"source": "there"}, {"name": "renamed"}, {"warnings": ["folder results is ignored"]}):
        run.claim(IDENTITY | {"data": IDENTITY["data"] | noted})
        assert run.experiments() == ["prosody"] and noted.items() <= run.config()["data"].items()
    with pytest.raises(UserError, match="another data .sha256 was 2, is 3"):
        run.claim(IDENTITY | {"data": IDENTITY["data"] | {"sha256": "3"}})


def test_a_model_whose_family_has_another_name_is_the_same(run):
    run.claim(IDENTITY | {"model": IDENTITY["model"] | {"family": "OpenS2S", "frames_per_second": 6.25}})
    assert run.experiments() == ["prosody"] and run.config()["model"]["family"] == "OpenS2S"


def test_other_settings_are_refused_by_name(run):
    run.append("prosody", records(0))
    with pytest.raises(UserError, match="patch_alpha was 1.0, is 0.5") as caught:
        run.begin("prosody", SETTINGS | {"patch_alpha": 0.5}, PAIRS)
    assert caught.value.status == 2
    with pytest.raises(UserError, match="patch_alpha was 1.0, is 0.5"):
        run.refuse_other_settings("prosody", {"patch_alpha": 0.5})
    run.refuse_other_settings("prosody", {"patch_alpha": 1.0})


def test_an_experiment_that_gave_nothing_yet_may_begin_anew_with_other_settings(run):
    changed = SETTINGS | {"code_sha256": "corrected"}
    run.refuse_other_settings("prosody", changed)
    with run.records_file("prosody").open("w") as file:
        file.write('{"pair_id": "p0", "la')
    assert run.begin("prosody", changed, PAIRS[:2]) == 0
    assert run.config()["experiments"]["prosody"]["code_sha256"] == "corrected"
    assert not run.records_file("prosody").exists() and len(run.read_pairs("prosody")) == 2
    assert not list(run.path.glob("replaced-*"))


def test_other_pairs_are_refused(run):
    run.append("prosody", records(0))
    with pytest.raises(UserError, match="pair list differs"):
        run.begin("prosody", SETTINGS, PAIRS[:2])


def test_overwriting_copies_the_old_files_aside(run):
    run.append("prosody", records(0))
    old = run.records_file("prosody").read_text()
    run.begin("random-prosody", SETTINGS, PAIRS)
    assert run.begin("prosody", SETTINGS | {"patch_alpha": 0.5}, PAIRS, overwrite=True) == 0
    assert (run.path / "replaced-1" / run.records_file("prosody").name).read_text() == old
    assert not run.records_file("prosody").exists() and run.pairs_file("random-prosody").exists()
    assert run.config()["experiments"]["prosody"]["patch_alpha"] == 0.5


def test_overwriting_takes_what_was_drawn_and_computed_with_it_along(run):
    names = ("patching_metrics_prosody.csv", "controls_prosody.png", "contrast_prosody_vs_random-prosody.csv")
    for name in (*names, "patching_metrics_random-prosody.csv"):
        (run.path / name).write_text("old")
    run.append("prosody", records(0))
    run.begin("prosody", SETTINGS | {"patch_alpha": 0.5}, PAIRS, overwrite=True)
    assert all((run.path / "replaced-1" / name).exists() and not (run.path / name).exists() for name in names)
    assert (run.path / "patching_metrics_random-prosody.csv").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it is killed in forked processes")
@pytest.mark.parametrize("how", ["other settings", "damaged"])
def test_killed_while_it_is_replaced_each_copy_of_the_old_experiment_is_complete(run, how, tmp_path):
    """Killed at every change of the disk, then called again: each copy holds all old files as they were.

    One has the configuration too; where the experiment was taken out of it already, a second copy is without.
    """
    settings, names = SETTINGS, ["patching_config.json"]
    fill(run)
    run.finish("prosody", {"n_pairs": 3, "n_failed": 0})
    (run.path / "flip_rate_curve_prosody.png").write_bytes(b"figure")
    if how == "damaged":
        with run.records_file("prosody").open("a") as file:
            file.write("no record\n")
    else:
        settings = SETTINGS | {"patch_alpha": 0.5}
    names += [path.name for path in run.path.glob("*prosody*")]
    old = {name: (run.path / name).read_bytes() for name in names}
    config = {"patching_config.json": b""}

    def begin(folder):
        again = RunDir(folder)
        with again.in_use():
            again.begin("prosody", settings, PAIRS, overwrite=how != "damaged")

    kills = 0
    for crash_at in itertools.count(1):
        folder = shutil.copytree(run.path, tmp_path / f"crashed{crash_at}")
        child = os.fork()
        if child == 0:
            Crash(str(folder), crash_at)
            begin(folder)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        begin(folder)
        folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        copies = [{path.name: path.read_bytes() for path in copy.iterdir()} for copy in folders]
        assert [path.name for path in folders] == ["replaced-1", "replaced-2"][: len(folders)], crash_at
        assert copies[0] == old and all(copy | config == old | config for copy in copies), crash_at
        assert not list(folder.rglob("*.partial"))
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kills += 1
    assert kills > 10


def test_records_that_no_experiment_knows_are_copied_aside_before_they_go(run):
    run.append("prosody", records(0))
    old = run.records_file("prosody").read_bytes()
    run.write_json("patching_config.json", IDENTITY | {"experiments": {}})  # killed while it was overwriting
    assert run.begin("prosody", SETTINGS, PAIRS) == 0
    assert (run.path / "replaced-1" / run.records_file("prosody").name).read_bytes() == old


def test_metrics_of_the_first_pairs_do_not_outlive_the_end(run):
    fill(run)
    run.file("patching_metrics", "prosody", ".csv").write_text("half of the pairs")
    run.finish("prosody", {})
    assert not run.file("patching_metrics", "prosody", ".csv").exists()


def test_finishing_keeps_the_settings(run):
    fill(run)
    run.finish("prosody", {"n_pairs": 3})
    found = run.config()["experiments"]["prosody"]
    assert len(found.pop("files_sha256")) == 64 and found == SETTINGS | {"finished": True, "n_pairs": 3}


def test_a_number_that_is_none_is_never_written(run):
    with pytest.raises(ValueError):
        run.append("prosody", [records(0)[0] | {"stream_shift": float("nan")}])
    assert json.loads((run.path / "patching_config.json").read_text())["experiments"]


@pytest.mark.parametrize(("version", "named"), [("9.9.9", "9.9.9"), (None, "an earlier one")])
def test_a_run_of_another_version_is_refused_by_its_version(run, version, named):
    config = json.loads((run.path / "patching_config.json").read_text())
    settings = config["experiments"]["prosody"]
    del settings["engine"]  # what the other version did not know
    settings["versions"] = {"voicepatch": version} if version else {"torch": "1"}
    (run.path / "patching_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"experiment prosody was run with another version of the program \({named}; "):
        run.config()


@pytest.mark.parametrize("change", [lambda of: of.pop("by"), lambda of: of.update(later=1)], ids=["lacks", "has more"])
def test_a_run_of_other_code_with_other_settings_is_not_called_damaged(run, change):
    file = run.path / "patching_config.json"
    config = json.loads(file.read_text())
    change(config["experiments"]["prosody"])
    config["experiments"]["prosody"]["program_sha256"] = program_hash()
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match="is damaged"):  # by the hash, this program made it
        run.config()
    config["experiments"]["prosody"]["program_sha256"] = "0" * 64
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"made with other code of the program, .*; keep the folder and read it with"):
        run.config()


def test_a_damaged_configuration_is_named(run):
    (run.path / "patching_config.json").write_text("{")
    with pytest.raises(UserError, match="patching_config.json: is damaged"):
        run.config()
