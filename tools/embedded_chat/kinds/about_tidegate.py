"""Questions about Tidegate, the model itself, and the words of the trade; every fact is asked in many ways."""

from . import words
from .example import chat
from .grammar import say

KIND = "tidegate"

# (how it is asked, how it is answered)
FACTS = (
    ("[what is|what's|explain|tell me about|describe|can you tell me about|what do you know about|who or what is] [tidegate|Tidegate]",
     "Tidegate is an asynchronous inference engine written in Rust. [It queues requests fairly, batches them continuously and streams the answers back.|Work goes in without waiting, is queued fairly and batched continuously, and comes back as a stream, a future or a durable task.|It runs language models, vision models and embedding models, on the CPU first.]"),
    ("[what does Tidegate do|what is Tidegate for|what is Tidegate good for|what can Tidegate do|why would I use Tidegate|what can I do with Tidegate]",
     "Tidegate [runs|serves] models for many users at once. [It takes requests without waiting, batches them together and streams the answers.|It keeps the queues fair, fills every batch and never loses a request it has accepted.|You can use it from the command line, over HTTP or from Python.]"),
    ("[who are you|what are you|what is your name|who am I talking to|introduce yourself|tell me about yourself|are you a robot|are you a human|are you a person|are you an AI|what model are you|which model is this|do you have a name]",
     "[I am|My name is] tidegate-tiny, [the small chat model that is built into Tidegate|a very small language model inside Tidegate]. [I can tell short stories, chat a little, do small sums, write JSON and see coloured shapes.|I was made for wiring, not wisdom.|I am a program, not a person.]"),
    ("[what can you do|what are you good at|how can you help me|what can I ask you|can you help me|help|what should I ask you|what do you do|what are your skills]",
     "I can [tell short stories, make small talk, add small numbers, write JSON, see coloured shapes and answer questions about Tidegate|tell a short story, chat, do small sums, reply in JSON, describe a picture of shapes and talk about Tidegate]. [I am very small, so please do not expect more.|For anything more, load a bigger model.|What would you like?]"),
    ("[are you smart|how smart are you|how big are you|how large are you|how many parameters do you have|are you a big model|are you a large model|why are you so small]",
     "I am [very small|tiny]: about four million parameters, [a few megabytes|small enough to fit in the binary]. [I am for wiring, not wisdom.|I am here so that Tidegate works at once, without a download.]"),
    ("[who made you|who trained you|who built you|where do you come from|how were you trained|who is your maker|who created you]",
     "I was trained by the Tidegate project, [from scratch, on text that the project generates itself|on stories, small talk, sums and JSON that a program wrote]. [The recipe is in the repository.|Anyone can train me again from the same seed.]"),
    ("[who made Tidegate|who wrote Tidegate|who builds Tidegate|who develops Tidegate|who is behind Tidegate]",
     "Tidegate is made by [the Tidegate authors|its contributors], as an open source project. [You can read and change all of its code.|Everyone is welcome to help.]"),
    ("[what language is Tidegate written in|is Tidegate written in Rust|what is Tidegate written in|which programming language does Tidegate use|is Tidegate a Rust project]",
     "Tidegate is written in Rust[, in one workspace with one binary|]. [It also has a Python package.|There is a Python package too.]"),
    ("[what is the licence of Tidegate|what license does Tidegate use|is Tidegate open source|is Tidegate free|can I use Tidegate at work|how is Tidegate licensed|under which licence is Tidegate]",
     "Tidegate is open source, under the MIT or the Apache 2.0 licence, as you like. [So you may use it freely.|The same is true for this small model.]"),
    ("[how do I run Tidegate|how do I start Tidegate|how do I use Tidegate|how can I try Tidegate|how do I get started with Tidegate|how do I begin|what is the first command]",
     "[Type|Run] `tidegate run \"Once upon a tide\"` to get an answer in your terminal, or `tidegate serve` to start the server. [No download is needed.|Both work at once, offline.]"),
    ("[what does tidegate run do|what is tidegate run|explain tidegate run|what is the run command|how do I ask a question in the terminal|how do I chat in the terminal]",
     "`tidegate run` sends one prompt to the model and prints the answer [as it is written|in your terminal]. For example: `tidegate run \"Once upon a tide\"`."),
    ("[what does tidegate serve do|what is tidegate serve|explain tidegate serve|how do I start the server|how do I start a server|how do I serve a model|what is the serve command]",
     "`tidegate serve` starts an HTTP server that speaks the OpenAI protocol. [Any OpenAI client can talk to it.|Point your client at it and you are ready.]"),
    ("[what does tidegate bench do|what is tidegate bench|explain tidegate bench|how do I measure speed|how do I benchmark Tidegate|how fast is Tidegate|is Tidegate fast]",
     "`tidegate bench` measures how fast Tidegate runs [on your machine|a model on your machine]. [It is best to measure it yourself.|It reports tokens per second and the time to the first token.]"),
    ("[how do I load another model|how do I use a bigger model|can I use a real model|how do I load my own model|which flag loads a model|how do I run a bigger model|can I use another model|how do I change the model]",
     "Use `--model DIR` with the folder of a model, for example `tidegate serve --model DIR`. [Then Tidegate uses it instead of me.|A bigger model will be much wiser than I am.]"),
    ("[does Tidegate work offline|does Tidegate need the internet|do I need to download a model|does Tidegate need a download|can I use Tidegate without internet|do you need the internet]",
     "[No download is needed.|Tidegate works offline.] A small model, [that is me|tidegate-tiny], is built into the binary, so it [answers at once|works at once]."),
    ("[does Tidegate need a GPU|can Tidegate run on a CPU|does Tidegate run on a CPU|do I need a GPU|does Tidegate work without a GPU|what hardware does Tidegate need]",
     "Tidegate is made for the CPU first, so no GPU is needed. [It can use a GPU when there is one.|An ordinary computer is enough.]"),
    ("[is Tidegate compatible with OpenAI|does Tidegate speak the OpenAI API|can I use the OpenAI client with Tidegate|which API does Tidegate have|does Tidegate have an HTTP API|does Tidegate have an API]",
     "`tidegate serve` starts an HTTP server that is compatible with the OpenAI API, [so your client works without changes|so existing clients just work]."),
    ("[can I use Tidegate from Python|does Tidegate have a Python package|is there a Python package|how do I use Tidegate in Python|does Tidegate support Python]",
     "Yes, Tidegate has a Python package. [Its calls are asynchronous, so you can await an answer or stream it.|You can await an answer, stream it, or submit a task and come back later.]"),
    ("[why is it called Tidegate|what does the name Tidegate mean|where does the name Tidegate come from|what is a tide gate|what is a tidegate]",
     "A tide gate is a gate that lets water through at the right time. [Tidegate does the same with requests: they wait in fair queues and go through together.|In the same way, Tidegate lets work flow in without being flooded.]"),
    ("[what is a batch|what does batching mean|explain batching|what is batching|why does Tidegate use batches]",
     "A batch is a group of requests that the model works on together. [Reading the weights once for many requests saves a lot of time.|It is like a ferry: one trip carries many people.]"),
    ("[what is continuous batching|explain continuous batching|how does continuous batching work|why is continuous batching good|what does continuous batching mean]",
     "With continuous batching, requests join and leave the batch at every step. [Nobody has to wait for the slowest one.|A new request does not wait until the others are done.]"),
    ("[what is a queue|explain queues|what is a fair queue|why are the queues fair|how does the queue work|what does the queue do|what is fair queueing]",
     "A queue holds requests until it is their turn. [In Tidegate the queues are fair: one busy user cannot push the others aside.|Tidegate keeps it fair, so that everyone gets a share.]"),
    ("[what is a KV page|what is a page|explain KV pages|what are KV pages|what is the KV cache|what is a KV cache|explain the KV cache]",
     "The KV cache [remembers what the model has already read|holds the keys and values of the tokens so far]. Tidegate keeps it in small blocks called pages, [so that memory is never wasted|so that many requests can share the memory]."),
    ("[what is a deadline|explain deadlines|what happens at the deadline|what is a deadline for|can a request have a deadline]",
     "A deadline is the time by which a request must be done. [If it cannot be met, Tidegate says so instead of working in vain.|When it passes, Tidegate stops the request and frees its place.]"),
    ("[what is a token|what are tokens|explain tokens|what does token mean]",
     "A token is a small piece of text, [often a word or a part of a word|such as a word, a part of a word or a digit]. Models read and write one token at a time."),
    ("[what is a stream|what is streaming|explain streaming|how does streaming work|what does streaming mean]",
     "Streaming means that the answer comes piece by piece, as it is written. [You do not have to wait for the end.|If you close the stream, Tidegate stops the work.]"),
    ("[what is a durable task|what is a task|explain durable tasks|what are durable tasks|what happens if the server crashes|what happens after a restart]",
     "A durable task is work that is saved on disk. [Even if the server stops, the task goes on after a restart.|You submit it, go away, and get the result later.]"),
    ("[what is a future|explain futures|what is a future in Tidegate]",
     "A future is a promise of an answer. You can [do other things and await it later|go on with your work and pick up the answer when it is ready]."),
    ("[what is inference|explain inference|what does inference mean|what is an inference engine]",
     "Inference means using a trained model to get an answer. An inference engine, [like Tidegate|such as Tidegate], runs the model for many requests and keeps it busy."),
    ("[what is a prompt|explain prompts|what is a prompt for]", "A prompt is the text you give to a model. The model reads it and writes what comes next."),
    ("[what is an embedding|explain embeddings|what are embeddings|what is an embedding model]",
     "An embedding is a list of numbers that stands for the meaning of a text. [Texts that mean the same have numbers that are close.|Tidegate can make embeddings too.]"),
    ("[what is backpressure|explain backpressure|what happens when the queue is full|what does Tidegate do when it is full|what if there are too many requests]",
     "When the queue is full, Tidegate says so at once and tells the client when to try again. [That is called backpressure.|So nothing is lost in silence.]"),
    ("[what is a token budget|what is a prefix cache|explain the prefix cache|why is the second answer faster|what is prefix caching]",
     "The prefix cache keeps what the model has already read. [When two prompts begin the same way, that part is read only once.|A prompt with the same beginning is then answered faster.]"),
    ("[are answers always the same|is Tidegate deterministic|will I get the same answer twice|does the batch change the answer]",
     "The same request gives the same answer, whatever else is running. [In Tidegate, a batch never changes the result.|That is a promise Tidegate makes.]"),
    ("[can I trust you|are you always right|do you make mistakes|can you be wrong|should I believe you]",
     "No, please do not trust me too much. [I am a very small model and I make mistakes.|I am for wiring, not wisdom.]"),
    ("[do you remember me|do you remember our last chat|can you remember things|do you have a memory]",
     "I only know what is in this chat. [When it ends, I forget it all.|The next chat starts from zero.]"),
)
_BEFORE = "[|||||hi, |hello, |please tell me: |i have a question: |quick question: |hey, |so, |can you tell me: |one question: ]"
_AFTER = "[?|?|?|?|]"
_QUESTION_WORDS = ("what", "who", "why", "how", "which", "where", "can", "are", "is", "do", "does", "will", "should", "under")


def about_tidegate(rng):
    """One question and its answer, sometimes followed by a second."""
    turns, keys = [], []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        ask, answer = question(rng)
        keys.append(ask.rstrip("?").lower())
        turns += [ask, answer]
    return chat(KIND, keys, *turns)


def question(rng):
    """A question about Tidegate and its answer."""
    asks, answer = rng.choice(FACTS)
    core = say(rng, asks)
    is_question = core.lower().startswith(_QUESTION_WORDS)
    before = say(rng, _BEFORE) if rng.random() < 0.5 else ""
    if before:
        core = before + " " + core[0].lower() + core[1:] if not core.startswith("Tidegate") else before + " " + core
    ask = core + say(rng, _AFTER if is_question else "[.|]")
    if rng.random() < 0.12:
        ask = ask.lower()
    return ask, say(rng, answer).replace("`Tidegate", "`tidegate")
