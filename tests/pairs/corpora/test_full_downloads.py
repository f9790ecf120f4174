"""A full download offers the pairs that the list of corpora says, and its names can stand in files and reports."""

import re
from itertools import product

import pytest

from pairs.corpora import recognise
from pairs.corpora.corpus import declared_corpora
from pairs.corpora.read import read_corpus
from tests.pairs.corpora import names
from voicepatch.types.task import default_task

BY_NAME = {corpus.name: corpus for corpus in declared_corpora()}
FIT = re.compile(r"[A-Za-z0-9._-]+")


def read(tree):
    corpus = recognise(tree)
    return (*read_corpus(tree, corpus, default_task()), corpus)


@pytest.mark.parametrize(
    ("name", "paths", "prosody"),
    [
        ("RAVDESS", names.ravdess, (6_144, 147_456)),
        ("CREMA-D", names.crema_d, (9_258, 840_858)),
        ("TESS", names.tess, (4_000, 8_000)),
        ("JL-Corpus", names.jl_corpus, (5_760, 23_040)),
    ],
)
def test_a_full_download_offers_the_pairs_of_the_list(name, paths, prosody):
    clips, warnings, recognised, corpus = read(names.tree(paths()))
    (full,) = corpus.full
    assert (corpus.name, recognised.name, full.prosody) == (name, name, prosody)
    assert tuple(recognised.pairs["prosody"].values()) == prosody
    assert set(recognised.pairs["semantic"].values()) == {0}
    assert (recognised.n_clips, recognised.n_speakers, recognised.n_texts) == (
        full.n_clips,
        full.n_speakers,
        full.n_texts,
    )
    assert recognised.n_wavs == full.n_recordings == recognised.n_clips + sum(recognised.left_out.values())
    (warning,) = warnings
    assert "count as neutral" in warning and "only prosody pairs" in warning


def test_every_kept_emotion_is_the_label_that_the_corpus_means():
    """A single clip of each corpus, read by eye."""
    of = {
        "03-01-08-02-01-02-12.wav": ("surprised", "Actor_12", "Kids are talking by the door"),
        "1040_ITH_SAD_X.wav": ("sad", "1040", "I think I have a doctor's appointment"),
        "OAF_back_ps.wav": ("surprised", "OAF", "Say the word back"),
        "female1_angry_10a_1.wav": ("angry", "female1", "Water harms the new born boy"),
        "03a01Wa.wav": ("angry", "03", "Der Lappen liegt auf dem Eisschrank."),
        "16b10Fb.wav": ("happy", "16", "Die wird auf dem Platz sein, wo wir sie immer hinlegen."),
        "16b10Td.wav": ("sad", "16", "Die wird auf dem Platz sein, wo wir sie immer hinlegen."),
    }
    for path, expected in of.items():
        (clip,), *_ = read(names.tree([path]))
        assert (clip.prosody_label, clip.speaker, clip.text) == expected, path


def test_emis_has_semantic_pairs_and_its_names_label_the_texts():
    clips, warnings, recognised, corpus = read(names.tree(names.emis()))
    assert recognised.n_clips == len(clips) == 1248 and recognised.n_texts == 104
    assert recognised.pairs["prosody"]["any_speaker"] == 5_616
    assert recognised.pairs["semantic"]["any_speaker"] == 146_016
    assert {clip.semantic_label for clip in clips} == {"neutral", "angry", "happy", "sad"}
    assert {clip.text_type for clip in clips} == {None, "explicit", "implicit"}
    assert not any("count as neutral" in warning for warning in warnings)


def test_emo_db_pairs_within_speakers_and_leaves_three_emotions_out():
    grid = [f"wav/{s}{t}{e}a.wav" for s, t, e in product(("03", "08"), ("a01", "b10"), "WLEAFTN")]
    clips, _, recognised, _ = read(names.tree(grid))
    assert len(clips) == 2 * 2 * 4 and recognised.left_out == dict.fromkeys(("boredom", "disgust", "fear"), 4)
    assert recognised.pairs["prosody"] == {"same_speaker": 4 * 6, "any_speaker": 2 * 6 * 4}
    assert {clip.language for clip in clips} == {"de"}


@pytest.fixture(scope="module")
def transcripts(tmp_path_factory):
    root = tmp_path_factory.mktemp("esd")
    for speaker in range(1, 21):
        (root / f"{speaker:04d}").mkdir()
        (root / f"{speaker:04d}" / f"{speaker:04d}.txt").write_text("\n".join(names.esd_lines(speaker)))
    return root


def with_transcripts(paths, root):
    return names.tree([*paths, *(f"{speaker:04d}/{speaker:04d}.txt" for speaker in range(1, 21))], root)


@pytest.mark.parametrize(("old", "edition"), [(True, "old edition"), (False, "new edition")])
def test_esd_offers_its_pairs_by_number_where_the_texts_are_parallel(transcripts, old, edition):
    clips, _, recognised, _ = read(with_transcripts(names.esd(range(11, 21), old), transcripts))
    assert recognised.edition == f"{edition}, English"
    assert recognised.pairs["prosody"] == {"same_speaker": 35_000, "any_speaker": 350_000}
    assert len(clips) == 17_500 and recognised.n_texts == 350


def test_both_languages_of_esd_never_pair(transcripts):
    clips, warnings, recognised, _ = read(with_transcripts(names.esd(), transcripts))
    assert recognised.edition == "new edition, English and Mandarin" and len(clips) == 35_000
    assert recognised.pairs["prosody"] == {"same_speaker": 70_000, "any_speaker": 700_000}
    assert not any("full download" in warning for warning in warnings)


def test_every_name_fits_into_files_and_reports(transcripts):
    trees = [names.tree(paths()) for paths in (names.ravdess, names.crema_d, names.tess, names.jl_corpus, names.emis)]
    trees += [names.tree(["03a01Wa.wav"]), with_transcripts(names.esd([1, 11]), transcripts)]
    seen = set()
    for one in trees:
        clips, _, recognised, _ = read(one)
        seen.add(recognised.name)
        for clip in clips:
            for name in (clip.clip_id, clip.text_id, clip.speaker, clip.language, clip.prosody_label):
                assert FIT.fullmatch(name) and len(name) <= 64, (recognised.name, name)
    assert seen == set(BY_NAME)
