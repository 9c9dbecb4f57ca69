"""Background generation with a model of transformers, in cells that run in a notebook or from top to bottom:
``python async_glm.py FOLDER``."""

# %% Which model: in a notebook, write its folder here.
import sys

from tidegate import AsyncGLM

if len(sys.argv) != 2:
    sys.exit("give the folder of a model that transformers reads, such as one of GPT-2")

from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])

# %% Tasks go in at once. The engine reads the weights where transformers has them.
glm = AsyncGLM(model, tokenizer, max_queue_size=10, generation_kwargs={"max_new_tokens": 20})
glm.start()
print("native" if glm.is_native else "through its own generate")
tasks = [glm.submit(tokenizer(text, return_tensors="pt").input_ids) for text in ("The tide", "The gate", "The sea")]

# %% Results come as they are ready.
for task in glm.as_completed(tasks):
    print(tokenizer.decode(glm.get_result(task)[0]))

# %% The end.
glm.shutdown()
