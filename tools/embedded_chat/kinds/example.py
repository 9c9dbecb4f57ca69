"""What a generator returns: one document, and the facts that decide on which side of the split it falls."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One document: a chat (``messages``) or a plain text (``text``).

    ``keys`` names what the document is *about* (the pair of a sum, the hero and the object of a story, a question's wording, what a picture shows).
    A document is held out when any of its keys is, so a held-out key never occurs in training.
    """

    kind: str
    keys: tuple
    messages: tuple = ()  # of (role, content)
    text: str = ""
    pictures: tuple = ()  # the scenes of the pictures that the messages hold, in their order


def chat(kind, keys, *turns):
    """A chat of alternating user and assistant turns."""
    roles = ("user", "assistant")
    return Example(kind, tuple(keys), tuple((roles[i % 2], turn) for i, turn in enumerate(turns)))
