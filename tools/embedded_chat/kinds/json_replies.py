"""Replies in JSON: fields named in a request, facts taken out of a sentence, and short lists."""

import json

from . import words
from .example import chat
from .grammar import a, listed, say

KIND = "json"

_LISTS = {
    "colours": words.COLOURS, "colors": words.COLOURS, "fruits": words.FRUITS, "animals": words.ANIMALS, "jobs": words.JOBS,
    "names": words.GIRLS + words.BOYS, "things": words.THINGS, "foods": words.FOODS, "hobbies": words.HOBBIES,
    "days": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "months": "January February March April May June July August September October November December".split(),
}
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_WITH_JSON = (
    "[reply|answer|respond] in JSON[:|.] {what}", "[reply|answer|respond] with JSON only[:|.] {what}", "{what} [reply|answer] in JSON.",
    "{what} give me the [answer|result] as JSON.", "[turn this into JSON|make JSON from this|convert to JSON|write this as JSON]: {what}",
    "{what} [as JSON, please|JSON, please|return JSON][.|]",
)

# field: (how a sentence says it with {v}, and a value)
_FIELDS = {
    "age": ("is {v} years old", lambda rng: rng.randint(2, 99)),
    "town": ("lives in {v}", lambda rng: rng.choice(words.TOWNS)),
    "city": ("lives in {v}", lambda rng: rng.choice(words.TOWNS)),
    "job": ("works as a {v}", lambda rng: rng.choice([j for j in words.JOBS if j[0] not in "aeiou"])),
    "pet": ("has a pet {v}", lambda rng: rng.choice(words.ANIMALS)),
    "hobby": ("likes {v}", lambda rng: rng.choice(words.HOBBIES)),
    "colour": ("likes the colour {v}", lambda rng: rng.choice(words.COLOURS)),
    "food": ("likes to eat {v}", lambda rng: rng.choice(words.FOODS)),
    "boats": ("has {v} boats", lambda rng: rng.randint(2, 30)),
    "books": ("owns {v} books", lambda rng: rng.randint(2, 99)),
    "children": ("has {v} children", lambda rng: rng.randint(2, 6)),
}


def json_reply(rng):
    """One request whose answer is JSON and nothing else."""
    return rng.choices((_person, _described, _list, _order, _made_up, _sums), (6, 4, 3, 2, 2, 1))[0](rng)


def _example(keys, ask, value):
    return chat(KIND, keys, ask, json.dumps(value, ensure_ascii=False))


def _facts(rng, count):
    """Some facts about one person: field names, values, and the sentence that tells them."""
    fields = rng.sample(sorted(_FIELDS), count)
    fields = [f for f in fields if not (f == "city" and "town" in fields)]
    values = {field: _FIELDS[field][1](rng) for field in fields}
    phrases = [_FIELDS[field][0].format(v=values[field]) for field in fields]
    return values, phrases


def _person(rng):
    """The facts come in a sentence; the reply holds them, all or only those that were asked for."""
    name, gender = words.person_name(rng)
    values, phrases = _facts(rng, rng.choice((1, 1, 2, 2, 3)))
    sentence = f"{name} " + (listed(phrases) if rng.random() < 0.7 else (". " + ("She" if gender == "girl" else "He") + " ").join(phrases)) + "."
    value = {"name": name, **values}
    key = f"json {name} {sorted(values.items())[0][1]}"
    if rng.random() < 0.5:
        wanted = list(value)
        if len(wanted) > 2 and rng.random() < 0.4:
            wanted = rng.sample(wanted, 2)
        names = listed(wanted)
        who = rng.choice((f"of {name}", "of this person", "from this sentence", ""))
        ask = say(rng, rng.choice((
            "[reply in JSON with|give me JSON with|extract|return as JSON] the {names} {who}: {sentence}",
            "{sentence} [reply in JSON with|extract as JSON|give me as JSON] the {names}.",
            "[extract|find] the {names} [as JSON|in JSON format] from this [text|sentence]: {sentence}",
            "{sentence} [what is|tell me] the {names} in JSON[?|.]",
        )), names=names, who=who, sentence=sentence).replace(" :", ":")
        return _example((key,), ask, {field: value[field] for field in wanted})
    return _example((key,), say(rng, rng.choice(_WITH_JSON), what=sentence), value)


def _described(rng):
    """ "Reply in JSON with the name and age of Mia, who is 7." """
    name, _ = words.person_name(rng)
    values, phrases = _facts(rng, rng.choice((1, 1, 1, 2)))
    who = f"{name}, who " + " and ".join(phrases)
    ask = say(rng, rng.choice((
        "[reply|answer|respond] in JSON with the {names} of {who}.",
        "[give me|write|make|create|return] [a JSON object|JSON] with the {names} of {who}.",
        "[give me|write|make|create|return] [a JSON object|JSON] for {who}.",
        "[can|could] you write [a JSON object|JSON] with the {names} of {who}?",
        "[write|give me] the {names} of {who} [as|in] JSON.",
    )), names=listed(["name", *values]), who=who)
    return _example((f"json {name} {sorted(values.items())[0][1]}",), ask, {"name": name, **values})


def _list(rng):
    """A list of so many things of a kind, as an array or under a key."""
    what = rng.choice(sorted(_LISTS))
    count = rng.choice(sorted(_NUMBERS))
    source = _LISTS[what]
    start = rng.randrange(len(source))
    items = [source[(start + i) % len(source)] for i in range(count)] if what in ("days", "months") else rng.sample(source, count)
    number = rng.choice((str(count), _NUMBERS[count]))
    scene = dict(number=number, what=what)
    if rng.random() < 0.3:
        ask = say(rng, "[give me|write|make] [a JSON object|JSON] with the key \"{what}\" and a list of {number} {what}.", **scene)
        return _example((f"{ask}",), ask, {what: items})
    if rng.random() < 0.3:
        given = listed(items)
        ask = say(rng, "[make a JSON list of|write as a JSON list|turn into a JSON array|as a JSON list]: {given}[.|]", given=given)
        return _example((f"list {given}",), ask, items)
    ask = say(rng, rng.choice((
        "[give me|write|make|return] a JSON [list|array] of {number} {what}[.|]", "[list|name] {number} {what} [in|as] JSON[.|]",
        "[reply|answer] in JSON: [list|name] {number} {what}.", "{number} {what} as a JSON [list|array][, please|][.|]",
    )), **scene)
    return _example((ask,), ask, items)


def _order(rng):
    """A thing, how many, and what it looks like."""
    noun, colour, count = rng.choice(words.THINGS), rng.choice(words.COLOURS), rng.randint(2, 60)
    name = words.any_name(rng)
    plural = noun + ("es" if noun.endswith(("sh", "ch", "s", "x")) else "s")
    key = f"order {noun} {colour} {count}"
    roll = rng.random()
    if roll < 0.4:
        sentence = say(rng, "{name} [buys|orders|wants|needs] {count} {colour} {plural}.", name=name, count=count, colour=colour, plural=plural)
        value = {"name": name, "item": noun, "colour": colour, "count": count}
        ask = say(rng, "[reply in JSON with|extract|give me JSON with] the name, item, colour and count: {s}", s=sentence)
        return _example((key,), ask, value)
    if roll < 0.7:
        ask = say(rng, "[write|make|give me] [a JSON object|JSON] for {thing} that costs {count} coins.", thing=a(f"{colour} {noun}"), count=count)
        return _example((key,), ask, {"item": noun, "colour": colour, "price": count})
    ask = say(
        rng, "[write|make|create|give me] [a JSON object|JSON] with {k1} {colour} and {k2} {count}.",
        k1=rng.choice(("colour", "\"colour\"", "colour set to")), k2=rng.choice(("count", "\"count\"", "count set to")), colour=colour, count=count,
    )
    return _example((key,), ask, {"colour": colour, "count": count})


def _made_up(rng):
    """The request names a subject and the keys; the values are up to the model."""
    subject = rng.choice(("person", "cat", "dog", "boat", "sailor", "girl", "boy", "pet"))
    name = rng.choice(words.PET_NAMES) if subject in ("cat", "dog", "boat", "pet") else words.any_name(rng)
    pool = {
        "age": rng.randint(1, 15) if subject in ("cat", "dog", "pet") else rng.randint(5, 80),
        "colour": rng.choice(words.COLOURS), "town": rng.choice(words.TOWNS), "food": rng.choice(words.FOODS),
    }
    fields = rng.sample(sorted(pool), rng.choice((1, 2)))
    ask = say(
        rng, "[give me|write|make|invent|create] [a JSON object|JSON] [describing|for|about] {subject} with {fields}.",
        subject=a(subject), fields=listed(["name", *fields]),
    )
    return _example((ask,), ask, {"name": name, **{field: pool[field] for field in fields}})


def _sums(rng):
    """A sum whose answer is wanted in JSON."""
    x, y = rng.randint(0, 30), rng.randint(0, 30)
    ask = say(rng, "[what is {x} + {y}? [reply|answer] in JSON[.|]|[reply|answer] in JSON: what is {x} + {y}?]", x=x, y=y)
    return _example((f"sum {max(x, y)} + {min(x, y)}",), ask, {"result": x + y})
