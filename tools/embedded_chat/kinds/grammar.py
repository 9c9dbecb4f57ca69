"""A tiny phrase grammar: the one mechanism behind every sentence of the corpus.

A template is a string with two kinds of holes:

    [calm|quiet|still]   one of the alternatives, chosen at random (they nest, and may be empty)
    {hero}               a value from the scene the caller passes in

``say`` fills a template, then tidies it: single spaces, and a capital at the start of every sentence.
"""

import re
from functools import lru_cache

_SENTENCE_START = re.compile(r"(^|[.!?] |\.\" |\n)(\"?)([a-z])")
_SPACES = re.compile(r" {2,}")


@lru_cache(maxsize=None)
def _parse(template):
    """Template text to a tree: a sequence of strings, ("var", name) and ("any", [sequence, ...])."""
    sequence, end = _parse_sequence(template, 0, inside=False)
    assert end == len(template), f"stray ']' in {template!r}"
    return sequence


def _parse_sequence(text, at, inside):
    parts, literal = [], []

    def flush():
        if literal:
            parts.append("".join(literal))
            literal.clear()

    while at < len(text):
        char = text[at]
        if inside and char in "|]":
            break
        if char == "[":
            flush()
            options = []
            while text[at] != "]":
                option, at = _parse_sequence(text, at + 1, inside=True)
                options.append(option)
            parts.append(("any", tuple(options)))
        elif char == "{":
            flush()
            close = text.index("}", at)
            parts.append(("var", text[at + 1 : close]))
            at = close
        else:
            literal.append(char)
        at += 1
    flush()
    return tuple(parts), at


def _render(rng, sequence, scene, out):
    for part in sequence:
        if isinstance(part, str):
            out.append(part)
        elif part[0] == "var":
            out.append(str(scene[part[1]]))
        else:
            _render(rng, rng.choice(part[1]), scene, out)


def fill(rng, template, **scene):
    """Fill the holes of a template and leave the rest as it is written."""
    out = []
    _render(rng, _parse(template), scene, out)
    return _SPACES.sub(" ", "".join(out)).strip()


def say(rng, template, **scene):
    """Fill a template and give every sentence its capital letter."""
    text = fill(rng, template, **scene)
    return _SENTENCE_START.sub(lambda m: m[1] + m[2] + m[3].upper(), text)


def a(noun):
    """The noun with its indefinite article."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def listed(words):
    """Words joined the way a sentence lists them: "a, b and c"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
