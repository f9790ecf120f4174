"""Corpora of the field, recognised by the names of their files wherever a download has put them.

    dataset = load_corpus(Path("/data/RAVDESS"), texts={})      # None where no file is named as in a known corpus
    dataset.corpus.lines()

A corpus is one file here with a `Corpus`, which is added to `CORPORA`. Folders are not trusted: their names vary from
copy to copy, those of the files do not.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from errors import UserError
from pairs.build import KINDS, pairs_possible
from pairs.clips import Clip, Dataset, Recognised, listing, make_dataset
from pairs.corpora import crema_d, emis, emo_db, esd, jl_corpus, ravdess, tess
from pairs.corpora.corpus import Corpus, Recording
from pairs.corpora.tree import Tree, walk
from pairs.normalise import normalise_label
from pairs.texts import Texts, with_texts

CORPORA = tuple(module.CORPUS for module in (esd, ravdess, crema_d, tess, jl_corpus, emo_db, emis))
ENOUGH = 0.9  # of the wav files must be named as the corpus names them


def load_corpus(source: Path, texts: Texts) -> Dataset | None:
    """The data set in a folder with a known corpus, or None where no wav file is named as in one.

    Raises `UserError` where the files are of several corpora, copies of a clip differ, or files are no sounds.
    """
    tree = walk(source)
    corpus = recognise(tree)
    if corpus is None:
        return None
    clips, recognised, warnings = read_corpus(tree, corpus, texts)
    return make_dataset(source.name, source, clips, warnings, recognised)


def recognise(tree: Tree) -> Corpus | None:
    """The corpus whose names at least nine in ten wav files have; `UserError` where only fewer have them."""
    counts: dict[str, int] = {}
    wavs = tree.wavs()
    for corpus in CORPORA:
        own = tree.without(corpus.ignored).wavs() if corpus.ignored else wavs
        n = sum(bool(corpus.pattern.fullmatch(_stem(path))) for path in own)
        if n and n >= ENOUGH * len(own):
            return corpus
        if n:
            counts[corpus.name] = n
    if counts:
        found = ", ".join(f"{n:,} as in {name}" for name, n in counts.items())
        raise UserError(
            f"{tree.root}: {len(wavs):,} wav files, of which {found} are named, too few to be one corpus "
            f"({ENOUGH:.0%}); name the folder of one, or move the other files out"
        )
    return None


def read_corpus(tree: Tree, corpus: Corpus, texts: Texts | None = None) -> tuple[list[Clip], Recognised, list[str]]:
    """The clips, what is said of the corpus, and warnings. Opens transcripts and files too small to be sounds only."""
    texts = texts or {}
    kept, left_out, warnings = _kept(tree, corpus)
    if not kept:
        raise UserError(f"{tree.root}: {corpus.name}, but no clip of it is usable: {_reasons(left_out)}")
    pointers = [recording.path for recording in kept if tree.is_lfs_pointer(recording.path)]
    if pointers:
        raise UserError(
            f"{tree.root / pointers[0]}: a Git-LFS pointer in place of the sound, as are {len(pointers):,} of "
            f"{len(kept):,} clips; fetch the sounds with `git lfs install` and `git lfs pull`"
        )
    clips, more = with_texts([_clip(tree.root, recording) for recording in kept], texts)
    text_ids = {clip.text_id for clip in clips}
    recognised = Recognised(
        corpus.name,
        corpus.edition(tree, kept),
        n_wavs=len(tree.wavs()),
        n_clips=len(clips),
        left_out=dict(left_out),
        n_speakers=len({clip.speaker for clip in clips}),
        n_texts=len(text_ids),
        pairs={
            kind: {
                "same_speaker": pairs_possible(clips, kind),
                "any_speaker": pairs_possible(clips, kind, same_speaker=False),
            }
            for kind in KINDS
        },
    )
    return [*_named(clips)], recognised, [*warnings, *more, *_about_texts(corpus, clips, texts)]


def _kept(tree: Tree, corpus: Corpus) -> tuple[list[Recording], Counter[str], list[str]]:
    """The recordings of the five labels, those left out by reason, and warnings of strange names and of a part only."""
    usable = tree.without(corpus.ignored) if corpus.ignored else tree
    recordings, left_out, strange = _recordings(usable, corpus)
    n_ignored = len(tree.wavs()) - len(usable.wavs())
    if n_ignored:
        left_out[f"in {' or '.join(sorted(corpus.ignored))}"] = n_ignored
    warnings = [f"not named as {corpus.name} names its files, left out: {listing(strange)}"] if strange else []
    warnings += _missing(corpus, recordings)
    labelled = []
    for recording in recordings:
        if label := normalise_label(recording.emotion):
            labelled.append(replace(recording, emotion=label))
        else:
            left_out[recording.emotion] += 1
    kept = []
    for outcome in corpus.spoken(usable, labelled) if corpus.spoken else labelled:
        if isinstance(outcome, str):
            left_out[outcome] += 1
        else:
            kept.append(outcome)
    return kept, left_out, warnings


def _recordings(tree: Tree, corpus: Corpus) -> tuple[Collection[Recording], Counter[str], list[str]]:
    """Each recording once, the files that are none by reason, and those of them with another name."""
    recordings: dict[str, Recording] = {}
    left_out: Counter[str] = Counter()
    strange = []
    for path in tree.wavs():
        found = corpus.pattern.fullmatch(_stem(path))
        outcome = corpus.recording(found) if found else "of another name"
        if not found:
            strange.append(path)
        if isinstance(outcome, str):
            left_out[outcome] += 1
        elif not tree.files[path]:
            left_out["empty, or links to nothing"] += 1
        elif first := recordings.get(outcome.clip_id):
            left_out["further copies of a clip"] += 1
            if tree.files[path] != tree.files[first.path] and normalise_label(outcome.emotion):
                raise UserError(
                    f"{tree.root}: {first.path} and {path} are one clip by name but differ in size; remove one of them"
                )
        else:
            recordings[outcome.clip_id] = replace(outcome, path=path)
    return recordings.values(), left_out, strange


def _missing(corpus: Corpus, recordings: Collection[Recording]) -> list[str]:
    languages = {recording.language for recording in recordings}
    n_full = sum(full.n_recordings for full in corpus.full if full.language in languages)
    if len(recordings) >= n_full:
        return []
    return [f"{len(recordings):,} of the {n_full:,} recordings of a full download of {corpus.name} are there"]


def _clip(root: Path, recording: Recording) -> Clip:
    return Clip(
        clip_id=recording.clip_id,
        path=root / recording.path,
        text_id=recording.text_id,
        text=recording.text,
        semantic_label=recording.semantic_label,
        prosody_label=recording.emotion,
        speaker=recording.speaker,
        language=recording.language,
        text_type=recording.text_type,
    )


def _named(clips: Sequence[Clip]) -> Sequence[Clip]:
    """The clips, those of unknown words with their text_id in place of the text."""
    return [clip if clip.text else replace(clip, text=clip.text_id) for clip in clips]


def _about_texts(corpus: Corpus, clips: Sequence[Clip], texts: Texts) -> list[str]:
    """Warnings of what is taken for granted of the texts' labels and words."""
    warnings = list(corpus.notes)
    ids = sorted({clip.text_id for clip in clips})
    unlabelled = [text_id for text_id in ids if text_id not in texts]
    if corpus.remark is not None and not texts:
        remark = f", {corpus.remark}" if corpus.remark else ""
        warnings.append(
            f"{corpus.name} has no labels of its texts: all {len(ids)} count as neutral{remark}; so only prosody pairs "
            "can be had. --texts FILE.csv (text_id, semantic_label) gives labels"
        )
    elif corpus.remark is not None and unlabelled:
        warnings.append(
            f"{len(unlabelled)} of {len(ids)} texts have no label in --texts and count as neutral: "
            f"{listing(unlabelled)}"
        )
    wordless = {clip.text_id for clip in clips if not clip.text}
    if wordless:
        warnings.append(
            f"the words of {len(wordless)} of {len(ids)} texts are not known, their text_ids stand for them; put "
            f"{emis.TABLE} beside the clips, or give --texts with a column text"
        )
    return warnings


def _reasons(left_out: Mapping[str, int]) -> str:
    return "; ".join(f"{n:,} {reason}" for reason, n in left_out.items())


def _stem(path: str) -> str:
    return path.rpartition("/")[2][:-4]


def listed() -> str:
    """The corpora, each with its layout, licence, where it is to be had, and what a full download holds."""
    end = "No corpus comes with the program: --data takes the folder into which one was unpacked."
    return "\n\n".join([*map(_listed, CORPORA), end])


def _listed(corpus: Corpus) -> str:
    lines = [
        f"{corpus.name}: {corpus.title}",
        f"layout   {corpus.layout}",
        f"licence  {corpus.licence}",
        f"from     {corpus.source}",
    ]
    for full in corpus.full:
        (same, across), (semantic, semantic_across) = full.prosody, full.semantic
        more = f"; {semantic:,} semantic pairs ({semantic_across:,})" if semantic else ""
        lines.append(
            f"full     {full.n_clips:,} of {full.n_recordings:,} clips ({full.language}), {full.n_speakers} speakers, "
            f"{full.n_texts} texts: {same:,} prosody pairs ({across:,} with any speaker){more}"
        )
    return "\n  ".join(lines)
