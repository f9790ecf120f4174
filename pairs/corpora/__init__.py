"""Corpora of the field, recognised by the names of their files wherever a download has put them.

    dataset = load_corpus(Path("/data/RAVDESS"), texts={})      # None where no file is named as in a known corpus
    dataset.corpus.lines()

A corpus is one file here with a `Corpus`, which is added to `CORPORA`. Folders are not trusted: their names vary from
copy to copy, those of the files do not.
"""

from pathlib import Path

from errors import UserError
from pairs.clips import Dataset, make_dataset
from pairs.corpora import crema_d, emis, emo_db, esd, jl_corpus, ravdess, tess
from pairs.corpora.corpus import Corpus
from pairs.corpora.read import read_corpus
from pairs.corpora.tree import Tree, stem, walk
from pairs.texts import Texts

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
        n = sum(bool(corpus.pattern.fullmatch(stem(path))) for path in own)
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
