"""The shared vocabulary: names, creatures, things, places, colours, and the pronouns that go with them."""

from .grammar import a

GIRLS = (
    "Ada Alma Amy Anna Aria Beth Bella Cara Clara Cora Daisy Dora Edie Ella Elsie Emma Erin Eva Faye Fern Flora Freya Gia Grace "
    "Greta Hana Hazel Heidi Holly Ida Iris Isla Ivy Jade Jane Joy June Kara Kate Lara Leah Lena Lila Lily Lina Lola Lucy Luna "
    "Mabel Maya Mara Marta Mia Mila Mina Mira Molly Nadia Nell Nina Nora Olive Olga Opal Pearl Petra Poppy Rosa Rose Ruby Ruth "
    "Sally Sara Skye Sofia Stella Suki Tara Tess Thea Tilda Tina Una Vera Viola Wendy Willa Yara Zara Zoe Amina Priya Yuki Leila"
).split()
BOYS = (
    "Adam Alan Albert Alec Amos Andy Arlo Asher Ben Bill Bruno Carl Chris Cole Colin Dan Dario David Dylan Eddie Eli Emil Eric "
    "Ethan Evan Felix Finn Frank Fred Gabe George Gus Hank Harry Hugo Ian Isaac Ivan Jack Jacob James Jasper Jim Joel Jonah Josh "
    "Karl Ken Kit Lars Leo Levi Liam Louis Luca Luke Marco Mark Martin Max Miles Milo Nate Ned Niko Noah Nico Oliver Omar Oscar "
    "Otis Otto Owen Paul Pedro Peter Ralph Ravi Ray Remy Rex Robin Rory Ross Sam Seth Simon Stan Stefan Sven Ted Theo Tim Toby "
    "Tom Tomas Victor Walter Will Yusuf Zack Kofi Hiro Anton"
).split()
PET_NAMES = (
    "Pip Biscuit Pebble Button Bubbles Fudge Pepper Dot Nibbles Patch Shelly Sandy Misty Ginger Whisker Clover Acorn Barnacle "
    "Ripple Sprat Finny Coral Puddle Snowy Socks Rusty Tumble Twig Moss Marble Pickle Noodle Waffle Crumbs Bramble Bracken Kelp "
    "Drift Foam Salty Skipper Captain Scout Speckle Sunny Shadow Toffee Velvet Wiggles Zippy Bobbin Cricket Domino Echo Fizz"
).split()

ANIMALS = (
    "crab otter seal gull cat dog fox duck hedgehog mouse owl rabbit snail turtle frog heron puffin whale dolphin fish starfish "
    "squirrel badger goat lamb pony donkey bear sparrow robin swan goose beaver penguin octopus bee ant beetle mole toad deer hen"
).split()
GROWN_UPS = (
    "fisherman,baker,sailor,farmer,lighthouse keeper,postman,gardener,teacher,carpenter,boat builder,cook,painter,clockmaker,"
    "ferryman,shopkeeper,captain,miller,tailor,potter"
).split(",")
MOODS = "small little young shy brave curious quiet cheerful clever gentle kind lonely happy busy patient sleepy careful".split()

COLOURS = "red blue green yellow white black brown orange purple silver golden grey pink".split()
LOOKS = "small old big shiny new little round bright".split() + COLOURS
# things a hero can carry, lose, mend, find and give away
THINGS = (
    "kite lantern shell key map basket hat drum bell rope blanket spoon cup book whistle scarf ball button coin ring boat bucket "
    "net feather stone bottle clock compass flute coat boot ribbon umbrella candle box jar mirror pencil painting teapot pillow "
    "doll wagon flag brush cap chair comb glove necklace ladder letter paddle pot puppet purse sail spade stick telescope toy "
    "top violin watch wheel mug oar anchor"
).split()

PLACES = [  # (preposition, place)
    ("at", "the harbour"), ("on", "the beach"), ("in", "the garden"), ("in", "the kitchen"), ("at", "the lighthouse"),
    ("at", "the market"), ("in", "the forest"), ("at", "the old mill"), ("by", "the river"), ("on", "the hill"),
    ("on", "the island"), ("in", "the bay"), ("in", "the village"), ("on", "the farm"), ("in", "the meadow"),
    ("by", "the pond"), ("at", "the pier"), ("in", "the barn"), ("in", "the orchard"), ("on", "the cliff"),
    ("in", "the library"), ("at", "the school"), ("by", "the lake"), ("in", "the valley"), ("in", "the cave"),
    ("on", "the bridge"), ("in", "the park"), ("in", "the attic"), ("on", "the ferry"), ("at", "the bakery"),
    ("in", "the cove"), ("by", "the sea"), ("in", "the woods"), ("in", "the town"), ("on", "the shore"),
]
TOWNS = (
    "Harwick Saltby Marlow Penwick Oakham Brindle Fernley Whitby Stonebay Eastport Westerly Lowmoor Highcliff Seaford Applewick "
    "Millbrook Riverton Greenhill Sandwell Pinecove Ashford Bayview Cliffton Dunmore Elmwood Foxhill Glenmoor Heathby Kelsea Larkhill"
).split()
FOODS = (
    "apple pie,bread,soup,pancakes,toast,porridge,fish stew,cheese,honey cake,plum jam,carrots,noodles,rice,berries,pears,"
    "potatoes,tomato soup,lemon cake,oat biscuits,beans,waffles,peas,salad,dumplings,cherries"
).split(",")
FRUITS = "apple pear plum cherry peach lemon orange banana melon grape fig lime".split()
JOBS = "baker sailor teacher farmer nurse painter cook builder gardener singer doctor driver writer tailor potter pilot".split()
HOBBIES = (
    "reading,painting,swimming,singing,running,fishing,baking,gardening,dancing,sailing,drawing,knitting,cycling,walking,"
    "cooking,climbing,writing,skating,juggling,birdwatching"
).split(",")

_PRONOUNS = {"girl": ("she", "her", "her"), "boy": ("he", "him", "his"), "it": ("it", "it", "its")}


def invented_name(rng):
    """A pronounceable name nobody has, so that the model learns to copy names rather than to recognise them."""
    onset = "B Br C Cl D Dr F G Gr H J K L M N P Pr Qu R S Sh T Th Tr V W Y Z".split()
    vowel = "a e i o u ai ea ee oo ia".split()
    middle = "b d l ll m n nn r rr s t v nd rl lm st".split()
    ending = ["", "n", "l", "r", "s", "a", "o", "y", "ck", "x", "th"]
    name = rng.choice(onset) + rng.choice(vowel) + rng.choice(middle) + rng.choice(vowel) + rng.choice(ending)
    return name


def person_name(rng):
    """A first name and whether it belongs to a girl or a boy."""
    gender = rng.choice(("girl", "boy"))
    if rng.random() < 0.15:
        return invented_name(rng), gender
    return rng.choice(GIRLS if gender == "girl" else BOYS), gender


def any_name(rng):
    """A first name."""
    return person_name(rng)[0]


def character(rng, prefix, avoid=()):
    """A character of a story, as scene entries under a prefix: name, kind, description and pronouns."""
    roll = rng.random()
    name, gender = person_name(rng)
    if roll < 0.35:
        kind = gender
    elif roll < 0.85:
        kind = rng.choice(ANIMALS)
        if rng.random() < 0.6:
            name = rng.choice(PET_NAMES)
    else:
        kind = rng.choice(GROWN_UPS)
        gender = "boy" if kind in ("fisherman", "postman", "ferryman") else gender
    if name in avoid or kind in avoid:
        return character(rng, prefix, avoid)
    mood = rng.choice(MOODS)
    if kind in GROWN_UPS:
        mood = rng.choice(("old", "kind", "quiet", "cheerful", "young", "patient", "gentle", "clever"))
    he, him, his = _PRONOUNS[gender]
    return {
        prefix: name,
        prefix + "kind": kind,
        prefix + "akind": a(kind),
        prefix + "desc": a(f"{mood} {kind}"),
        prefix + "he": he,
        prefix + "him": him,
        prefix + "his": his,
    }


def thing(rng):
    """A thing as scene entries: the plain noun, the noun with a look, and both with their article."""
    noun = rng.choice(THINGS)
    look = rng.choice(LOOKS)
    return {"noun": noun, "anoun": a(noun), "thing": f"{look} {noun}", "athing": a(f"{look} {noun}")}


def place(rng, prefix=""):
    """A place as scene entries, with and without its preposition."""
    preposition, name = rng.choice(PLACES)
    return {prefix + "place": name, prefix + "inplace": f"{preposition} {name}"}
