"""File names of full downloads, as each corpus' rules generate them, and trees made of names alone."""

import random
from itertools import product
from pathlib import Path
from string import ascii_lowercase

from pairs.corpora.tree import Tree

SIZE = 50_000  # large enough to be a sound, so that nothing is opened


def tree(paths, root=Path("/nowhere"), **sizes):
    """A tree of these paths, of which nothing is on disk; the least nested first, as `walk` gives them."""
    paths = sorted(paths, key=lambda path: (path.count("/"), path))
    return Tree(root, {path: SIZE for path in paths} | sizes)


def ravdess(channel="01"):
    for emotion, level, text, take, actor in product(range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)):
        if (emotion, level) != (1, 2):
            yield f"Actor_{actor:02d}/03-{channel}-{emotion:02d}-{level:02d}-{text:02d}-{take:02d}-{actor:02d}.wav"


def crema_d():
    texts = "IEO TIE IOM IWW TAI MTI IWL ITH DFA ITS TSI WSI".split()
    for actor, text, emotion in product(range(1001, 1092), texts, "ANG DIS FEA HAP NEU SAD".split()):
        if (actor, text) in ((1008, "WSI"), (1009, "MTI"), (1019, "ITH")):
            continue
        if (actor, text, emotion) in ((1002, "TIE", "NEU"), (1076, "ITS", "NEU")):
            continue
        for level in ("LO", "MD", "HI") if text == "IEO" and emotion != "NEU" else ("XX",):
            yield f"AudioWAV/{actor}_{text}_{emotion}_{level}.wav"


def tess():
    words = [f"w{first}{second}" for first, second in product(ascii_lowercase[:20], ascii_lowercase[:10])]
    for speaker, word, emotion in product(("OAF", "YAF"), words, "angry disgust fear happy neutral ps sad".split()):
        yield f"{speaker}_{word}_{emotion}.wav"


def jl_corpus():
    speakers = "female1 female2 male1 male2".split()
    emotions = "neutral happy sad angry excited anxious apologetic concerned encouraging assertive".split()
    for speaker, emotion, text, session, take in product(speakers, emotions, range(1, 16), "ab", (1, 2)):
        yield f"Raw JL corpus (unchecked and unannotated)/JL(wav+txt)/{speaker}_{emotion}_{text}{session}_{take}.wav"


def emis():
    texts = [
        f"{i:02d}_{e}_{t}" for e in ("angry", "happy", "sad") for t in ("explicit", "implicit") for i in range(1, 14)
    ]
    texts += [f"{i:02d}_neutral" for i in range(1, 27)]
    draw = random.Random(0)
    for text, voice, system in product(texts, ("angry", "happy", "neutral", "sad"), ("COSY", "F5TTS", "STYLE")):
        yield f"{text}_{voice}_{draw.randint(11, 20):04d}_{system}.wav"


EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")  # of ESD, in the order of its numbers


def esd(speakers=range(1, 21), old=False):
    for speaker, number in product(speakers, range(1, 1751)):
        emotion = EMOTIONS[(number - 1) // 350]
        place = (number - 1) % 350
        part = "" if not old else "evaluation/" if place < 20 else "test/" if place < 50 else "train/"
        yield f"{speaker:04d}/{emotion}/{part}{speaker:04d}_{number:06d}.wav"


def esd_lines(speaker, text="Sentence number {}, spoken."):
    """A transcript in which all is parallel."""
    for number in range(1, 1751):
        line = text.format((number - 1) % 350 + 1)
        yield f"{speaker:04d}_{number:06d}\t{line}\t{EMOTIONS[(number - 1) // 350]}"


def write(root, paths):
    """Files with something in them: enough for what is not decoded."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"RIFF" + path.rpartition("/")[2].encode())
    return root
