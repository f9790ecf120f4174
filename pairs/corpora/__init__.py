"""Corpora of the field, recognised by the names of their files wherever a download has put them.

    clips, warnings, recognised = load_corpus(Path("/data/RAVDESS"), {}, task)      # None for an unknown folder
    recognised.lines()

A corpus is one file here, or a file named with `--plugin`, with a function under `@corpus`. Folders do not count: their
names vary from copy to copy, those of the files do not.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from pairs.corpora.corpus import Corpus, declared_corpora
from pairs.corpora.read import read_corpus
from pairs.corpora.tree import Tree, stem, walk
from pairs.texts import Texts
from voicepatch.errors import UserError
from voicepatch.types.clip import Clip
from voicepatch.types.dataset import Recognised
from voicepatch.types.task import Task

ENOUGH = 0.9  # of the wav files must be named as the corpus names them

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)


def load_corpus(source: Path, texts: Texts, task: Task) -> tuple[list[Clip], list[str], Recognised] | None:
    """Clips, warnings and facts of a folder with a known corpus, or None where no wav file is named as in one.

    Raises `UserError` where the files are of several corpora, copies of a clip differ, files are no sounds, or the task
    asks for more than the emotion.
    """
    tree = walk(source)
    corpus = recognise(tree)
    return read_corpus(tree, corpus, task, texts) if corpus else None


def recognise(tree: Tree) -> Corpus | None:
    """The corpus whose names at least nine in ten wav files have; `UserError` where only fewer have them."""
    found: list[Corpus] = []
    counts: dict[str, int] = {}
    wavs = tree.wavs()
    for corpus in declared_corpora():
        own = tree.without(corpus.ignored).wavs() if corpus.ignored else wavs
        n = sum(bool(corpus.pattern.fullmatch(stem(path))) for path in own)
        if n and n >= ENOUGH * len(own):
            found.append(corpus)
        elif n:
            counts[corpus.name] = n
    if len(found) > 1:
        both = " and ".join(f"{corpus.name} ({corpus.where})" for corpus in found)
        raise UserError(f"{tree.root}: the files are named as in {both}; make the pattern of one of them stricter")
    if found:
        return found[0]
    if counts:
        named = ", ".join(f"{n:,} as in {name}" for name, n in counts.items())
        raise UserError(
            f"{tree.root}: {len(wavs):,} wav files, of which {named} are named, too few to be one corpus "
            f"({ENOUGH:.0%}); name the folder of one, or move the other files out"
        )
    return None


def corpus_list() -> str:
    """The corpora, each with its layout, licence, source, and the counts of a full download."""
    end = "No corpus comes with the program: --data takes the folder into which one was unpacked."
    return "\n\n".join([*map(_listed, declared_corpora()), end])


def _listed(corpus: Corpus) -> str:
    facts = {"layout": corpus.layout, "licence": corpus.licence, "from": corpus.source}
    lines = [f"{corpus.name}: {corpus.title}", *(f"{what:<8} {fact}" for what, fact in facts.items() if fact)]
    for full in corpus.full:
        (same, across), (semantic, semantic_across) = full.prosody, full.semantic
        more = f"; {semantic:,} semantic pairs ({semantic_across:,})" if semantic else ""
        lines.append(
            f"full     {full.n_clips:,} of {full.n_recordings:,} clips ({full.language}), {full.n_speakers} speakers, "
            f"{full.n_texts} texts: {same:,} prosody pairs ({across:,} with any speaker){more}"
        )
    return "\n  ".join(lines)
