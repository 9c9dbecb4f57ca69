"""Background generation with a model of transformers: ``python async_glm.py FOLDER``."""

import sys

from tidegate import AsyncGLM

if len(sys.argv) != 2:
    sys.exit("give the folder of a model that transformers reads, such as one of GPT-2")

from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with AsyncGLM(model, tokenizer, max_queue_size=10, generation_kwargs={"max_new_tokens": 20}) as glm:
    print("native" if glm.is_native else "through its own generate")
    texts = ["The tide", "The gate", "The sea"]
    tasks = [glm.submit(tokenizer(text, return_tensors="pt").input_ids) for text in texts]
    for task in glm.as_completed(tasks):
        print(tokenizer.decode(glm.get_result(task)[0]))
