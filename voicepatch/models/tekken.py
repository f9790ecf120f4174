"""Mistral's tokenizer files: byte-pair encoding of plain text, and the ids of special tokens.

    tokenizer = Tekken(folder / "tekken.json")
    tokenizer.encode("happy")                    # the ids of h and appy
    tokenizer.special("[INST]")                  # 3

mistral-common reads them too, but wants an older numpy than this project has. Nothing else of it is needed here.
"""

import base64
from pathlib import Path

import regex

from voicepatch.errors import UserError
from voicepatch.models.folder import read_json


class Tekken:
    """The vocabulary of a `tekken.json`: special tokens first, then byte strings by their rank.

    Raises `UserError` for another kind of file.
    """

    def __init__(self, path: Path):
        self._path = path
        content = read_json(path)
        try:
            config = content["config"]
            self._n_special = int(config["default_num_special_tokens"])
            n_plain = int(config["default_vocab_size"]) - self._n_special
            plain = [base64.b64decode(entry["token_bytes"], validate=True) for entry in content["vocab"][:n_plain]]
            self._special = {entry["token_str"]: int(entry["rank"]) for entry in content["special_tokens"]}
            self._split = regex.compile(config["pattern"])
        except (ArithmeticError, LookupError, TypeError, ValueError, regex.error) as error:
            raise UserError(f"{path}: is no tokenizer of Mistral ({error}); fetch it again") from None
        self._ranks = {token: rank for rank, token in enumerate(plain)}
        self._tokens = plain
        if any(bytes([byte]) not in self._ranks for byte in range(256)):
            raise UserError(f"{path}: lacks some of the 256 bytes; fetch it again")

    def special(self, name: str) -> int:
        """The id of a special token."""
        if name not in self._special:
            raise UserError(f"{self._path}: lacks {name}; use the checkpoint's own")
        return self._special[name]

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of plain text; no special token is ever made of it, nor put before it."""
        pieces = (match.group().encode() for match in self._split.finditer(text))
        return [self._n_special + rank for piece in pieces for rank in self._pairs(piece)]

    def _pairs(self, piece: bytes) -> list[int]:
        parts = [bytes([byte]) for byte in piece]
        while len(parts) > 1:
            joined = [self._ranks.get(a + b, len(self._ranks)) for a, b in zip(parts, parts[1:], strict=False)]
            best = min(joined)
            if best == len(self._ranks):
                break
            place = joined.index(best)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        return [self._ranks[part] for part in parts]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """Tokens as text; an id without a token, such as the placeholder's, as its number in brackets."""
        names = {number: name for name, number in self._special.items()}
        return [names.get(number) or self._text(number) for number in ids]

    def _text(self, number: int) -> str:
        rank = number - self._n_special
        return self._tokens[rank].decode(errors="replace") if 0 <= rank < len(self._tokens) else f"<{number}>"
