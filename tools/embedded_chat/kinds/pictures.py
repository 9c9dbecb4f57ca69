"""Chats about a picture: what is in it, of which colour and shape, how many, where, and what is written there."""

from . import scenes
from .example import Example
from .grammar import a, listed, say

KIND = "picture"
# what stands in a message where a picture is; the tokenizer knows these marks as single tokens
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"

NUMBERS = "no one two three four".split()
_C = "[colour|colour|color]"
_IMAGE = "[picture|picture|image]"
_SHAPE = "[shape|shape|object]"
_SHAPES = "[shapes|shapes|objects|things]"
_DESCRIBE = (
    "what do you see[ in this picture| in the picture| in this image| in the image| here|]?",
    "what do you see?",
    f"[please |]describe [this|the] {_IMAGE}[.|]",
    f"what is [in|on|shown in] [this|the] {_IMAGE}?",
    f"what does [this|the] {_IMAGE} show?",
    f"what's in [this|the] {_IMAGE}?",
    f"[can you |]tell me what you see[.|]",
)
_ONLY_SHAPE = ("what [colour|color] is the {shape}?", "which [colour|color] is the {shape}?", "what is the [colour|color] of the {shape}?", "what [colour|color] does the {shape} have?")
_PLACED = (f"what {_C} is the {_SHAPE} {{place}}?", f"which {_C} is the {_SHAPE} {{place}}?", f"what is the {_C} of the {_SHAPE} {{place}}?")
_ONLY_ONE = (f"what {_C} is it?", f"what {_C} is the {_SHAPE}?", f"which {_C} does the {_SHAPE} have?")
_WHICH_SHAPE = (f"which {_SHAPE} is {{colour}}?", "what shape is {colour}?", "what is {colour}?", "what shape is the {colour} [one|object|thing]?", f"what {_SHAPE} is {{colour}}?")
_SHAPE_AT = ("what [shape |]is {place}?", "what do you see {place}?", "which shape is {place}?", "what is {place} of the picture?")
_ONLY_ONE_SHAPE = ("what shape is it?", "which shape is [this|it]?", "what [kind of |]shape is this?", "what shape do you see?")
_HOW_MANY = (f"how many {_SHAPES} are [there|there in the picture|in the picture|in this image]?", f"how many {_SHAPES} do you see?", f"count the {_SHAPES}[.|]", f"how many {_SHAPES} can you see?")
_HOW_MANY_OF = ("how many {what} are there?", "how many {what} do you see?", "how many {what} are in the picture?", "count the {what}[.|]")
_WHERE = ("where is the {what}?", "where is the {what}?", "where do you see the {what}?", "in which place is the {what}?", "where in the picture is the {what}?")
_IS_THERE = ("is there {awhat}?", "is there {awhat} in the picture?", "do you see {awhat}?", "can you see {awhat}?")
_GROUND = (f"what {_C} is the background?", f"which {_C} is the background?", f"what is the {_C} of the background?")
_READ = ("what does it say?", "what is written [here|there|in the picture]?", "[please |]read the [word|text][.|]", "which word is [this|in the picture]?", "what is the word?", "what word do you see?", "what does the text say?", "can you read it?")
_WORD_COLOUR = (f"what {_C} is the [word|text]?", f"which {_C} are the letters?")
_JSON = (
    f"list the {_SHAPES} as JSON[.|]", "describe the picture as JSON[.|]", f"give me the {_SHAPES} as JSON[.|]", "answer in JSON: what [shapes |]do you see?",
)
_BLIND = (
    "what do you see in this picture?", f"[please |]describe [this|the] {_IMAGE}[.|]", f"what is in [this|the] {_IMAGE}?", f"what does [this|the] {_IMAGE} show?",
    f"how many shapes are in the picture?", "what is written in the picture?", f"what {_C} is the background of the picture?",
)
_BLIND_ANSWER = "I see no picture here. [Please send me one.|Send one, and I will tell you what I see.]"


def name(item):
    return f"{item['colour']} {item['shape']}"


def plural(noun):
    return noun + ("es" if noun == "cross" else "s")


def place(item):
    return scenes.PLACES[item["cell"]]


def unique(items, *fields):
    """The items that no other equals in these fields."""
    values = [tuple(item[field] for field in fields) for item in items]
    return [item for item, value in zip(items, values) if values.count(value) == 1]


def described(scene):
    """The whole picture in one sentence, in reading order."""
    items = scene["things"]
    seen = [f"{a(name(item))} {place(item)}" for item in items]
    if scene["word"]:
        seen.append(f"the word {scene['word']['text']}")
    if not seen:
        return f"I see an empty {scene['ground']['name']} picture." if scene["ground"]["name"] else "I see an empty picture."
    return f"I see {listed(seen)}."


def ask_description(rng, scene):
    return "describe", say(rng, rng.choice(_DESCRIBE)), described(scene)


def ask_colour(rng, scene):
    items, roll = scene["things"], rng.random()
    if len(items) == 1 and roll < 0.3:
        return "colour", say(rng, rng.choice(_ONLY_ONE)), f"The {items[0]['shape']} is {items[0]['colour']}."
    if (single := unique(items, "shape")) and roll < 0.75:
        item = rng.choice(single)
        return "colour", say(rng, rng.choice(_ONLY_SHAPE), shape=item["shape"]), f"The {item['shape']} is {item['colour']}."
    if items:
        item = rng.choice(items)
        return "colour", say(rng, rng.choice(_PLACED), place=place(item)), f"The {item['shape']} {place(item)} is {item['colour']}."
    return None


def ask_shape(rng, scene):
    items, roll = scene["things"], rng.random()
    if len(items) == 1 and roll < 0.3:
        return "shape", say(rng, rng.choice(_ONLY_ONE_SHAPE)), f"It is {a(items[0]['shape'])}."
    if (single := unique(items, "colour")) and roll < 0.65:
        item = rng.choice(single)
        return "shape", say(rng, rng.choice(_WHICH_SHAPE), colour=item["colour"]), f"The {item['shape']} is {item['colour']}."
    if items:
        item = rng.choice(items)
        return "shape", say(rng, rng.choice(_SHAPE_AT), place=place(item)), f"There is {a(name(item))} {place(item)}."
    return None


def counted(number, what, one):
    """A count as a sentence."""
    if number == 1:
        return f"There is one {one}."
    return f"There are {NUMBERS[number]} {what}."


def ask_count(rng, scene):
    items, roll = scene["things"], rng.random()
    if roll < 0.45:
        return "count", say(rng, rng.choice(_HOW_MANY)), counted(len(items), "shapes", "shape")
    field = "shape" if roll < 0.75 else "colour"
    known = [item[field] for item in items]
    value = rng.choice(known) if known and rng.random() < 0.8 else rng.choice(scenes.SHAPES if field == "shape" else sorted(scenes.COLOURS))
    what, one = (plural(value), value) if field == "shape" else (f"{value} shapes", f"{value} shape")
    return "count", say(rng, rng.choice(_HOW_MANY_OF), what=what), counted(known.count(value), what, one)


def ask_position(rng, scene):
    items = scene["things"]
    ways = [(("shape",), lambda i: i["shape"]), (("colour",), lambda i: f"{i['colour']} shape"), (("shape", "colour"), name), (("shape", "colour"), name)]
    rng.shuffle(ways)
    for fields, call in ways:
        if single := unique(items, *fields):
            item = rng.choice(single)
            return "position", say(rng, rng.choice(_WHERE), what=call(item)), f"The {call(item)} is {place(item)}."
    return None


def ask_whether(rng, scene):
    items = scene["things"]
    if items and rng.random() < 0.5:
        shown = rng.choice(items)
        shape, colour = shown["shape"], shown["colour"]
    else:
        shape, colour = rng.choice(scenes.SHAPES), rng.choice(sorted(scenes.COLOURS))
    if rng.random() < 0.4:
        what, there = shape, any(item["shape"] == shape for item in items)
    else:
        what, there = f"{colour} {shape}", any(name(item) == f"{colour} {shape}" for item in items)
    answer = f"Yes, there is {a(what)}." if there else f"No, there is no {what}."
    return "yes or no", say(rng, rng.choice(_IS_THERE), awhat=a(what)), answer


def ask_ground(rng, scene):
    ground = scene["ground"]["name"]
    return ("background", say(rng, rng.choice(_GROUND)), f"The background is {ground}.") if ground else None


def ask_word(rng, scene):
    word = scene["word"]
    if not word:
        return None
    if rng.random() < 0.2:
        return "colour of a word", say(rng, rng.choice(_WORD_COLOUR)), f"The word is {word['colour']}."
    return "word", say(rng, rng.choice(_READ)), f"The word is {word['text']}."


def ask_json(rng, scene):
    if not scene["things"]:
        return None
    listing = ", ".join(
        f'{{"colour": "{item["colour"]}", "shape": "{item["shape"]}", "place": "{place(item).split(" ", 1)[1].removeprefix("the ")}"}}' for item in scene["things"]
    )
    return "json", say(rng, rng.choice(_JSON)), f"[{listing}]"


ASKS = ((26, ask_description), (14, ask_colour), (14, ask_shape), (24, ask_count), (17, ask_position), (14, ask_whether), (4, ask_ground), (6, ask_json))
LOOKUPS = ((5, ask_position), (4, ask_colour), (3, ask_shape), (8, ask_count), (6, ask_whether))


def exchange(rng, scene):
    """One question about a scene: its kind, the words, and the answer."""
    while True:
        weights, asks = zip(*ASKS)
        ask = ask_word if scene["word"] and rng.random() < 0.6 else rng.choices(asks, weights)[0]
        if made := ask(rng, scene):
            kind, question, answer = made
            return kind, question.lower() if rng.random() < 0.12 and ask is not ask_json else question, answer


def subject(scene):
    """The key that decides on which side of the split a scene falls: what it shows and where."""
    shown = " ".join(f"{name(item)} {item['cell']}" for item in scene["things"])
    return f"scene {shown} {scene['word']['text'] if scene['word'] else ''} {scene['ground']['name'] if not scene['things'] else ''}"


def picture(rng):
    """A picture and a few questions about it; now and then a second picture follows."""
    turns, keys, shown = [], [], []
    for _ in range(1 if rng.random() < 0.93 else 2):
        scene = scenes.scene(rng)
        keys.append(subject(scene) if scene["things"] or scene["word"] else "table")
        shown.append(scene)
        asked = set()
        for number in range(rng.randint(3, 7) if len(shown) == 1 else rng.randint(1, 3)):
            _, question, answer = exchange(rng, scene)
            if number and question in asked:
                continue
            asked.add(question)
            if number == 0:
                question = question + ("\n" if rng.random() < 0.3 else "") + PICTURE if rng.random() < 0.35 else PICTURE + ("\n" if rng.random() < 0.1 else "") + question
            turns += [("user", question), ("assistant", answer)]
    return Example(KIND, tuple(keys), tuple(turns), pictures=tuple(shown))


def drill(rng):
    """Several shapes, and many questions for each of which one of them has to be found: what a small model learns last, and only from many at once."""
    scene = scenes.scene(rng, count=rng.choice((2, 3, 3, 4, 4)), word=False)
    weights, asks = zip(*LOOKUPS)
    turns, answers = [], set()
    for ask in rng.choices(asks, weights, k=rng.randint(10, 20)):
        made = ask(rng, scene)
        if made is None or made[2] in answers:
            continue
        _, question, answer = made
        answers.add(answer)
        turns += [("user", question if turns else PICTURE + question), ("assistant", answer)]
    return Example(KIND, (subject(scene),), tuple(turns), pictures=(scene,))


def blind(rng):
    """A question about a picture that was not sent."""
    question = say(rng, rng.choice(_BLIND))
    return Example("small talk", ("table",), (("user", question), ("assistant", say(rng, _BLIND_ANSWER))))
