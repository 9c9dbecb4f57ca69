"""What a picture shows, before it is drawn: up to four coloured shapes in a three by three grid, perhaps a word, on a ground.

A scene is plain JSON. All lengths are shares of the picture's shorter side or of its width and height, so that the same
scene can be drawn at any size; ``draw`` turns it into pixels.
"""

import colorsys

SHAPES = "circle square triangle star diamond cross".split()
# name: hue in degrees, saturation, value, each a range
COLOURS = {
    "red": ((-8, 7), (0.78, 1.0), (0.72, 1.0)),
    "orange": ((22, 39), (0.88, 1.0), (0.92, 1.0)),
    "yellow": ((51, 62), (0.75, 1.0), (0.92, 1.0)),
    "green": ((95, 145), (0.62, 1.0), (0.45, 1.0)),
    "blue": ((205, 243), (0.68, 1.0), (0.6, 1.0)),
    "purple": ((268, 300), (0.55, 1.0), (0.42, 0.8)),
    "black": ((0, 360), (0.0, 0.25), (0.0, 0.13)),
    "white": ((0, 360), (0.0, 0.03), (0.95, 1.0)),
}
GREY = ((0, 360), (0.0, 0.05), (0.45, 0.62))
PASTEL = ((0, 360), (0.05, 0.22), (0.88, 1.0))
PLACES = (
    "at the top left", "at the top", "at the top right",
    "on the left", "in the middle", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)
CELL_SPREAD = 0.11  # how far a shape's centre may lie from the middle of its cell, in widths and heights of the picture
CONTRAST = 125.0  # the least distance of a shape's colour from its ground, in bytes of RGB
# native sizes (width, height) that pictures are drawn at, before the preprocessor makes them fit
FORMATS = ((1, 1),) * 7 + ((4, 3),) * 2 + ((3, 4), (3, 2), (2, 3), (16, 9), (2, 1), (1, 2))
WORDS = (
    "CAT DOG SUN SEA BOAT FISH BIRD TREE STAR MOON HELLO HI YES NO STOP GO OPEN EXIT TEA CUP HAT BED BOX BEE ANT OWL FOX COW PIG "
    "HEN DUCK FROG CRAB SEAL GULL WAVE TIDE GATE SAIL SHIP PORT DOCK ROCK SAND SHELL BEACH RAIN SNOW WIND CLOUD STORM LIGHT "
    "NIGHT DAY HOME HOUSE DOOR ROOF WALL GIFT BOOK PEN PAPER RED BLUE GREEN BLACK WHITE ONE TWO THREE FOUR FIVE SIX TEN MILK "
    "BREAD CAKE APPLE PEAR PLUM LEMON GRAPE JAM HONEY SOUP RICE SALT EGG TOY BALL KITE DRUM BELL SONG PLAY JUMP RUN WALK "
    "SWIM CLIMB READ LOVE KIND BRAVE HAPPY QUIET SMALL BIG OLD NEW FAST SLOW WARM COLD ICE FIRE LAMP KEY MAP COIN GOLD ROPE "
    "NET HOOK FLAG MAST KEEL OAR BAY ISLE CAPE POND LAKE RIVER HILL PEAK CAVE WOOD LEAF ROSE SEED GRASS HORSE GOAT LAMB BEAR "
    "WOLF DEER MOLE TOAD SWAN GOOSE SNAIL MOUSE WHALE SHARK OTTER HERON QUEEN KING JAZZ ZOO VEST EXTRA ZERO QUIZ VAN FIX"
).split()


def shade(rng, ranges):
    """A colour of a named range as RGB bytes."""
    hue, saturation, value = (rng.uniform(*limits) for limits in ranges)
    return [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue / 360 % 1.0, saturation, value)]


def distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b)) ** 0.5


def ground(rng):
    """The background: its name where it has one, its colour, and what a gradient would fade to."""
    roll = rng.random()
    if roll < 0.4:
        name, rgb = "white", [255, 255, 255] if rng.random() < 0.6 else shade(rng, COLOURS["white"])
    elif roll < 0.62:
        name, rgb = "", shade(rng, PASTEL)
    elif roll < 0.76:
        name, rgb = "black", [0, 0, 0] if rng.random() < 0.4 else shade(rng, COLOURS["black"])
    elif roll < 0.86:
        name, rgb = "grey", shade(rng, GREY)
    else:
        name = rng.choice([colour for colour in COLOURS if colour not in ("black", "white")])
        rgb = shade(rng, COLOURS[name])
    fade = [min(255, max(0, channel + rng.randint(-28, 28))) for channel in rgb] if rng.random() < 0.12 else rgb
    return {"name": name if fade == rgb else "", "rgb": rgb, "fade": fade}


def coloured(rng, behind, among=tuple(COLOURS)):
    """A colour name and a shade of it that stands out from what is behind."""
    while True:
        name = rng.choice(among)
        rgb = shade(rng, COLOURS[name])
        if name != behind["name"] and min(distance(rgb, behind["rgb"]), distance(rgb, behind["fade"])) >= CONTRAST:
            return name, rgb


def turned(rng, shape):
    """An angle in degrees that leaves the shape what it is."""
    if shape == "circle":
        return 0.0
    most = 6 if shape in ("square", "diamond") else 12
    tilt = rng.choice((0.0, 0.0, rng.uniform(-most, most)))
    return tilt + (180.0 if shape == "triangle" and rng.random() < 0.12 else 0.0)


def thing(rng, cell, largest):
    """A shape in a cell, still without its colour: centre, and half of its extent in shares of the shorter side."""
    shape = rng.choice(SHAPES)
    return {
        "shape": shape, "cell": cell, "turn": round(turned(rng, shape), 1),
        "x": round((cell % 3 * 2 + 1) / 6 + rng.uniform(-CELL_SPREAD, CELL_SPREAD), 4),
        "y": round((cell // 3 * 2 + 1) / 6 + rng.uniform(-CELL_SPREAD, CELL_SPREAD), 4),
        "half": round(rng.uniform(0.085, largest), 4),
        "stretch": round(rng.uniform(0.94, 1.06), 3),
        "edge": rng.random() < 0.1,
    }


def box(item, width, height):
    """The box around a shape, in shares of the width and the height."""
    side = min(width, height)
    x, y = 1.1 * item["half"] * side / width, 1.1 * item["half"] * side / height
    return item["x"] - x, item["y"] - y, item["x"] + x, item["y"] + y


def fits(item, others, width, height):
    """Whether a shape lies inside the picture and touches no other."""
    left, top, right, bottom = box(item, width, height)
    if left < 0.005 or top < 0.005 or right > 0.995 or bottom > 0.995:
        return False
    for other in others:
        a, b, c, d = box(other, width, height)
        if left < c + 0.02 and a < right + 0.02 and top < d + 0.02 and b < bottom + 0.02:
            return False
    return True


def things(rng, count, size, cells, behind):
    """``count`` shapes in different cells, listed in reading order; colours and shapes often repeat, so that counting matters."""
    largest = {0: 0, 1: 0.38, 2: 0.22, 3: 0.18, 4: 0.16}[count]
    placed = []
    shapes = rng.sample(SHAPES, 2) if rng.random() < 0.3 else SHAPES
    among = rng.sample(sorted(COLOURS), 3) if rng.random() < 0.3 else tuple(COLOURS)
    if all(name == behind["name"] or distance(shade(rng, COLOURS[name]), behind["rgb"]) < 2 * CONTRAST for name in among):
        among = tuple(COLOURS)
    for cell in sorted(rng.sample(cells, count)):
        for _ in range(60):
            item = thing(rng, cell, largest)
            item["shape"] = item["shape"] if item["shape"] in shapes else rng.choice(shapes)
            item["turn"] = round(turned(rng, item["shape"]), 1)
            if fits(item, placed, *size):
                item["colour"], item["rgb"] = coloured(rng, behind, among)
                placed.append(item)
                break
    return placed


def lettering(rng, size, behind):
    """A word in the middle row: its letters, its colour, its height in shares of the shorter side."""
    text = rng.choice(WORDS) if rng.random() < 0.5 else "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(1, 5)))
    wide = size[0] / min(size) / (0.82 * max(2, len(text)))  # what the picture's width leaves for a letter
    colour, rgb = coloured(rng, behind)
    return {
        "text": text, "colour": colour, "rgb": rgb, "height": round(rng.uniform(0.75, 1.0) * min(0.36, wide), 4),
        "x": round(rng.uniform(0.0, 1.0), 3), "y": round(0.5 + rng.uniform(-0.08, 0.08), 3),
    }


def native_size(rng):
    """The picture's own width and height in pixels: from a thumbnail to a small screenshot."""
    wide, high = rng.choice(FORMATS)
    area = rng.choice((96, 112, 128, 128, 128, 160, 200, 256, 320)) ** 2
    unit = (area / (wide * high)) ** 0.5
    return [round(wide * unit * rng.uniform(0.97, 1.03)), round(high * unit)]


def scene(rng, count=None, word=None):
    """A whole scene; ``count`` shapes, or one to four; with a word, or now and then."""
    size = native_size(rng)
    behind = ground(rng)
    word = rng.random() < 0.16 if word is None else word
    letters = lettering(rng, size, behind) if word else None
    if count is None:
        count = rng.choice((0, 0, 1, 2)) if word else rng.choice((1, 1, 2, 2, 3, 3, 4, 4)) if rng.random() > 0.02 else 0
    cells = [0, 1, 2, 6, 7, 8] if word else range(9)
    shapes = things(rng, count, size, cells, behind)
    if word:
        shapes = [dict(item, half=min(item["half"], 0.12)) for item in shapes if abs(item["y"] - 0.5) > 0.24 + 0.5 * letters["height"] * 0.5]
    return {
        "size": size, "ground": behind, "things": shapes, "word": letters, "smooth": rng.random() < 0.75,
        "noise": round(rng.choice((0, 0, 0, rng.uniform(1, 8))), 1), "jpeg": rng.choice((0, 0, 0, rng.randint(60, 95))),
        "seed": rng.getrandbits(31),
    }
