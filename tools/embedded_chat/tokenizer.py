"""The tokenizer: byte-level BPE with Qwen's way of cutting text (single digits, words with their leading space)."""

import json
from collections import namedtuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from template import CHAT_TEMPLATE, END_OF_TEXT, IM_END, SPECIAL_TOKENS

ENTRIES = 2045  # of the byte-pair vocabulary; the special tokens come after them
Special = namedtuple("Special", [token.strip("<|>").replace("endoftext", "end_of_text") for token in SPECIAL_TOKENS])

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(texts):
    """A tokenizer of exactly ``ENTRIES`` entries and the special ones after them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=ENTRIES,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    ))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    assert tokenizer.get_vocab_size() == ENTRIES + len(SPECIAL_TOKENS)
    return tokenizer


def special_ids(tokenizer):
    """The ids of the special tokens, by name."""
    return Special(*(tokenizer.token_to_id(token) for token in SPECIAL_TOKENS))


def save(tokenizer, folder, max_length):
    """``tokenizer.json`` in its compact form, ``tokenizer_config.json``, and the chat template."""
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True,
            }
            for token in SPECIAL_TOKENS
        },
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": IM_END,
        "model_max_length": max_length,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
