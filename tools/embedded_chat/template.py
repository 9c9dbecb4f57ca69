"""How a chat becomes text: ChatML, once as the Jinja template that ships and once as the two lines the trainer uses."""

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END)

# Written so that it renders the same with Jinja's trim_blocks and lstrip_blocks on or off.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- endif %}"
)


def render(document, generate=False):
    """A document of the corpus as the text the model reads; a plain text ends with the end-of-text token."""
    if "text" in document:
        return document["text"] + END_OF_TEXT
    turns = "".join(f"{IM_START}{m['role']}\n{m['content']}{IM_END}\n" for m in document["messages"])
    return turns + (f"{IM_START}assistant\n" if generate else "")
