"""What is said: the thirty texts of the demo, and any number of other sentences to train and to test on.

An explicit text names the speaker's feeling, and so its semantic label is the answer whatever the voice. An implicit
one tells an event and names no feeling: the voice is the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_WORDS = 10  # read sadly, ten words still fit into the encoder's window


@dataclass(frozen=True)
class Text:
    """One sentence; `semantic_label` is None where a made-up event suggests no feeling at all."""

    text: str
    semantic_label: str | None
    explicit: bool


DEMO_TEXTS = {
    "neutral": {
        True: (
            "I feel completely neutral about the new timetable.",
            "The colour of the carpet leaves me neutral.",
            "On the parking question I am simply neutral.",
        ),
        False: (
            "The meeting starts at ten in room four.",
            "The bus stops opposite the post office.",
            "There are twelve chairs around the table.",
        ),
    },
    "happy": {
        True: (
            "I am so happy that my brother passed his exam.",
            "What a happy day for me, the baby is healthy.",
            "We got the flat with the balcony, and I am very happy.",
        ),
        False: (
            "My daughter took her first steps at breakfast.",
            "They gave me the job in Lisbon.",
            "We are leaving for the seaside tonight.",
        ),
    },
    "sad": {
        True: (
            "I am so sad that our old dog is gone.",
            "It makes me sad to see the village so empty.",
            "Since my grandfather died I have been very sad.",
        ),
        False: (
            "Nobody came to the funeral of my aunt.",
            "She packed her things and left him.",
            "The doctors say he will never walk again.",
        ),
    },
    "angry": {
        True: (
            "I am so angry that they towed my van.",
            "He read my diary, and that makes me angry.",
            "Yes, I am angry, you broke your promise.",
        ),
        False: (
            "Somebody scratched the door on purpose.",
            "You told everyone about my secret.",
            "They charged me twice and kept the money.",
        ),
    },
    "surprised": {
        True: (
            "I am so surprised that you speak Japanese.",
            "The ending of that film really surprised me.",
            "I was surprised to find snow in the desert.",
        ),
        False: (
            "There is a white horse standing in the hallway.",
            "Suddenly the lamp began to talk to us.",
            "Your quiet uncle turned out to be a spy.",
        ),
    },
}

FEELINGS = {  # the label's own word, drawn three times in four, and another
    "neutral": ("neutral", "indifferent"),
    "happy": ("happy", "delighted"),
    "sad": ("sad", "heartbroken"),
    "angry": ("angry", "furious"),
    "surprised": ("surprised", "astonished"),
}
EXPLICIT_FRAMES = (
    "I am so {feeling} that {event}.",
    "I feel really {feeling}, {event}.",
    "I feel {feeling} about it, {event}.",
    "I am {feeling} because {event}.",
    "{event}, and I am {feeling}.",
    "{event}, which makes me {feeling}.",
    "{event}, I was very {feeling}.",
    "It makes me {feeling} that {event}.",
    "What a {feeling} morning for me, {event}.",
    "Today I am {feeling}, {event}.",
    "Since {event} I have been very {feeling}.",
    "I was {feeling} to find that {event}.",
    "{event} and left me {feeling}.",
    "That leaves me {feeling}, {event}.",
    "Yes, I am {feeling}, {event}.",
    "I was {feeling} to hear that {event}.",
    "To be honest I am simply {feeling}, {event}.",
)
VERB_FRAMES = {"surprised": ("It surprised me that {event}.", "{event}, that really surprised me.")}
IMPLICIT_FRAMES = (
    "{event}.",
    "{event}.",
    "{event}.",
    "I am sure that {event}.",
    "I am told that {event}.",
    "I think {event}.",
    "You know that {event}.",
    "They say that {event}.",
    "It is true that {event}.",
    "I feel a draught, {event}.",
    "Yes, {event}.",
    "Listen, {event}.",
    "{event}, and I am still here.",
    "{event}, that is what they told me.",
    "{event}, and so did we.",
    "We have heard that {event}.",
    "It seems to me that {event}.",
)
WHO = (
    "my sister", "the teacher", "our neighbour", "my best friend", "the old man", "your boss", "the whole team",
    "my cousin", "the doctor", "her son", "his wife", "the driver", "a stranger", "the girl next door", "our landlord",
    "my mother", "I", "we", "the children", "your father", "the new student", "that woman", "the farmer", "a policeman",
    "Peter", "they", "you", "he", "she", "somebody", "the mayor", "an engineer", "my grandmother", "the committee",
    "two of us", "nobody", "the nurses", "a journalist", "the twins", "Maria", "the baker", "my partner", "the captain",
    "everybody", "our guest", "the waiter", "the tall boy",
)  # fmt: skip
VERBS = (
    "found", "lost", "sold", "broke", "bought", "painted", "cleaned", "hid", "burned", "dropped", "opened", "stole",
    "started", "repaired", "forgot", "carried", "moved", "washed", "wrapped", "borrowed", "returned", "photographed",
    "watched", "scratched", "threw away", "brought", "counted", "saved", "ordered", "closed", "won", "gave me", "hated",
    "loved", "kept", "cut", "took", "packed", "told me about", "charged us for", "walked past", "asked for", "supplied",
    "finished", "described", "admired", "put down", "turned over", "stood behind", "sat beside", "heard about",
    "picked up", "measured", "wanted", "drew", "ruined", "noticed", "sent for",
)  # fmt: skip
NOUNS = (
    "vase", "bicycle", "letter", "ticket", "tent", "gate", "box", "key", "cake", "umbrella", "car", "present", "guitar",
    "window", "map", "table", "phone", "puppy", "prize", "camera", "shoe", "wallet", "bag", "candle", "newspaper",
    "bottle", "boat", "coat", "ring", "album", "tractor", "flower", "bell", "passport", "watch", "radio", "house",
    "computer", "sofa", "apple", "parcel", "stone", "saddle", "salad", "anchor", "angle", "uncle", "natural park",
    "neutron", "new tree", "surface", "server", "syrup", "supper", "hat", "heap", "happening", "hammer", "hunger",
    "sack", "sand", "satellite", "side door", "seaweed", "sunrise", "cherry", "berry", "ferry", "carriage", "marriage",
    "bucket", "engine", "island", "forest", "bridge", "hotel", "market", "mountain", "needle", "orange", "pencil",
    "queen", "river", "shirt", "tiger", "village", "wheel", "yard", "zebra", "blanket", "chicken", "dentist",
    "elephant", "factory", "glove", "hospital", "jacket", "kettle", "lemon", "mirror", "notebook", "office", "picture",
    "railway", "school", "tower", "uniform", "violin", "wagon", "bank", "cheese", "dream", "fence", "ghost", "hill",
    "joke", "knife", "ladder", "moon", "nest", "oven", "plate", "roof", "ship", "tooth", "wall", "beach", "clock",
    "drum", "egg", "fish", "grass", "horn", "ice", "jar", "king", "leaf", "mouse", "night", "owl", "pond", "rope",
    "star", "train", "vote", "wind", "contract", "question", "answer", "number", "colour", "story", "garden", "lamp",
    "recipe", "bowl", "bread", "suitcase", "piano", "snake", "kitchen", "carpet", "button", "doorbell", "meadow",
    "pillow", "rocket", "sausage", "tunnel", "waterfall", "hedge", "duck", "muffin", "pocket", "cloud", "cottage",
    "ribbon",
)  # fmt: skip
ADJECTIVES = (
    "blue", "old", "last", "wooden", "red", "first", "second", "green", "gold", "wrong", "big", "small", "hungry",
    "empty", "heavy", "narrow", "yellow", "famous", "broken", "clean", "dirty", "early", "foreign", "gentle", "hollow",
    "round", "silent", "thirsty", "useful", "wet", "young", "single", "central", "natural", "healthy", "sandy", "other",
    "own", "neighbouring", "dry", "purple", "soft", "tiny", "warm", "sticky", "modern", "plain",
)  # fmt: skip
PLACES = (
    "in the park", "at work", "on the train", "in the rain", "at the station", "after school", "in the city",
    "in room four", "near the river", "opposite the church", "behind the house", "at the airport", "under the bridge",
    "on the table", "in the basement", "at home", "in Paris", "by the sea", "around the corner", "on the second floor",
    "inside the castle", "next to the bank", "on the stairs", "in the north", "across the street", "at the harbour",
    "beside the barn",
)  # fmt: skip
WHEN = (
    "this morning", "last night", "again", "on Sunday", "yesterday", "at noon", "before dinner", "last summer",
    "on purpose", "without a word", "by mistake", "for us", "all alone", "at ten", "at half past seven", "twice",
    "every week", "in May", "suddenly", "at midnight", "on Tuesday", "in autumn", "together",
)  # fmt: skip
PREDICATES = (
    "missed the bus", "called from the airport", "moved to another city", "got the job", "came home at last",
    "got married in May", "slept on the floor", "lied to the police", "failed the exam", "left the door open",
    "walked home in the dark", "stayed in hospital for weeks", "danced on the roof", "will not come back",
    "arrived an hour late", "said it twice", "sat down at once", "happened to be there", "might start at six",
    "passed the side entrance", "lived above the shop", "worked on the third floor", "drank tea with milk",
    "never tried it again", "wrote a diary", "could hear us", "knocked on my door", "jumped into the lake",
    "paid the bill", "waited for three hours", "crashed into the wall", "sang the whole evening", "stayed at home",
    "quit without notice", "sat in the garden", "laughed at my drawing", "turned off the lights",
    "came second in the race", "sent me a postcard", "did not say goodbye", "read a book every week", "knew the answer",
    "fell down the stairs", "passed the driving test", "took the wrong road",
)  # fmt: skip
HELD_OUT_SHARE = 0.2


def _part(pool: Sequence[str], held_out: bool) -> Sequence[str]:
    """The end of a pool is kept for held-out sentences, the rest trains."""
    cut = round(len(pool) * (1 - HELD_OUT_SHARE))
    return pool[cut:] if held_out else pool[:cut]


def _pick(rng: np.random.Generator, pool: Sequence[str]) -> str:
    return pool[rng.integers(len(pool))]


def _event(rng: np.random.Generator, held_out: bool) -> str:
    """A clause without a feeling: somebody does something, or something is somewhere."""

    def pick(pool: Sequence[str]) -> str:
        return _pick(rng, _part(pool, held_out))

    def thing(*articles: str) -> str:
        words = f"{pick(ADJECTIVES)} {pick(NOUNS)}" if rng.random() < 0.4 else pick(NOUNS)
        article = _pick(rng, articles)
        return f"an {words}" if article == "a" and words[0] in "aeiou" else f"{article} {words}"

    kind = rng.random()
    if kind < 0.25:
        clause = f"{pick(WHO)} {pick(PREDICATES)}"
    elif kind < 0.65:
        clause = f"{pick(WHO)} {pick(VERBS)} {thing('the', 'a', 'my', 'your', 'his', 'her', 'our', 'their')}"
    elif kind < 0.75:
        clause = f"there {_pick(rng, ('is', 'was'))} {thing('a')} {pick(PLACES)}"
    elif kind < 0.85:
        clause = f"{thing('the', 'my', 'your', 'our')} {_pick(rng, ('is', 'was', 'stood', 'will be'))} {pick(PLACES)}"
    elif kind < 0.92:
        clause = f"{thing('the')} and {thing('the')} {_pick(rng, ('are', 'were'))} {pick(ADJECTIVES)}"
    else:
        clause = f"{thing('the')} {_pick(rng, ('starts', 'opens', 'stops', 'ends', 'begins'))} {pick(PLACES)}"
    return f"{clause} {pick(WHEN)}" if rng.random() < 0.25 else clause


def _draw(rng: np.random.Generator, held_out: bool, label: str | None) -> str:
    event = _event(rng, held_out)
    if label is None:
        sentence = _pick(rng, IMPLICIT_FRAMES).format(event=event)
    else:
        feeling = FEELINGS[label][int(rng.random() < 0.25)]
        sentence = _pick(rng, (*EXPLICIT_FRAMES, *VERB_FRAMES.get(label, ()))).format(feeling=feeling, event=event)
    return sentence[0].upper() + sentence[1:]


def made_up_texts(n: int, rng: np.random.Generator, held_out: bool = False) -> list[Text]:
    """`n` different sentences of at most `MAX_WORDS` words, half of them explicit, as many for each label.

    Held-out sentences tell of other people, acts, things and places than those to train on.
    """
    texts: dict[str, Text] = {}
    while len(texts) < n:
        labels = list(DEMO_TEXTS)
        label = labels[len(texts) // 2 % len(labels)] if len(texts) % 2 else None
        sentence = _draw(rng, held_out, label)
        if len(sentence.split()) <= MAX_WORDS:
            texts.setdefault(sentence, Text(sentence, label, label is not None))
    return list(texts.values())


def demo_rows() -> list[dict]:
    """The rows of `text.jsonl`: six texts a label, half of them explicit, half by each of two pseudo-speakers."""
    rows = []
    for number, (label, texts) in enumerate(DEMO_TEXTS.items()):
        for explicit, sentences in texts.items():
            text_type = "explicit" if explicit else "implicit"
            for i, sentence in enumerate(sentences):
                # Three texts a speaker and label, of which one or two are explicit by turns.
                first_voice = (i + number + explicit) % 2 == 0
                rows.append(
                    {
                        "text_id": f"{label}_{text_type}_{i + 1}",
                        "text": sentence,
                        "semantic_label": label,
                        "speaker": "f1" if first_voice else "m1",
                        "text_type": text_type,
                    }
                )
    return rows
