"""From the files of a corpus to its clips, with warnings.

    clips, warnings, recognised = read_corpus(tree, recognise(tree), task)
    recognised.lines()

The files of the tree need not exist: only transcripts, and files too small to be sounds, are opened.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pairs.corpora.corpus import Corpus, Recording
from pairs.corpora.tree import Tree, stem
from pairs.numbering import pairs_possible
from pairs.texts import Texts, with_texts
from voicepatch.errors import UserError
from voicepatch.text import listing
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Recognised
from voicepatch.types.task import Task


def read_corpus(
    tree: Tree, corpus: Corpus, task: Task, texts: Texts | None = None
) -> tuple[list[Clip], list[str], Recognised]:
    """The clips, warnings, and the facts about the corpus.

    Raises `UserError` where copies of a clip differ, files are no sounds, a transcript is missing or no clip is left.
    """
    texts = texts or {}
    usable, left_out, warnings = _usable_recordings(tree, corpus, task, texts)
    if not usable:
        reasons = "; ".join(f"{n:,} {reason}" for reason, n in left_out.items())
        raise UserError(f"{tree.root}: {corpus.name}, but no clip of it is usable: {reasons}")
    pointers = [recording.path for recording in usable if tree.is_lfs_pointer(recording.path)]
    if pointers:
        raise UserError(
            f"{tree.root / pointers[0]}: a Git-LFS pointer in place of the sound, as are {len(pointers):,} of "
            f"{len(usable):,} clips; fetch the sounds with `git lfs install` and `git lfs pull`"
        )
    clips, more = with_texts([_clip(tree.root, recording, task) for recording in usable], texts, task)
    _check_words(tree, corpus, task, clips)
    text_ids = {clip.text_id for clip in clips}
    recognised = Recognised(
        name=corpus.name,
        edition=corpus.edition if isinstance(corpus.edition, str) else corpus.edition(tree, usable),
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
            for kind in task.kinds
        },
    )
    return clips, [*warnings, *more, *_about_texts(corpus, task, clips, texts)], recognised


def _check_columns(tree: Tree, corpus: Corpus, task: Task, texts: Texts, recordings: Collection[Recording]) -> None:
    """`UserError` where the task reads a column that the corpus does not have."""
    beside = f"put {corpus.speakers_from} beside the clips, or " if corpus.speakers_from else ""
    given = {"prosody_label", "semantic_label"} | {column for one in recordings for column in one.columns}
    for column in (task.voice, *task.text_columns):
        if column not in given and not (texts and column == task.words):
            raise UserError(
                f"{tree.root}: {corpus.name} has no column {column} here, which task {task.name} reads; it has "
                f"{listing(sorted(given))}; {beside}write a manifest with that column"
            )


def _value(recording: Recording, column: str) -> str:
    """What a corpus has in a column of labels; "" where it has nothing."""
    own = {"prosody_label": recording.emotion, "semantic_label": recording.semantic_label}
    return own.get(column) or recording.columns.get(column, "")


def _check_words(tree: Tree, corpus: Corpus, task: Task, clips: Sequence[Clip]) -> None:
    for clip in clips:
        if task.words is not None and clip.semantic_label not in task.labels:
            raise UserError(
                f"{tree.root}: the words of {corpus.name}'s text {clip.text_id} are {clip.semantic_label}, which is no "
                f"label of task {task.name}; give --texts with their labels, or a task with `words: null`"
            )


def _usable_recordings(
    tree: Tree, corpus: Corpus, task: Task, texts: Texts
) -> tuple[list[Recording], Counter[str], list[str]]:
    """The recordings of the task's labels, those left out by reason, and warnings."""
    rest = tree.without(corpus.ignored) if corpus.ignored else tree
    recordings, left_out, unknown = _recordings(rest, corpus, task)
    of_speakers = corpus.speakers(rest) if corpus.speakers else {}
    recordings = [replace(one, columns={**one.columns, **of_speakers.get(one.speaker, {})}) for one in recordings]
    if recordings:
        _check_columns(tree, corpus, task, texts, recordings)
    n_ignored = len(tree.wavs()) - len(rest.wavs())
    if n_ignored:
        left_out[f"in {' or '.join(sorted(corpus.ignored))}"] = n_ignored
    warnings = [f"not named as {corpus.name} names its files, left out: {listing(unknown)}"] if unknown else []
    warnings += _missing(corpus, recordings)
    labelled = []
    for recording in recordings:
        value = _value(recording, task.voice)
        if task.label_of(value):
            labelled.append(recording)
        else:
            left_out[value or f"without a {task.voice}"] += 1
    usable = []
    for outcome in corpus.spoken(rest, labelled) if corpus.spoken else labelled:
        if isinstance(outcome, str):
            left_out[outcome] += 1
        else:
            usable.append(outcome)
    return usable, left_out, warnings


def _recordings(tree: Tree, corpus: Corpus, task: Task) -> tuple[Collection[Recording], Counter[str], list[str]]:
    """Each recording once, the other files counted by reason, and those of them with another name."""
    recordings: dict[str, Recording] = {}
    left_out: Counter[str] = Counter()
    unknown = []
    for path in tree.wavs():
        found = corpus.pattern.fullmatch(stem(path))
        outcome = corpus.recording(found) if found else "of another name"
        if not found:
            unknown.append(path)
        if isinstance(outcome, str):
            left_out[outcome] += 1
        elif not tree.files[path]:
            left_out["empty, or links to nothing"] += 1
        elif first := recordings.get(outcome.clip_id):
            left_out["further copies of a clip"] += 1
            if tree.files[path] != tree.files[first.path] and task.label_of(_value(outcome, task.voice)):
                raise UserError(
                    f"{tree.root}: {first.path} and {path} are one clip by name but differ in size; remove one of them"
                )
        else:
            recordings[outcome.clip_id] = replace(outcome, path=path)
    return recordings.values(), left_out, unknown


def _missing(corpus: Corpus, recordings: Collection[Recording]) -> list[str]:
    languages = {recording.language for recording in recordings}
    n_full = sum(full.n_recordings for full in corpus.full if full.language in languages)
    if len(recordings) >= n_full:
        return []
    return [f"{len(recordings):,} of the {n_full:,} recordings of a full download of {corpus.name} are there"]


def _clip(root: Path, recording: Recording, task: Task) -> Clip:
    words = _value(recording, task.words) if task.words else None
    voice = _value(recording, task.voice)
    columns = {**recording.columns, **({} if task.voice == "prosody_label" else {"prosody_label": recording.emotion})}
    return Clip(
        clip_id=recording.clip_id,
        path=root / recording.path,
        text_id=recording.text_id,
        text=recording.text or recording.text_id,
        semantic_label=words and (task.label_of(words) or words),
        prosody_label=task.label_of(voice) or voice,
        speaker=recording.speaker,
        language=recording.language,
        text_type=recording.text_type,
        columns={column: value for column, value in columns.items() if column not in (task.voice, task.words)},
        prosody_spelling=voice,
    )


def _about_texts(corpus: Corpus, task: Task, clips: Sequence[Clip], texts: Texts) -> list[str]:
    """Warnings of what is assumed of the labels and words of the texts; of the words alone if they have no label."""
    warnings = list(corpus.notes)
    ids = sorted({clip.text_id for clip in clips})
    unlabelled = [text_id for text_id in ids if text_id not in texts]
    if task.words and corpus.remark is not None and not texts:
        remark = f", {corpus.remark}" if corpus.remark else ""
        warnings.append(
            f"{corpus.name} has no labels of its texts: all {len(ids)} count as neutral{remark}; so only prosody pairs "
            "are possible. --texts FILE.csv (text_id, semantic_label) gives labels"
        )
    elif task.words and corpus.remark is not None and unlabelled:
        warnings.append(
            f"{len(unlabelled)} of {len(ids)} texts have no label in --texts and count as neutral: "
            f"{listing(unlabelled)}"
        )
    wordless = {clip.text_id for clip in clips if clip.text == clip.text_id}
    if wordless:
        beside = f"put {corpus.words_from} beside the clips, or " if corpus.words_from else ""
        warnings.append(
            f"the words of {len(wordless)} of {len(ids)} texts are not known, their text_ids stand for them; "
            f"{beside}give --texts with a column text"
        )
    return warnings
