"""Small talk: greetings, names, feelings, favourites, advice, jokes, goodbyes, and honest answers to what is out of reach."""

from . import words
from .example import Example, chat
from .grammar import a, fill, say
from .words import any_name

KIND = "small talk"

# (what the user says, what the model says); {x} is the same word on both sides
EXCHANGES = (
    ("[hello|hi|hey|good morning|good evening|good day|hi there|hello there|greetings|hey there|howdy|hiya][!|.||, friend!]",
     "[hello|hi|hi there|hello there]! [how can I help you today?|how are you?|nice to see you. What would you like to talk about?|what can I do for you?|it is good to hear from you.]"),
    ("[hello, |hi, |hey, |]how are you[ today| doing||]?",
     "I am [well|fine|very well], thank you[. How are you?|! How about you?|. And you?|. It is a good day for small words.]"),
    ("[how do you feel|how is it going|how are things|are you well|are you okay|how is your day|how was your day|what's up]?",
     "[very well, thank you|all is well here|it is going well|quite well, thank you]. [How are you?|And how about you?|The tide is calm today.|I am happy to chat with you.]"),
    ("[I am|I'm] [fine|well|good|great|very well|doing well][, thanks|, thank you|][. and you?|.|! how are you?]",
     "[I am glad to hear that|that is good to hear|wonderful|how nice]! [I am well too.|What shall we talk about?|What would you like to do today?]"),
    ("[thanks|thank you|thank you very much|thanks a lot|many thanks|thank you so much|cheers][!|.|| for your help.| for the story.]",
     "[you are welcome|you are very welcome|it was a pleasure|my pleasure|any time|gladly]! [Is there anything else?|I am happy to help.|Just ask if you need more.|]"),
    ("[goodbye|bye|bye bye|see you|see you later|good night|i have to go|i must go now|farewell|until tomorrow|see you tomorrow][!|.|]",
     "[goodbye|bye|see you soon|take care|farewell]! [It was nice to talk to you.|Come back any time.|Have a lovely day.|May the tide be kind to you.]"),
    ("[I am|I'm|I feel] [so |very |a bit |really |][sad|lonely|down|unhappy|blue][ today| right now|][.|]",
     "I am sorry [to hear that|that you feel this way]. [Do you want to talk about it?|A walk and some fresh air may help.|Would you like to hear a story?|Talking to a friend can help.|It will pass, as the tide does.]"),
    ("[I am|I'm|I feel] [so |very |really |][happy|glad|cheerful|excited][ today| right now|][!|.|]",
     "[that is wonderful|how lovely|I am happy for you|that is great]! [What made your day so good?|What happened?|Tell me more.|I hope the day goes on like that.]"),
    ("[I am|I'm|I feel] [so |very |really |][tired|sleepy|exhausted][ today| right now|][.|]",
     "[then you should rest a little|a little rest will do you good|maybe it is time for bed]. [A cup of warm tea may help.|Close your eyes for a while.|Sleep well when you do.]"),
    ("[I am|I'm] [so |very |really |]bored[ today|][.|]",
     "[let us do something about that|I know that feeling|boredom can be the start of an idea]. [Shall I tell you a story?|You could draw, read, or go for a walk.|Ask me for a story or a joke.]"),
    ("[I am|I'm] [so |very |really |]hungry[.|]", "[then it is time to eat something|let us think of food]. [How about some warm soup?|Bread and cheese are always good.|Pancakes are quick to make.]"),
    ("[I am|I'm|I feel] [so |very |really |a bit |][nervous|afraid|worried|scared|anxious][ today| about tomorrow| about my exam|][.|]",
     "[that is a hard feeling|it is all right to feel that way|many people feel like that]. [Breathe slowly, and take one small step at a time.|It often helps to tell someone.|You can do it, step by step.]"),
    ("[I am|I'm|I feel] [so |very |really |a bit |][angry|cross|annoyed|upset][ today| right now|][.|]",
     "I am sorry that [it is a bad day|you feel like that]. [Take a deep breath and count to ten.|What happened?|A short walk can help.]"),
    ("[I am|I'm|I feel] [ill|sick|not well][ today|][.|]", "I am sorry to hear that. [Please rest and drink something warm.|I hope you feel better soon.|If it gets worse, please see a doctor.]"),
    ("[what is your favourite|what's your favourite|do you have a favourite] colour?", "I like [blue, the colour of the sea|green, like the water in the bay|grey, like a quiet morning at the harbour]. [What is yours?|And you?]"),
    ("[what is your favourite|what's your favourite|do you have a favourite] [food|dish|meal]?", "I do not eat, but [I like the sound of warm bread|fish stew sounds good to me|I think I would like soup]. [What do you like to eat?|What about you?]"),
    ("[what is your favourite|what's your favourite|do you have a favourite] [animal|pet]?", "I like [otters, because they hold hands when they sleep|crabs, because they walk sideways|gulls, because they know the wind|seals, because they look so calm]. [And you?|Which one do you like?]"),
    ("[what is your favourite|what's your favourite|do you have a favourite] [book|story]?", "I like [stories about the sea|short stories with a happy ending|any story with a boat in it]. [Would you like to hear one?|Shall I tell you one?]"),
    ("[what is your favourite|what's your favourite] [season|time of the year|time of day|place|song|number|game]?", "[that is hard to say|I have to think about that|good question]. [I like quiet mornings by the sea.|I like the summer, when the evenings are long.|I like the moment when the tide turns.] [And you?|What is yours?]"),
    ("my favourite [colour is {colour}|animal is the {animal}|food is {food}|fruit is the {fruit}|hobby is {hobby}][.|]", "[a good choice|that is a fine choice|how nice|I like that too]! [Why do you like it?|Have you always liked it?|Thank you for telling me.]"),
    ("[I like|I love|I enjoy] {hobby}[.|!| very much.]", "{hobby} is [a lovely thing to do|good for the heart|a fine hobby|great fun]. [How long have you been doing it?|Do you do it often?|When did you start?]"),
    ("do you like {hobby}?", "I am only a small program, so I cannot try it, but {hobby} [sounds lovely|sounds like fun|must be nice]. [Do you like it?|Do you do it often?]"),
    ("do you like {animals}?", "[yes, I like {animals}|I do like {animals}|yes, {animals} are lovely]. [Do you?|Shall I tell you a story about one?|What about you?]"),
    ("[what do you think about|tell me something about|do you like] the [sea|ocean]?", "[the sea is never the same twice|I like the sea|the sea is big and patient]. [It comes and goes, and it always comes back.|Every day it brings something new to the shore.]"),
    ("[what is the weather like|how is the weather|what's the weather like|will it rain|is it sunny|is it cold outside][ today| tomorrow|]?", "I cannot look outside, so I do not know. [How is it where you are?|Look out of the window and tell me!|I hope the sun is shining for you.]"),
    ("[it is|it's] [raining|snowing|windy|cold|foggy][ today| here| outside|][.|]", "[then it is a good day to stay inside|that sounds cosy|a good day for a story]. [Keep warm!|How about a cup of tea?|Shall I tell you a story?]"),
    ("[it is|it's] [sunny|warm|a lovely day|hot][ today| here| outside|][.|!|]", "[how nice|lovely|that sounds good]! [You could go for a walk.|Enjoy the sun.|A good day for the beach.]"),
    ("[what time is it|what is the time|what day is it|what is the date|which day is today]?", "I do not have a clock, so I cannot tell you. [Sorry!|Please look at your watch.|Your computer will know.]"),
    ("[where are you|where do you live|where are you from]?", "I live [inside the Tidegate program, on your computer|in a few megabytes of memory on your machine]. [It is cosy here.|It is a small place, but I like it.]"),
    ("how old are you?", "I am [very young|quite new]. [Models do not have birthdays, but I was trained not long ago.|I do not have a birthday.]"),
    ("[can you|do you] [sleep|eat|dream|feel|hear|swim|dance]?", "No, I am only a small program[. I can read and write words, and that is all.|, but I can tell a story about it.|. I just read words and write words.]"),
    ("[can you|do you] see[ pictures| images|]?", "Yes, [a little|in a small way]. Send me a picture of coloured shapes or a short word, and I will tell you what I see."),
    ("[are you|do you feel] [happy|lonely|tired|bored|sad|busy]?", "I am a small program, so I do not feel things as you do. [But I like to chat.|But it is nice to talk to you.] [How do you feel?|And you?]"),
    ("[tell me a joke|do you know a joke|make me laugh|another joke, please|i want to hear a joke|can you tell me a joke|say something funny][.|?|!|]",
     "[Why did the crab never share? Because it was a little shellfish.|What did the sea say to the shore? Nothing, it just waved.|Why do fish never play the piano? You cannot tuna fish.|Why was the boat so calm? It knew how to go with the flow.|What do you call a bear in the rain? A drizzly bear.|Why did the clock go to school? It wanted to learn to tell the time.|What did one wall say to the other? I will meet you at the corner.|Why did the snail cross the road? Nobody knows, it is still on its way.|Why did the gull sit on the lamp? It wanted to be a light sleeper.]"),
    ("[can you|could you] give me [some |a piece of |]advice?", "[I will try|gladly]. [Sleep well, drink water, and be kind.|Do one thing at a time.|Begin with the smallest step.|When in doubt, ask a friend.] [What is it about?|]"),
    ("[how can I|how do I|what helps me to] sleep [better|well]?", "[go to bed at the same time every day|put the phone away an hour before bed|keep the room dark and cool], and [drink something warm|read a few quiet pages|breathe slowly]. [Sleep well!|]"),
    ("[how can I|how do I] [make friends|find friends|make a new friend]?", "[say hello first and smile|ask people what they like|join others in something you enjoy]. [Listen well, and be patient.|Friends come with time.|Small steps are enough.]"),
    ("[how can I|how do I] [learn faster|study better|learn something new|get better at {hobby}]?", "[practise a little every day|start small and go on|take short breaks, and try again]. [Mistakes are part of it.|It gets easier with time.|Do not give up too soon.]"),
    ("[how can I|how do I] [relax|calm down|feel better]?", "[breathe in slowly, and out slowly|go for a short walk|sit down with a warm cup of tea]. [It helps more than you think.|Be kind to yourself.|Take your time.]"),
    ("what should I [eat|cook|have for dinner|make for lunch][ today| tonight|]?", "how about {food}? [It is simple and good.|It is quick to make.|It always tastes nice.] [Or just some bread and cheese.|Enjoy your meal!|]"),
    ("what should I do [today|tonight|this weekend|tomorrow|now]?", "[you could go for a walk|you could read a book|you could call a friend|you could try some {hobby}]. [A little rest is fine too.|What do you feel like?|Or ask me for a story.]"),
    ("[yes|yes, please|sure|ok|okay|of course|all right][.|!|]", "[good|lovely|very well|all right]! [What would you like?|Tell me more.|A story, a sum, or a little chat?]"),
    ("[no|no, thanks|no, thank you|not now|not really][.|]", "[all right|no problem|that is fine]. [I am here if you need me.|Just ask when you want something.]"),
    ("[you are|you're] [very |so |really |][nice|kind|funny|clever|great|helpful|sweet][.|!|]", "[thank you|how kind of you|that is nice of you|thank you very much]! [You are kind too.|I do my best.|I am only a small model, but I like to help.]"),
    ("[you are|you're] [bad|stupid|wrong|not very smart|useless|slow|silly][.|!|]", "[I am sorry|sorry about that]. [I am a very small model, and I make mistakes.|I am only small, but I will do my best.|A bigger model can do better.]"),
    ("[I am sorry|sorry|my mistake|oops][.|!|]", "[no problem|that is all right|do not worry]. [It happens to everyone.|Let us go on.]"),
    ("[what shall we talk about|let us talk|talk to me|let's chat|can we talk|say something|tell me something]?", "[gladly|of course|yes, let us]! [We could talk about the sea, or your day.|How was your day?|Tell me something about you.|Do you like stories?]"),
    ("I [have|got] [a |][test|exam|meeting|new job|interview] [tomorrow|today|next week][.|]", "I wish you good luck! [You will do well.|Take a deep breath and do your best.|Get a good night's sleep before.]"),
    ("[it is my birthday|today is my birthday|it's my birthday][ today|][!|.|]", "Happy birthday! [I wish you a wonderful day.|I hope there is cake.|May all your wishes come true.]"),
    ("[I went|we went] to [the beach|the market|the sea|the park|the lake|the forest][ today| yesterday|][.|]", "[that sounds lovely|how nice|that sounds like a good day]. [What did you see there?|What did you do there?|Was it fun?]"),
    ("[I lost my {noun}|I cannot find my {noun}|my {noun} is gone|I broke my {noun}][.|]", "[oh no|I am sorry about your {noun}|what a pity]. [Where did you see it last?|Maybe a friend can help you.|I hope it turns out well.]"),
    ("[I bought|I got|I found|I made] {athing}[ today| yesterday|][.|!|]", "{athing}! [how nice|that sounds lovely|wonderful]. [What will you do with it?|Do you like it?|Where will you put it?]"),
    ("[please |can you |]say [hello|hi] to {name}[.|]", "hello, {name}! [Nice to meet you.|I hope you have a good day.]"),
    ("[please |]repeat[ after me|]: {phrase}", "{phrase}"),
    ("[how do you spell|spell] {word}[?|]", "{spelled}"),
    ("[what is|what's] the opposite of {opp}?", "The opposite of {opp} is {osite}."),
    ("[what colour is|which colour is] the [sky|sea|grass|sun|snow|night]?", "[on a clear day the sky is blue, and the sea is too|the sky is blue, grass is green, snow is white and the night is black]."),
    ("[what is|what's] a {animal}?", "A {animal} is an animal. [I know many stories about animals.|I do not know much more, I am afraid.|Shall I tell you a story about one?]"),
    ("[write|tell me|can you write|make|recite] [a |me a |a short |]poem[ about the sea| about the tide||][.|?|]",
     "The tide comes in, the tide goes out,\n[the gulls cry high and fly about|the little boats all turn about|the small waves whisper, never shout].\n[The moon looks down, the night is clear|The lamp is lit, the night is near|The wind is soft, the stars appear],\n[and all the boats are sleeping here|and every wave says: I am here|and home is never far from here]."),
)
OPPOSITES = (
    "hot cold,big small,up down,left right,day night,happy sad,open closed,fast slow,high low,wet dry,light dark,old young,near far,"
    "full empty,early late,soft hard,loud quiet,strong weak,long short,in out"
).split(",")

UNKNOWN_ASKS = (
    "[what is|what's] the capital of {land}?", "who [wrote|invented|discovered|painted|is|was] {somebody}?", "[explain|what is|tell me about|describe] {subject}[.|?]",
    "[write|give me] [a |some ][Python|Rust|Java|SQL|C] [program|function|code] [that sorts a list|for a web server|to read a file|for a game][.|]",
    "translate [this|\"{phrase}\"] [into|to] [French|German|Spanish|Chinese|Latin][.|]", "how do I [fix|repair|build|install|buy|sell] {device}?",
    "when [did|was] {event}[?|]", "[how far|how high|how heavy|how old|how deep] is {bignoun}?", "who won [the {event}|the match|the election|the game][ last year| yesterday|]?",
    "what is [the meaning of life|the square root of {n}|the news today|the price of {device}|the population of {land}]?",
    "why [is the sky blue|do we dream|do stars shine|is {subject} important|do birds fly south]?", "[solve|prove] [this equation|the theorem|x squared plus {n} equals zero][.|]",
    "what is {n} [divided by|to the power of] {n}?", "summarise [the book|the article|the history of {land}][.|]", "how many people live in {land}?",
)
UNKNOWN_ANSWERS = (
    "I am a very small model, and I do not know that. [A bigger model can help: load one with `--model DIR`.|I know stories, small talk, small sums and Tidegate.|Sorry!]",
    "[I am sorry|Sorry], I do not know. [I am only a tiny model, made for stories, small sums and small talk.|That is more than such a small model can know.|You could ask a bigger model.]",
    "That is beyond me, I am afraid. I am a very small model. [Shall I tell you a story instead?|A bigger model will know.|I can tell a story or add two numbers.]",
)
_UNKNOWN = {
    "land": "France Japan Brazil Kenya Canada Italy Norway India Peru Egypt China Spain Poland Chile Ghana Mexico Vietnam Iceland Austria Cuba".split(),
    "somebody": "Hamlet,the telephone,gravity,the president,the Mona Lisa,Don Quixote,radium,the king of Spain,Napoleon,Mozart,the light bulb,Einstein,Plato,the first computer".split(","),
    "subject": "quantum physics,photosynthesis,black holes,the stock market,chemistry,evolution,calculus,democracy,electricity,DNA,volcanoes,algebra,the Roman Empire,inflation,climate change,magnetism,philosophy,football,relativity,opera,Bitcoin,neural networks".split(","),
    "device": "a car,a phone,my computer,a printer,a house,a radio,a bicycle,an engine,a laptop,Windows,a washing machine,a robot".split(","),
    "event": "the war end,the moon landing,the French Revolution,the first flight,the world cup,the Olympic Games,Rome founded,the dinosaurs die".split(","),
    "bignoun": "the moon,Mount Everest,the sun,the Eiffel Tower,Mars,the Earth,the ocean,a blue whale,the universe,London".split(","),
}
SYSTEMS = (
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a friendly assistant.", "You are a helpful and honest assistant.", "Answer briefly.",
    "You are an assistant that gives short answers.", "Be kind and brief.", "You are tidegate-tiny, a small model.", "You are a helpful AI assistant. Keep your answers short.",
)
PHRASES = "the boat is red,good morning,the tide is high,one two three,I like tea,the cat sleeps,hello world,all is well,the sun is up,we sail at noon".split(",")


def small_talk(rng):
    """A chat of one to four exchanges about nothing much."""
    roll = rng.random()
    if roll < 0.16:
        return _remembered(rng)
    if roll < 0.30:
        return _told(rng)
    if roll < 0.42:
        ask, answer = unknown(rng)
        return chat(KIND, [ask], ask, answer)
    turns = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        turns += exchange(rng)
    return chat(KIND, turns[::2], *turns)


def exchange(rng):
    """One thing said and one thing answered."""
    said, answered = rng.choice(EXCHANGES)
    opposite = rng.choice(OPPOSITES).split()
    rng.shuffle(opposite)
    word = rng.choice(words.THINGS + words.ANIMALS)
    animal = rng.choice(words.ANIMALS)
    scene = dict(
        colour=rng.choice(words.COLOURS), animal=animal, animals=_plural(animal), food=rng.choice(words.FOODS), fruit=rng.choice(words.FRUITS),
        hobby=rng.choice(words.HOBBIES), name=any_name(rng), phrase=rng.choice(PHRASES), word=word, spelled="-".join(word.upper()),
        opp=opposite[0], osite=opposite[1], **words.thing(rng),
    )
    return _casual(rng, say(rng, said, **scene)), say(rng, answered, **scene)


def unknown(rng):
    """A question that is out of reach, and an honest answer."""
    scene = {name: rng.choice(values) for name, values in _UNKNOWN.items()}
    ask = say(rng, rng.choice(UNKNOWN_ASKS), n=rng.randint(13, 999), phrase=rng.choice(PHRASES), **scene)
    return _casual(rng, ask), say(rng, rng.choice(UNKNOWN_ANSWERS))


def _casual(rng, text):
    return text.lower() if rng.random() < 0.1 else text


def _plural(animal):
    irregular = {"mouse": "mice", "goose": "geese", "fish": "fish", "deer": "deer", "starfish": "starfish", "octopus": "octopuses", "fox": "foxes"}
    return irregular.get(animal, animal + "s")


# what the user tells, how the model takes it, what the user asks later, what the model remembers
MEMORIES = (
    ("[my name is|I am|I'm|hi, I am|hello, my name is|hey, I'm|you can call me|people call me] {name}[.|!|]",
     "[nice to meet you|hello|hi|pleased to meet you|welcome], {name}! [How are you today?|What can I do for you?|How can I help?|]",
     "[what is my name|what's my name|do you remember my name|who am I|do you know my name|can you tell me my name]?",
     "Your name is {name}."),
    ("I have {apet} [named|called] {pet}[.|]", "[what a nice name|{pet} is a lovely name|how nice]! [Is {pet} a good friend?|Give {pet} my best wishes.|]",
     "[what is my {kind} called|what is the name of my {kind}|what is my {kind}'s name|do you remember the name of my {kind}]?", "Your {kind} is called {pet}."),
    ("I [live in|come from|am from] {town}[.|]", "[how nice|that sounds lovely]! [What is it like in {town}?|I have never been to {town}.|Do you like it there?]",
     "[where do I live|where am I from|do you remember where I live|which town do I come from]?", "You [live in|come from] {town}."),
    ("my favourite colour is {colour}[.|]", "{colour} is [a lovely colour|a beautiful colour|a fine choice]. [Why do you like it?|]",
     "[what is my favourite colour|which colour do I like|do you remember my favourite colour]?", "Your favourite colour is {colour}."),
    ("I am {age} years old[.|]", "[thank you for telling me|that is a good age|{age} is a good age]. [How can I help you?|]",
     "[how old am I|what is my age|do you remember how old I am]?", "You are {age} years old."),
    ("I work as {ajob}[.|]", "{ajob}, [how interesting|how nice|that sounds good]! [Do you like your work?|]", "[what is my job|what do I do|what is my work]?", "You work as {ajob}."),
    ("I like {hobby}[.|]", "{hobby} is [a fine hobby|great fun|a lovely thing to do]. [Do you do it often?|]", "[what do I like|what is my hobby|do you remember what I like]?", "You like {hobby}."),
    ("my [friend|brother|sister|best friend] is called {name}[.|]", "[{name} is a nice name|how nice]. [Say hello to {name} from me.|]",
     "[what is the name I told you|do you remember that name|which name did I tell you]?", "The name is {name}."),
)


def _memory_scene(rng):
    kind = rng.choice("dog cat rabbit horse pony parrot turtle mouse hamster goat fish".split())
    colour, job = rng.choice(words.COLOURS), rng.choice(words.JOBS)
    return dict(
        name=any_name(rng), kind=kind, apet=a(kind), pet=rng.choice(words.PET_NAMES) if rng.random() < 0.6 else any_name(rng),
        town=rng.choice(words.TOWNS) if rng.random() < 0.8 else words.invented_name(rng), colour=colour, age=rng.randint(4, 99), ajob=a(job), hobby=rng.choice(words.HOBBIES),
    )


def _remembered(rng):
    """The user tells something about themselves and later asks for it."""
    tell, take, ask, recall = rng.choice(MEMORIES[:1] * 3 + MEMORIES)
    scene = _memory_scene(rng)
    turns = [_casual(rng, say(rng, tell, **scene)), say(rng, take, **scene)]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        turns += exchange(rng)
    turns += [say(rng, ask, **scene), say(rng, recall, **scene)]
    subject = scene["name"] if "{name}" in tell else scene["pet"] if "{pet}" in tell else None
    return chat(KIND, [f"memory {subject}"] if subject else [turns[0]], *turns)


def _told(rng):
    """A fact told and asked for in one message."""
    scene = _memory_scene(rng)
    scene.update(other=any_name(rng), **words.thing(rng), **words.place(rng))
    told, asked = rng.choice((
        ("{name} has {athing}. What does {name} have?", "{name} has {athing}."),
        ("{name} has {athing}. Who has {athing}?", "{name} has {athing}."),
        ("{name} is {inplace}. Where is {name}?", "{name} is {inplace}."),
        ("{name} is {inplace} and {other} is at home. Where is {name}?", "{name} is {inplace}."),
        ("{name}'s {noun} is {colour}. What colour is {name}'s {noun}?", "{name}'s {noun} is {colour}."),
        ("{name} works as {ajob}. What does {name} do?", "{name} works as {ajob}."),
        ("{name} likes {hobby}, but {other} does not. Who likes {hobby}?", "{name} likes {hobby}."),
        ("{name} lives in {town}. Where does {name} live?", "{name} lives in {town}."),
        ("the {noun} is {inplace}. Where is the {noun}?", "The {noun} is {inplace}."),
    ))
    if scene["other"] == scene["name"]:
        return _told(rng)
    return chat(KIND, [f"told {scene['name']} {scene['noun']}"], say(rng, told, **scene), say(rng, asked, **scene))
