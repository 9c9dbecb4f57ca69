"""Small sums: addition and subtraction up to 99, the times table up to 12, comparing, counting, and word problems."""

from . import words
from .example import Example, chat
from .grammar import say

KIND = "arithmetic"

_WORDS = {"+": "plus", "-": "minus", "x": "times"}
_ASK = (
    "what is {a} {sign} {b}?", "what is {a} {sign} {b}?", "{a} {sign} {b} = ?", "{a} {sign} {b}", "{a} {sign} {b} =",
    "what is {a} {word} {b}?", "how much is {a} {sign} {b}?", "calculate {a} {sign} {b}[.|]", "compute {a} {sign} {b}[.|]",
    "[can|could] you [add|work out|tell me] {a} {sign} {b}?", "[please|] solve {a} {sign} {b}[.|]", "how much is {a} {word} {b}?",
    "tell me what {a} {sign} {b} is[.|]", "[hi|hello|hey], what is {a} {sign} {b}?", "what does {a} {sign} {b} [make|equal]?",
)
_ASK_IN_WORDS = {
    "+": ("what is the sum of {a} and {b}?", "add {a} and {b}[.|]", "what do you get if you add {a} and {b}?", "add {b} to {a}[.|]"),
    "-": ("subtract {b} from {a}[.|]", "what is the difference between {a} and {b}?", "take {b} away from {a}[.|]", "what is left if you take {b} from {a}?"),
    "x": ("multiply {a} by {b}[.|]", "what is the product of {a} and {b}?", "multiply {a} and {b}[.|]", "what is {a} multiplied by {b}?"),
}
_PROBLEMS = {
    "+": (
        "{h} has {a} {things} and [finds|gets|buys|is given] {b} more. How many {things} does {he} have[ now|]?|{h} has {c} {things}.",
        "there are {a} {things} in the box and {b} on the table. How many {things} are there in all?|There are {c} {things} in all.",
        "{h} has {a} {things} and {f} has {b}. How many {things} do they have together?|Together they have {c} {things}.",
    ),
    "-": (
        "{h} has {a} {things} and [gives away|loses|sells] {b}. How many {things} does {he} have left?|{h} has {c} {things} left.",
        "there were {a} {things} in the basket. {h} took {b} of them. How many are left?|There are {c} {things} left.",
        "{h} has {a} {things} and {f} has {b}. How many more does {h} have?|{h} has {c} more {things} than {f}.",
    ),
    "x": (
        "there are {a} boxes with {b} {things} in each. How many {things} are there?|There are {c} {things}.",
        "{h} fills {a} bags with {b} {things} each. How many {things} is that?|That is {c} {things}.",
    ),
}
_PLURALS = (
    "apples pears shells marbles coins stones books pencils buttons eggs boats cards stamps biscuits flowers feathers balls cups "
    "plums cherries beads stickers lemons nuts crabs fish"
).split()


def arithmetic(rng):
    """One to four sums in a chat, or a plain sheet of them."""
    roll = rng.random()
    if roll < 0.22:
        return _sheet(rng)
    if roll < 0.32:
        return chat(KIND, *_flat([_compare(rng)]))
    if roll < 0.40:
        return chat(KIND, *_flat([_count(rng)]))
    if roll < 0.54:
        return chat(KIND, *_flat([_problem(rng)]))
    return chat(KIND, *_flat([_sum(rng) for _ in range(rng.choice((1, 1, 1, 2, 3, 4)))]))


def _flat(exchanges):
    keys = [exchange[0] for exchange in exchanges]
    return [keys] + [turn for exchange in exchanges for turn in exchange[1:]]


def _operands(rng):
    """An operation with its operands, its result, and the key its pair is split by."""
    sign = rng.choice("++++---xx")
    if sign == "x":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        return a, sign, b, a * b, "table"  # a times table is learned by heart: only its wording can be held out
    low, high = (0, 20) if rng.random() < 0.2 else (0, 99)
    a, b = rng.randint(low, high), rng.randint(low, high)
    if sign == "-" and a < b:
        a, b = b, a
    return a, sign, b, a + b if sign == "+" else a - b, f"sum {max(a, b)} {sign} {min(a, b)}"


def _sum(rng):
    a, sign, b, c, key = _operands(rng)
    template = rng.choice(_ASK_IN_WORDS[sign] if rng.random() < 0.25 else _ASK)
    shown = rng.choice("x*×") if sign == "x" else sign
    ask = say(rng, template, a=a, b=b, sign=shown, word=_WORDS[sign])
    if rng.random() < 0.08 and sign != "-":
        ask = ask.replace(f" {shown} ", shown)
    return key, ask, f"{a} {sign} {b} = {c}."


def _sheet(rng):
    """Plain lines of sums: the cheapest way to see many of them."""
    sums = [_operands(rng) for _ in range(rng.randint(6, 14))]
    text = "\n".join(f"{a} {sign} {b} = {c}" for a, sign, b, c, _ in sums)
    return Example(KIND, tuple(key for *_, key in sums), text=text)


def _compare(rng):
    a, b = rng.sample(range(100), 2)
    key = f"compare {max(a, b)} {min(a, b)}"
    if rng.random() < 0.6:
        larger = rng.random() < 0.5
        word = "[larger|bigger|greater]" if larger else "smaller"
        ask = say(rng, "[which [number |]is " + word + ", {a} or {b}?|what is " + word + ", {a} or {b}?|which is the " + word + " number, {a} or {b}?]", a=a, b=b)
        pick, other = (max(a, b), min(a, b)) if larger else (min(a, b), max(a, b))
        return key, ask, f"{pick} is {'larger' if larger else 'smaller'} than {other}."
    ask = say(rng, "is {a} [larger|bigger|greater|more] than {b}?", a=a, b=b)
    return key, ask, f"Yes, {a} is larger than {b}." if a > b else f"No, {a} is smaller than {b}."


def _count(rng):
    roll = rng.random()
    if roll < 0.4:
        start = 1 if rng.random() < 0.5 else rng.randint(1, 60)
        end = start + rng.randint(3, 12)
        ask = say(rng, "[please |can you |]count from {a} to {b}", a=start, b=end)
        ask += "?" if ask.startswith("Can") else rng.choice((".", ""))
        return f"count {start} {end}", ask, ", ".join(map(str, range(start, end + 1))) + "."
    number = rng.randint(1, 98)
    if roll < 0.6:
        return f"after {number}", say(rng, "what [number |]comes after {a}?", a=number), f"{number + 1} comes after {number}."
    if roll < 0.75:
        return f"before {number}", say(rng, "what [number |]comes before {a}?", a=number), f"{number - 1} comes before {number}."
    if roll < 0.9:
        parity = "even" if number % 2 == 0 else "odd"
        return f"parity {number}", say(rng, "is {a} [even or odd|odd or even|an even number or an odd number]?", a=number), f"{number} is {parity}."
    number = rng.randint(0, 50)
    return f"double {number}", say(rng, "[what is twice {a}?|double {a}[.|]|what is the double of {a}?]", a=number), f"Twice {number} is {2 * number}."


def _problem(rng):
    a, sign, b, c, key = _operands(rng)
    if sign == "x":
        a, b = max(a, 2), max(b, 2)
        c = a * b
    h, gender = words.person_name(rng)
    f = words.any_name(rng)
    while f == h:
        f = words.any_name(rng)
    ask, _, answer = rng.choice(_PROBLEMS[sign]).rpartition("|")
    scene = dict(h=h, f=f, he="she" if gender == "girl" else "he", a=a, b=b, c=c, things=rng.choice(_PLURALS))
    working = f"{a} {sign} {b} = {c}. " if rng.random() < 0.85 else ""
    return key, say(rng, ask, **scene), working + say(rng, answer, **scene)
