//! The tokenizer of a file: byte-level BPE from its tokens and merges, with the splitting that it names.

use std::path::Path;

use tensor::gguf::{Gguf, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer as Inner};

use super::tokens::{self, Use};
use super::{missing, text, texts, wrong};
use crate::ModelError;

const MODEL: &str = "tokenizer.ggml.model";
const SPLITTING: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";
const ADD_FIRST: &str = "tokenizer.ggml.add_bos_token";

/// Letters with one character before them, single digits, punctuation with line ends behind it, line ends, spaces: what
/// Qwen2 and later publish in tokenizer.json.
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How text is cut before merging.
#[derive(Clone, Copy)]
enum Splitting {
    /// As GPT-2 does.
    Gpt2,
    /// As Qwen does, which also composes characters (NFC).
    Qwen,
}

/// The names of the ways that are read.
const SPLITTINGS: [(&str, Splitting); 2] = [("gpt-2", Splitting::Gpt2), ("qwen2", Splitting::Qwen)];

/// Builds the tokenizer.
pub(crate) fn tokenizer(file: &Gguf) -> Result<Inner, ModelError> {
    require_byte_level(file)?;
    let splitting = splitting(file)?;
    let tokens = tokens::all(file)?;
    let vocab = vocab(file.path(), &tokens)?;
    let merges = merges(file, &vocab)?;
    let refused = |error: tokenizers::Error| refusal(file.path(), error.to_string());
    let model = BPE::builder().vocab_and_merges(vocab, merges).build().map_err(refused)?;

    let mut inner = Inner::new(model);
    splitting.apply(&mut inner).map_err(refused)?;
    inner.with_decoder(Some(ByteLevel::default()));
    let added = |wanted: Use| {
        let of_use = tokens.iter().filter(move |(_, used)| *used == wanted);
        of_use.map(move |(token, _)| AddedToken::from(*token, wanted == Use::Control).normalized(false))
    };
    inner.add_special_tokens(added(Use::Control)).map_err(refused)?;
    inner.add_tokens(added(Use::Added)).map_err(refused)?;
    Ok(inner)
}

fn require_byte_level(file: &Gguf) -> Result<(), ModelError> {
    let expected = "'gpt2' (a byte-level BPE tokenizer)";
    match file.metadata().get(MODEL) {
        None => return Err(missing(file, MODEL, expected)),
        Some(Value::Text(model)) if model == "gpt2" => {}
        Some(other) => return Err(wrong(file, MODEL, expected, other)),
    }
    match file.metadata().get(ADD_FIRST) {
        None | Some(Value::Flag(false)) => Ok(()),
        Some(other) => {
            let expected = "false (prompts are taken as they come; no token is put before them)";
            Err(wrong(file, ADD_FIRST, expected, other))
        }
    }
}

fn splitting(file: &Gguf) -> Result<Splitting, ModelError> {
    let found = text(file, SPLITTING)?;
    let known = SPLITTINGS.iter().find(|(name, _)| Some(*name) == found);
    known.map(|(_, splitting)| *splitting).ok_or_else(|| {
        let names: Vec<String> = SPLITTINGS.iter().map(|(name, _)| format!("'{name}'")).collect();
        let expected =
            format!("{} (convert the original model again if it is an old file)", names.join(" or "));
        match file.metadata().get(SPLITTING) {
            None => missing(file, SPLITTING, &expected),
            Some(other) => wrong(file, SPLITTING, &expected, other),
        }
    })
}

/// Ids by text, unused tokens left out: their texts are invented and must not be found in prompts.
fn vocab(path: &Path, tokens: &[(&str, Use)]) -> Result<Vocab, ModelError> {
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (id, (token, _)) in (0u32..).zip(tokens).filter(|(_, (_, used))| *used != Use::Unused) {
        if let Some(other) = vocab.insert((*token).to_owned(), id) {
            let reason = format!("the tokens {other} and {id} are both '{}'", short(token));
            return Err(refusal(path, reason));
        }
    }
    Ok(vocab)
}

/// Pairs of tokens that merge into a third.
fn merges(file: &Gguf, vocab: &Vocab) -> Result<Vec<(String, String)>, ModelError> {
    let lines = texts(file, MERGES)?.ok_or_else(|| missing(file, MERGES, "a list of texts"))?;
    let mut merges = Vec::with_capacity(lines.len());
    let mut whole = String::new();
    for (number, line) in lines.iter().enumerate() {
        let pair = line.split_once(' ').filter(|(_, second)| !second.contains(' '));
        let pair = pair.filter(|(first, second)| {
            whole.clear();
            whole.extend([*first, *second]);
            [*first, *second, whole.as_str()].iter().all(|part| vocab.contains_key(*part))
        });
        let Some((first, second)) = pair else {
            let expected = "two tokens with a space between them that make a third";
            let reason = format!("'{MERGES}' number {number}: expected {expected}, found '{}'", short(line));
            return Err(refusal(file.path(), reason));
        };
        merges.push((first.to_owned(), second.to_owned()));
    }
    Ok(merges)
}

impl Splitting {
    fn apply(self, inner: &mut Inner) -> Result<(), tokenizers::Error> {
        match self {
            Self::Gpt2 => {
                inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
            }
            Self::Qwen => {
                let split = SplitPattern::Regex(QWEN.to_owned());
                let split = Split::new(split, SplitDelimiterBehavior::Isolated, false)?;
                let bytes = ByteLevel::new(false, false, false);
                inner.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])));
                inner.with_normalizer(Some(NFC)).map(|_| ())?;
            }
        }
        Ok(())
    }
}

fn refusal(path: &Path, reason: String) -> ModelError {
    ModelError::Tokenizer { path: path.to_owned(), reason }
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}
