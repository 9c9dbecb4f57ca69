"""Short stories: one hero, one friend, one small problem, one way out; as plain text and as replies to a request."""

import re

from . import words
from .example import Example, chat
from .grammar import fill, say
from .plots import PLOTS

KIND = "story"

# A plot offers questions and statements side by side; a question that was given a comma gets its mark back.
_QUESTION = re.compile(r'"((?:What|Who|Where|Why|How|Is|Are|Can|Do|Did|Does|Would|May|Will|Shall)\b[^".!?]*),?[,.]" ')

# How a story may begin. Those that only introduce the hero leave the first event to the plot.
INTRODUCTIONS = {
    "Once upon a tide": "Once upon a tide, [there was {hdesc} named {h} who lived near {place}.|{inplace}, there lived {hdesc} named {h}.|when the sea was calm and the gulls were quiet, there lived {hdesc} named {h}.|in a small village by the sea, there lived {hdesc} called {h}.]",
    "Once upon a time": "Once upon a time, [there was {hdesc} named {h}.|there was {hdesc} named {h} who lived near {place}.|{inplace}, there lived {hdesc} called {h}.|in a small village by the sea, there lived {hdesc} named {h}.]",
    "Long ago": "Long ago, [there was {hdesc} named {h}.|{inplace}, there lived {hdesc} named {h}.|when the world was young, there lived {hdesc} called {h} near {place}.]",
    "There once was": "There once was {hdesc} named {h}[| who lived near {place}].",
    "In a small village": "In a small village by the sea, there lived {hdesc} named {h}.",
    "There was": "There was {hdesc} called {h} who [lived near {place}|loved {place}|was known by everyone {inplace}].",
    "Far away": "Far away, [near {place}|behind seven hills|where the river meets the sea], there lived {hdesc} named {h}.",
    "By the sea": "By the sea lived {hdesc} named {h}.",
    "": "{h} was {hdesc}[| who lived near {place}].",
}
EVENTS = {
    "One day": "One day, {hdesc} named {h} [went for a walk|was out early|was busy] {inplace}.",
    "One morning": "One [sunny|cold|windy|quiet|bright||] morning, {hdesc} named {h} [woke up early|went for a walk {inplace}|looked out of the window].",
    "One evening": "One [warm|quiet|misty||] evening, {hdesc} named {h} sat {inplace}.",
    "It was a": "It was a [warm|cold|quiet|windy|grey|bright] [day|morning], and {hdesc} named {h} was {inplace}.",
    "When the tide": "When the tide went out, {hdesc} named {h} came down to the shore.",
    "The tide": "The tide was [low|coming in|going out], and {hdesc} named {h} was {inplace}.",
}
AFTER_INTRODUCTION = "[one day,|one morning,|one evening,|one windy day,|one bright morning,|one day in spring,|one summer day,|one cold day,|on a quiet afternoon,|early one morning,]"
AFTER_EVENT = "[that day,|before long,|after a while,|a little later,|soon,]"

PLAIN_REQUESTS = (
    "[tell|please tell] me a [|short |little |bedtime |nice |funny ]story[.||,please.]",
    "[can|could|will|would] you [tell|write] me a [|short |little |bedtime |nice ]story?",
    "[write|make up|invent] a [|short |little |simple ]story[.||for me.|for my child.|for children.]",
    "i [want|would like] [to hear |]a [|short |little |bedtime ]story[.||,please.]",
    "a story, please[.|]", "story time!", "do you know [a story|any stories]?", "tell me another [story|one][.|]",
)
ABOUT_REQUESTS = (
    "[tell|please tell] me a [|short |little |bedtime |nice ]story about {topic}[.|]",
    "[can|could] you [tell|write] [|me ]a [|short |little ]story about {topic}?",
    "[write|make up|invent] a [|short |little |simple ]story about {topic}[.|]",
    "i [want|would like] a [|short ]story about {topic}[.|]",
    "a [|short ]story about {topic}[|, please][.|]",
    "do you know a story about {topic}?",
)
TOPICS = (  # what a request may name, and whether that needs the hero's name, the thing, the place or the theme
    "{akind}", "{akind}", "{adesc}", "{akind} named {h}", "{akind} called {h}", "{adesc} named {h}", "{h}", "{h} the {hkind}",
    "{h} and {f}", "{akind} and {afkind}", "{h} the {hkind} and {f} the {fkind}", "{theme}", "{theme}", "{akind} {inplace}",
    "{adesc} {inplace}", "{place}", "{akind} and {theme}",
)
THING_TOPICS = (
    "{akind} and {anoun}", "{akind} and {athing}", "{akind} who {has} {athing}", "{h} and {hisa} {noun}", "{anoun}", "{athing}",
    "{akind} named {h} and {anoun}", "{h} and the {noun}", "{akind}, {afkind} and {anoun}", "{akind} with {athing}",
)


def story(rng):
    """A story in one of its two forms: told in reply to a request, or as plain text."""
    plot, scene = _scene(rng)
    keys = (f"story {plot.theme} {scene['hkind']} {scene['noun']}", f"hero {scene['h']} {scene['hkind']}")
    roll = rng.random()
    if roll < 0.25:
        _, text = _tell(rng, plot, scene)
        return Example(KIND, keys, text=text)
    if roll < 0.45:
        lead, text = _tell(rng, plot, scene, allow_bare=False)
        return chat(KIND, keys, _opening_as_request(rng, lead, text), text)
    request, pinned = _request(rng, plot, scene)
    _, text = _tell(rng, plot, scene, pinned_place=pinned)
    if rng.random() < 0.08:
        text = say(rng, "[here is a story for you.|of course!|sure! here is a story.|gladly.]") + "\n\n" + text
    return chat(KIND, (*keys, request) if len(request) > 40 else keys, request, text)


def _scene(rng):
    plot = rng.choice(PLOTS)
    hero = words.character(rng, "h")
    friend = words.character(rng, "f", avoid=(hero["h"], hero["hkind"]))
    scene = {**hero, **friend, **words.thing(rng), **words.place(rng)}
    second = words.place(rng, "2")
    while second["2place"] == scene["place"]:
        second = words.place(rng, "2")
    scene.update(
        he=hero["hhe"], him=hero["hhim"], his=hero["hhis"], him_self="himself" if hero["hhe"] == "he" else "herself",
        akind=hero["hakind"], adesc=hero["hdesc"], afkind=friend["fakind"], theme=plot.theme,
        place2=second["2place"], inplace2=second["2inplace"], near=rng.choice(("near", "close to")),
        shine=rng.choice(("shine", "move", "glitter")), fwinner=rng.choice(("he", "she")), them=rng.choice(("him", "her")),
        has=rng.choice(("finds", "loses", "has", "wants", "makes")), hisa=hero["hhis"],
        hdesc=hero["hdesc"],
    )
    return plot, scene


def _tell(rng, plot, scene, allow_bare=True, pinned_place=False):
    """The lead (how it opens) and the whole text."""
    openings = EVENTS if rng.random() < 0.25 else INTRODUCTIONS
    leads = [lead for lead in openings if lead or allow_bare]
    weights = [5 if lead.startswith("Once upon") else 1 for lead in leads]
    lead = rng.choices(leads, weights)[0]
    scene["when"] = fill(rng, AFTER_EVENT if openings is EVENTS else AFTER_INTRODUCTION)
    scene["when2"] = scene["when"].rstrip(",")
    scene["when3"] = "in the end," if openings is EVENTS else "at last,"
    beats = [say(rng, openings[lead], **scene)]
    if pinned_place and scene["place"] not in beats[0]:
        beats[0] = say(rng, "Once upon a time, {inplace}, there lived {hdesc} named {h}.", **scene)
        scene["when"], scene["when2"] = "one day,", "one day"
    beats += [_QUESTION.sub(r'"\1?" ', say(rng, beat, **scene)) for beat in plot.beats]
    if rng.random() < 0.15:
        beats.append(rng.choice(("The end.", "The end.", "And that was that.", "And that is the end of the story.")))
    cut = rng.choice((2, 3)) if len(beats) > 5 else 2
    if rng.random() < 0.6:  # a few paragraphs, as stories have them
        paragraphs = [" ".join(beats[:cut]), " ".join(beats[cut : cut + 2]), " ".join(beats[cut + 2 :])]
        return lead, "\n\n".join(p for p in paragraphs if p)
    return lead, " ".join(beats)


def _opening_as_request(rng, lead, text):
    """A user who only types how the story starts: a few words of it, or its whole first sentence."""
    first = text.split(". ")[0]
    roll = rng.random()
    if roll < 0.5:
        opening = lead
    elif roll < 0.75:
        opening = first
    else:
        count = len(first.split())
        opening = " ".join(first.split()[: rng.randint(min(3, count), count)])
    return opening.rstrip(",.") + rng.choice(("", "", "", ",", "...", " ..."))


def _request(rng, plot, scene):
    """A request that fits the story, and whether it names the place."""
    if rng.random() < 0.2:
        return say(rng, rng.choice(PLAIN_REQUESTS)), False
    choices = TOPICS if plot.own_thing or not _uses_thing(plot) else TOPICS[:4] + THING_TOPICS * 2 + TOPICS[4:]
    topic = rng.choice(choices)
    request = say(rng, rng.choice(ABOUT_REQUESTS), **{**scene, "topic": fill(rng, topic, **scene)})
    return request, "place}" in topic


def _uses_thing(plot):
    return sum("{thing}" in beat or "{noun}" in beat or "{athing}" in beat for beat in plot.beats) >= 3
