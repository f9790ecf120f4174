"""A number that is none, a clip that cannot be read, and silence: said with the place, listed, never in a metric."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from interventions import load_intervention, load_subject
from pairs import build_pairs
from tests.commands import MODEL, NO_FIGURES, call, rows
from tests.small import small_model
from voicepatch.engine.failures import NotFinite
from voicepatch.engine.sounds import Sounds
from voicepatch.errors import UserError
from voicepatch.paths import DEMO_DATA
from voicepatch.runs.executor import LocalExecutor
from voicepatch.runs.experiment import run_experiment
from voicepatch.runs.pair_loop import run_pairs
from voicepatch.runs.preflight import _in_random_order
from voicepatch.store.directory import RunDir
from voicepatch.types.settings import Settings

LAYERS = (0, 3)
HUGE = 1e9


@pytest.fixture(scope="module")
def data(demo_data):
    return demo_data


@pytest.fixture(scope="module")
def sample(data):
    return build_pairs(data.clips, "prosody", max_pairs=12, both_directions=True)


@pytest.fixture(params=["tail", "sweep", "stepwise"])
def engine(request):
    return request.param


@pytest.fixture
def poisoned(monkeypatch):
    """Gives a model whose layer 2 makes NaN of one clip's stream, and knows that clip by its huge frames."""

    def make(clip_id, engine="tail"):
        sound = Sounds._sound

        def loud(store, clip):
            heard = sound(store, clip)
            if clip.clip_id != clip_id:
                return heard
            frames = heard.encode() * HUGE
            return type(heard)(lambda: frames, heard.n_samples)

        def to_nan(module, args):  # before the block: what it gives has been read before a hook behind it could act
            return torch.where(args[0].abs() > HUGE / 1e3, torch.nan, args[0]), *args[1:]

        monkeypatch.setattr(Sounds, "_sound", loud)
        subject = load_subject(small_model(), device="cpu", engine=engine)
        subject.model.llm.model.layers[2].register_forward_pre_hook(to_nan)
        return subject

    return make


def run(subject, data, sample, out, **settings):
    said = []
    made = Settings("prosody", max_pairs=12, layers=LAYERS, **settings)
    run_experiment(LocalExecutor(subject), data, RunDir(out), load_intervention("patch"), sample, made, said.append)
    return said


def of_two_pairs(sample):
    """A clip of exactly two pairs, neither of them among the first two, and the ids of those pairs."""
    for clip in (clip for pair in sample.pairs[2:] for clip in (pair.a, pair.b)):
        users = [pair for pair in sample.pairs if clip.clip_id in (pair.a.clip_id, pair.b.clip_id)]
        if len(users) == 2 and not set(users) & set(sample.pairs[:2]):
            return clip.clip_id, [pair.pair_id for pair in users]
    raise AssertionError("the sample has no such clip")


@pytest.mark.parametrize("role", ["a", "b"])
def test_a_stream_that_is_not_finite_is_named_with_clip_and_layer(sample, poisoned, engine, role):
    pair = sample.pairs[0]
    clip_id = getattr(pair, role).clip_id
    with pytest.raises(NotFinite, match=f"clip {clip_id}: its residual stream is not finite from layer 2 on"):
        list(run_pairs(poisoned(clip_id, engine), load_intervention("patch"), [pair], layers=LAYERS))


def test_a_readout_that_only_the_patch_spoils_is_named_with_its_layer(sample):
    subject, pair = load_subject(small_model(), device="cpu", engine="sweep"), sample.pairs[0]

    def spoil(module, args):
        hidden = args[0].clone()
        hidden[2:] = torch.nan  # the row that began at layer 3
        return hidden

    subject.model.llm.lm_head.register_forward_pre_hook(spoil)
    with pytest.raises(NotFinite, match=f"clip {pair.a.clip_id}, patched at layer 3: its readout is not finite"):
        list(run_pairs(subject, load_intervention("patch"), [pair], layers=LAYERS))


def test_a_pair_that_fails_is_recorded_and_the_others_go_on(data, sample, poisoned, tmp_path):
    clip_id, users = of_two_pairs(sample)
    said = run(poisoned(clip_id), data, sample, tmp_path, max_failed=2 / 12)
    failed = rows(tmp_path / "failed_pairs_prosody.jsonl")
    assert [row["pair_id"] for row in failed] == users
    assert all(f"clip {clip_id}" in row["reason"] and "layer 2" in row["reason"] for row in failed)
    measured = [row["pair_id"] for row in rows(tmp_path / "patching_records_prosody.jsonl")]
    expected = [pair.pair_id for pair in sample.pairs if pair.pair_id not in users]
    assert measured == [pair_id for pair_id in expected for _ in LAYERS]
    assert RunDir(tmp_path).config()["experiments"]["prosody"]["finished"]
    assert "2 of 12 pairs gave no record" in said[-1]


def test_too_many_failed_pairs_stop_the_run(data, sample, poisoned, tmp_path):
    clip_id, users = of_two_pairs(sample)
    with pytest.raises(UserError, match=r"2 of 12 pairs failed, more than 10.00% \(--max-failed\): clip") as caught:
        run(poisoned(clip_id), data, sample, tmp_path, max_failed=0.1)
    assert caught.value.status == 1
    assert [row["pair_id"] for row in rows(tmp_path / "failed_pairs_prosody.jsonl")] == users
    assert not RunDir(tmp_path).config()["experiments"]["prosody"]["finished"]
    assert rows(tmp_path / "patching_records_prosody.jsonl"), "what was computed before is kept"


def test_a_run_without_a_single_record_says_so(data, sample, poisoned, tmp_path):
    clip_id, users = of_two_pairs(sample)
    theirs = replace(sample, pairs=tuple(pair for pair in sample.pairs if pair.pair_id in users))
    with pytest.raises(UserError, match="none of the 2 pairs gave a record; see .*failed_pairs_prosody.jsonl"):
        run(poisoned(clip_id), data, theirs, tmp_path, max_failed=1)


def test_a_resumed_run_with_failed_pairs_equals_an_undisturbed_one(data, sample, poisoned, tmp_path, monkeypatch):
    clip_id, _ = of_two_pairs(sample)
    run(poisoned(clip_id), data, sample, tmp_path / "whole", max_failed=1)
    files = ("patching_records_prosody.jsonl", "failed_pairs_prosody.jsonl", "pair_list_prosody.jsonl")
    subject = poisoned(clip_id)

    for stop_after in (1, 4, 8):
        out, count = tmp_path / str(stop_after), [0]

        def stop(method, count=count, stop_after=stop_after):
            def write(self, *args):
                method(self, *args)
                count[0] += 1
                if count[0] == stop_after:
                    raise KeyboardInterrupt

            return write

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            for name in ("append", "append_failure"):
                patched.setattr(RunDir, name, stop(getattr(RunDir, name)))
            run(subject, data, sample, out, max_failed=1)
        for file in files[:2]:  # and torn in the midst of a line
            with (out / file).open("a", encoding="utf-8") as torn:
                torn.write('{"pair_id": "pros')
        run(subject, data, sample, out, max_failed=1)
        for file in files:
            assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), (stop_after, file)


def test_a_scale_too_large_for_the_dtype_fails_the_pair_and_the_records_stay_json(tmp_path):
    words = [
        "noise",
        "--scale",
        "1,1e30",
        "--layers",
        "0,3",
        "--max-pairs",
        "2",
        "--max-failed",
        "1",
        *MODEL,
    ]
    assert "none of the 2 pairs gave a record" in call(*words, "--out", tmp_path / "run", status=1)
    failed = rows(tmp_path / "run" / "failed_pairs_noise-prosody.jsonl")
    assert (
        all("clip " in row["reason"] and "patched at layer 0" in row["reason"] for row in failed) and len(failed) == 2
    )


class TestClips:
    @pytest.fixture
    def corpus(self, tmp_path):
        """Two texts of the demo in all voices, one of whose clips is spoilt by the test."""
        folder = tmp_path / "corpus"
        texts = [row for row in rows(DEMO_DATA / "text.jsonl")][:3]
        folder.mkdir()
        (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
        for row in texts:
            for path in DEMO_DATA.glob(f"*/{row['text_id']}.flac"):
                (folder / path.parent.name).mkdir(exist_ok=True)
                shutil.copy(path, folder / path.parent.name)
        return folder, texts[0]["text_id"]

    def call(self, folder, out, *options, status=0):
        words = (
            "patch",
            "--no-need",
            "--kind",
            "prosody",
            "--data",
            folder,
            "--out",
            out,
            "--layers",
            "0,3",
            *MODEL,
            NO_FIGURES,
        )
        return call(*words, *options, status=status)

    def test_an_unreadable_clip_stops_the_run_before_it_begins(self, corpus, tmp_path):
        folder, text = corpus
        for voice in ("happy", "sad"):
            (folder / voice / f"{text}.flac").write_bytes(b"fLaC, but no more")
        line = self.call(folder, tmp_path / "run", status=1).strip().splitlines()[-1]
        assert line.startswith("error: 2 of 15 clips cannot be read: clip") and "--on-bad-clip skip" in line
        found = json.loads((tmp_path / "run" / "sanity_check_sounds.json").read_text(encoding="utf-8"))["prosody"]
        assert [f"{text}.flac" in clip["reason"] for clip in found["unreadable"]] == [True, True]
        assert not (tmp_path / "run" / "patching_records_prosody.jsonl").exists()

    def test_a_stopped_run_goes_on_with_skip_and_lists_the_pairs_left_out(self, corpus, tmp_path):
        folder, text = corpus
        (folder / "happy" / f"{text}.flac").write_bytes(b"")
        self.call(folder, tmp_path / "run", status=1)
        said = self.call(folder, tmp_path / "run", "--on-bad-clip", "skip")
        assert "warning: 1 of 15 clips cannot be read" in said and "4 of 30 pairs gave no record" in said
        failed = rows(tmp_path / "run" / "failed_pairs_prosody.jsonl")
        assert len(failed) == 4 and all(row["skipped"] and f"{text}.flac" in row["reason"] for row in failed)
        measured = {row["pair_id"] for row in rows(tmp_path / "run" / "patching_records_prosody.jsonl")}
        assert len(measured) == 26 and not measured & {row["pair_id"] for row in failed}
        assert "done already" in self.call(folder, tmp_path / "run", "--on-bad-clip", "skip")

    @pytest.fixture
    def locked(self, corpus, monkeypatch):
        """The paths that nobody may open, one clip's; root may open all, so the system's answer is given here."""
        folder, text = corpus
        locked, opened = {folder / "happy" / f"{text}.flac"}, os.open

        def refuse(name, *args, **how):
            if Path(os.fsdecode(name)) in locked:
                raise PermissionError(errno.EACCES, "Permission denied", name)
            return opened(name, *args, **how)

        monkeypatch.setattr(os, "open", refuse)
        return locked

    def test_a_clip_without_read_permission_stops_the_run_in_a_line_and_is_skipped(self, corpus, locked, tmp_path):
        folder, (path,) = corpus[0], locked
        line = self.call(folder, tmp_path / "run", status=1).strip().splitlines()[-1]
        assert line.startswith(f"error: {path}: cannot be read (Permission denied); put clip") and "skip" in line
        assert not (tmp_path / "run" / "patching_config.json").exists()
        said = self.call(folder, tmp_path / "run", "--on-bad-clip", "skip")
        assert f"warning: 1 of 15 clips cannot be read: {path.stem}_happy" in said
        failed = rows(tmp_path / "run" / "failed_pairs_prosody.jsonl")
        assert len(failed) == 4 and all(row["skipped"] and str(path) in row["reason"] for row in failed)
        assert len({row["pair_id"] for row in rows(tmp_path / "run" / "patching_records_prosody.jsonl")}) == 26
        assert "done already" in self.call(folder, tmp_path / "run", "--on-bad-clip", "skip")
        words = ("check", "--data", folder, "--out", tmp_path / "run", "--on-bad-clip", "skip", *MODEL)
        assert "all checks passed" in call(*words)

    def test_a_clip_that_can_be_read_only_later_stays_left_out(self, corpus, locked, tmp_path, monkeypatch):
        """Nothing says what its content should be, so it belongs to another data set."""
        claim = RunDir.claim
        monkeypatch.setattr(RunDir, "claim", lambda *args: (claim(*args), locked.clear()))
        said = self.call(corpus[0], tmp_path / "run", "--on-bad-clip", "skip")
        assert "4 of 30 pairs gave no record" in said and not locked
        failed = rows(tmp_path / "run" / "failed_pairs_prosody.jsonl")
        assert all("could not be read when the run began" in row["reason"] for row in failed)

    def test_a_clip_longer_than_the_limit_is_a_bad_clip_and_an_option_raises_it(self, corpus, tmp_path):
        folder, text = corpus
        sound, path = np.random.default_rng(0).uniform(-0.1, 0.1, 16_000 * 12), folder / "happy" / f"{text}.flac"
        soundfile.write(path, sound, 16_000)
        line = self.call(folder, tmp_path / "run", "--max-seconds", "11", status=1).strip().splitlines()[-1]
        assert f"{path}: lasts 12 s by its header, and at most 11 s are read" in line and "--max-seconds" in line
        said = self.call(folder, tmp_path / "run", "--max-seconds", "11", "--on-bad-clip", "skip")
        assert "4 of 30 pairs gave no record" in said
        self.call(folder, tmp_path / "other", "--max-seconds", "12")
        found = json.loads((tmp_path / "other" / "sanity_check_sounds.json").read_text(encoding="utf-8"))["prosody"]
        ran = json.loads((tmp_path / "other" / "patching_config.json").read_text(encoding="utf-8"))["experiments"]
        assert found["passed"] and ran["prosody"]["max_seconds"] == 12
        assert not (tmp_path / "other" / "failed_pairs_prosody.jsonl").exists()

    def test_a_clip_that_changes_meanwhile_ends_the_run_and_nothing_is_lost(self, corpus, tmp_path, monkeypatch):
        folder, out = corpus[0], tmp_path / "run"
        self.call(folder, tmp_path / "undisturbed")
        originals = {path: path.read_bytes() for path in folder.glob("sad/*.flac")}
        append = RunDir.append

        def swap(run, name, records):
            append(run, name, records)
            for path in originals:
                path.write_bytes((folder / "happy" / path.name).read_bytes())

        monkeypatch.setattr(RunDir, "append", swap)
        monkeypatch.setattr("voicepatch.engine.sounds.N_PREFETCHED", 1)
        line = self.call(folder, out, status=1).strip().splitlines()[-1]
        assert line.startswith(f"error: {folder}/sad/") and "has changed since the run began" in line
        assert rows(out / "patching_records_prosody.jsonl")
        monkeypatch.undo()
        assert "another data" in self.call(folder, out, status=1)
        for path, content in originals.items():
            path.write_bytes(content)
        self.call(folder, out)
        files = [path / "patching_records_prosody.jsonl" for path in (out, tmp_path / "undisturbed")]
        assert rows(files[0]) == rows(files[1])

    def test_no_readable_clip_is_no_run(self, corpus, tmp_path):
        folder, _ = corpus
        for path in folder.glob("*/*.flac"):
            path.write_bytes(b"")
        line = self.call(folder, tmp_path / "run", "--on-bad-clip", "skip", status=1).strip().splitlines()[-1]
        assert line.startswith("error: 15 of 15 clips cannot be read")

    def test_silence_is_allowed_and_warned_of(self, corpus, tmp_path):
        folder, text = corpus
        soundfile.write(folder / "happy" / f"{text}.flac", np.zeros(32_000), 16_000)
        said = self.call(folder, tmp_path / "run")
        assert "warning: 1 of 15 clips are silence: " in said
        found = json.loads((tmp_path / "run" / "sanity_check_sounds.json").read_text(encoding="utf-8"))["prosody"]
        assert found["passed"] and len(found["silent"]) == 1
        assert not (tmp_path / "run" / "failed_pairs_prosody.jsonl").exists()


def test_clips_that_give_no_number_are_left_out_of_the_checks(data, sample, poisoned, tmp_path):
    first = _in_random_order(data, 42)[0].clip_id
    run(poisoned(first), data, sample, tmp_path, max_failed=1)
    spans = json.loads((tmp_path / "sanity_check_audio_span.json").read_text(encoding="utf-8"))
    assert [clip["clip_id"] for clip in spans["left_out"]] == [first] and len(spans["clips"]) == 5
