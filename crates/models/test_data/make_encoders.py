"""Makes the golden cases `bert`, `cross_encoder`, `roberta` and `xlm_roberta` of this folder: tiny seeded encoders and what
transformers computes.

    python crates/models/test_data/make_encoders.py

needs torch, transformers, tokenizers and safetensors; versions are recorded in each expected.json. The format is the
one that `cargo xtask fixtures` reads. Two runs with the same versions give the same bytes.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification, BertModel, RobertaConfig, RobertaModel
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

HERE = Path(__file__).parent
TEXTS = [
    "", " ", "tide", "The tide comes in twice a day.", "High water at noon; low water at six.",
    "Café naïve ÉTÉ", "東京の潮", "boats boating boated", "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 3,
    "the the the the", "unknownword", "tide\twater\nboat",
]
PAIRS = [
    ["when is high water?", "High water at noon; low water at six."],
    ["when is high water?", "the boat is red"],
    ["tide", ""],
    ["a b c d e f g h i j k l m n o p q r s t u v w x y z", "tide " * 40],
]
WORDS = ("the tide comes in twice a day high water at noon low six boat red is when cafe naive ete").split()
PIECES = ["##ing", "##ed", "##word", "un", "##known"]
LENGTH, HIDDEN, LAYERS, HEADS, INNER = 24, 32, 2, 2, 72


def tokenizer():
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters[:26]), *PIECES]
    tokens += [word for word in dict.fromkeys(WORDS) if word not in tokens]
    vocab = {token: index for index, token in enumerate(tokens)}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.decoder = decoders.WordPiece()
    return made


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def draw(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if "LayerNorm.weight" in name:
                weight.copy_(1 + 0.1 * torch.randn(weight.shape, generator=generator))
            else:
                scale = 0.6 if "embeddings" in name else 1.2 * weight.shape[-1] ** -0.5
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return model.eval()


def folder(case, model, made, architecture, **more):
    path = HERE / case / "model"
    shutil.rmtree(path.parent, ignore_errors=True)
    config = {"architectures": [architecture], "hidden_act": "gelu", "hidden_size": HIDDEN,
              "intermediate_size": INNER, "layer_norm_eps": 1e-12, "max_position_embeddings": 48,
              "model_type": "bert", "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "pad_token_id": 0,
              "position_embedding_type": "absolute", "type_vocab_size": 2, "vocab_size": made.get_vocab_size()}
    config |= more
    if architecture.endswith("SequenceClassification"):
        config["id2label"] = {"0": "LABEL_0"}
    write(path / "config.json", config)
    # What published files contain and sentence-transformers overrides.
    made.enable_truncation(12)
    made.enable_padding(length=12)
    made.save(str(path / "tokenizer.json"), pretty=False)
    made.no_truncation()
    made.no_padding()
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    if case == "bert":
        tensors["embeddings.position_ids"] = np.arange(48, dtype=np.int64)[None]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def case(name, kind, fields, arrays):
    versions = {"torch": torch.__version__, "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__}
    reference = {"library": "transformers", "dtype": "float32", "attention": "eager", "versions": versions}
    write(HERE / name / "expected.json", {"format": "tidegate-fixture/1", "case": name, "kind": kind,
                                          "reference": reference, "model_dir": "model", **fields})
    save_file(arrays, HERE / name / "expected.safetensors")


def bert_config(made, **more):
    return BertConfig(vocab_size=made.get_vocab_size(), hidden_size=HIDDEN, num_hidden_layers=LAYERS,
                      num_attention_heads=HEADS, intermediate_size=INNER, max_position_embeddings=48,
                      attn_implementation="eager", **more)


def roberta_tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def xlm_tokenizer():
    pieces = [*"▁abcdefghijklmnopqrstuvwxyz.,;?", *(f"▁{word}" for word in dict.fromkeys(WORDS)), "ing", "ed"]
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab += [(piece, -1.0 - 0.01 * at - (5.0 if len(piece) == 1 else 0.0)) for at, piece in enumerate(dict.fromkeys(pieces))]
    made = Tokenizer(models.Unigram(vocab, unk_id=3))
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made.decoder = decoders.Metaspace()
    return made


def roberta_config(kind, made, **more):
    # Positions begin behind that of the padding, so 48 of them are 50.
    return kind(vocab_size=made.get_vocab_size(), hidden_size=HIDDEN, num_hidden_layers=LAYERS, type_vocab_size=1,
                num_attention_heads=HEADS, intermediate_size=INNER, max_position_embeddings=50, pad_token_id=1,
                bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5, attn_implementation="eager", **more)


ROBERTA = {"layer_norm_eps": 1e-5, "max_position_embeddings": 50, "pad_token_id": 1, "type_vocab_size": 1}


def bert(made):
    model = draw(BertModel(bert_config(made)), 11)
    sentences("bert", made, model, folder("bert", model, made, "BertModel"))


def roberta(made):
    model = draw(RobertaModel(roberta_config(RobertaConfig, made)), 13)
    path = folder("roberta", model, made, "RobertaModel", model_type="roberta", **ROBERTA)
    sentences("roberta", made, model, path)


def sentences(name, made, model, path):
    kinds = ["Transformer", "Pooling", "Normalize"]
    write(path / "modules.json", [
        {"idx": index, "name": str(index), "path": "" if index == 0 else f"{index}_{kind}",
         "type": f"sentence_transformers.models.{kind}"} for index, kind in enumerate(kinds)])
    write(path / "1_Pooling/config.json", {
        "word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False})
    write(path / "sentence_bert_config.json", {"max_seq_length": LENGTH, "do_lower_case": False})
    write(path / "config_sentence_transformers.json",
          {"prompts": {"query": "when is ", "document": ""}, "default_prompt_name": None})
    rows, vectors, arrays, detail = [], [], {}, []
    for row, text in enumerate(TEXTS):
        full = made.encode(text).ids
        ids = full if len(full) <= LENGTH else [*full[:LENGTH - 1], full[-1]]
        states = model(torch.tensor([ids])).last_hidden_state[0]
        vector = torch.nn.functional.normalize(states.mean(0), dim=0)
        vectors.append(vector.detach().numpy())
        rows.append({"row": row, "text": text, "ids": ids, "untruncated_length": len(full),
                     "truncated": len(ids) < len(full)})
        if row in (0, 3, 8):
            arrays[f"sentence.{row}.last_hidden_state"] = states.detach().numpy()
            detail.append({"row": row, "last_hidden_state": f"sentence.{row}.last_hidden_state"})
    arrays["embeddings"] = np.stack(vectors)
    case(name, "sentence_embedding",
         {"max_seq_length": LENGTH, "embedding_size": HIDDEN, "embeddings": "embeddings", "sentences": rows,
          "detail": detail}, arrays)


def cross_encoder(made):
    model = draw(BertForSequenceClassification(bert_config(made, num_labels=1)), 12)
    path = folder("cross_encoder", model, made, "BertForSequenceClassification")
    write(path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": LENGTH})
    scores("cross_encoder", made, model)


def xlm_roberta(made):
    model = draw(XLMRobertaForSequenceClassification(roberta_config(XLMRobertaConfig, made, num_labels=1)), 14)
    path = folder("xlm_roberta", model, made, "XLMRobertaForSequenceClassification", model_type="xlm-roberta", **ROBERTA)
    write(path / "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": LENGTH})
    scores("xlm_roberta", made, model)


def scores(name, made, model):
    rows = []
    made.enable_truncation(LENGTH, strategy="longest_first")
    for first, second in PAIRS:
        encoded = made.encode(first, second)
        logit = model(torch.tensor([encoded.ids]), token_type_ids=torch.tensor([encoded.type_ids])).logits[0, 0]
        rows.append({"texts": [first, second], "ids": encoded.ids, "token_type_ids": encoded.type_ids,
                     "logit": logit.item(), "score": torch.sigmoid(logit).item()})
    case(name, "pair_scores", {"max_seq_length": LENGTH, "pairs": rows}, {"none": np.zeros(1, np.float32)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    bert(tokenizer())
    cross_encoder(tokenizer())
    roberta(roberta_tokenizer())
    xlm_roberta(xlm_tokenizer())
