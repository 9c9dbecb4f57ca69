//! From what a client sent to the texts that a model reads whole: to embed them, or to score them.

use models::tokenizer::Sentence;
use models::{ModelError, SentenceReader};
use protocol::{EmbedInput, Overlong, Purpose, Refusal};
use tokio::runtime::Handle;

/// More text than this is read on a thread of its own, so that it does not hold up others.
const INLINE_BYTES: usize = 4 << 10;

/// Names under which models keep the prompt of texts to search with, and of texts to be found.
const QUERY: &[&str] = &["query", "search_query"];
const DOCUMENT: &[&str] = &["document", "passage", "corpus", "search_document"];

/// The texts of one request.
pub(crate) struct Read {
    texts: Vec<Text>,
    overlong: Overlong,
}

/// What becomes one row of outputs.
enum Text {
    Single { input: EmbedInput, purpose: Purpose, param: &'static str },
    Pair { query: String, document: String },
}

impl Read {
    /// Texts to be embedded.
    pub(crate) fn texts(inputs: Vec<EmbedInput>, purpose: Purpose, overlong: Overlong) -> Self {
        let single = |input| Text::Single { input, purpose: purpose.clone(), param: "input" };
        Self { texts: inputs.into_iter().map(single).collect(), overlong }
    }

    /// The queries and then the documents, each to be embedded.
    pub(crate) fn apart(queries: Vec<String>, documents: Vec<String>, overlong: Overlong) -> Self {
        let single = |(text, purpose, param)| Text::Single { input: EmbedInput::Text(text), purpose, param };
        let queries = queries.into_iter().map(|text| (text, Purpose::Query, "query"));
        let documents = documents.into_iter().map(|text| (text, Purpose::Document, "documents"));
        Self { texts: queries.chain(documents).map(single).collect(), overlong }
    }

    /// Each document with its query, or with the only one.
    pub(crate) fn pairs(queries: Vec<String>, documents: Vec<String>, overlong: Overlong) -> Self {
        let queries = queries.iter().cycle().cloned();
        let pairs = queries.zip(documents).map(|(query, document)| Text::Pair { query, document });
        Self { texts: pairs.collect(), overlong }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Bytes of all of them, as they came.
    pub(crate) fn held_bytes(&self) -> u64 {
        let bytes = |text: &Text| match text {
            Text::Single { input: EmbedInput::Tokens(ids), .. } => size_of_val(&ids[..]),
            _ => 0,
        };
        (self.bytes() + self.texts.iter().map(bytes).sum::<usize>()) as u64
    }

    fn bytes(&self) -> usize {
        let bytes = |text: &Text| match text {
            Text::Single { input: EmbedInput::Text(text), .. } => text.len(),
            Text::Single { .. } => 0,
            Text::Pair { query, document } => query.len() + document.len(),
        };
        self.texts.iter().map(bytes).sum()
    }
}

/// Turns texts into tokens. Usable from many threads at once, and cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    inner: SentenceReader,
}

impl Reader {
    pub(crate) fn new(inner: SentenceReader) -> Self {
        Self { inner }
    }

    /// The tokens of every text, read beside `runtime`'s tasks where there is much to read and a runtime.
    pub(crate) async fn read(&self, read: Read, runtime: Option<&Handle>) -> Result<Vec<Sentence>, Refusal> {
        let Some(runtime) = runtime.filter(|_| read.bytes() > INLINE_BYTES) else {
            return self.all(read);
        };
        let reader = self.clone();
        let all = runtime.spawn_blocking(move || reader.all(read)).await;
        all.unwrap_or_else(|_| Err(Refusal::NotReady { reason: "its text reader failed".to_owned() }))
    }

    fn all(&self, read: Read) -> Result<Vec<Sentence>, Refusal> {
        let Read { texts, overlong } = read;
        if texts.is_empty() {
            return Err(invalid("input", "at least one text is needed".to_owned()));
        }
        texts.iter().map(|text| self.one(text, overlong)).collect()
    }

    fn one(&self, text: &Text, overlong: Overlong) -> Result<Sentence, Refusal> {
        let (sentence, param) = match text {
            Text::Single { input: EmbedInput::Text(text), purpose, param } => {
                (self.inner.read(self.prompt(purpose)?, text), *param)
            }
            Text::Single { input: EmbedInput::Tokens(ids), param, .. } => (self.ids(ids, param)?, *param),
            Text::Single { input: EmbedInput::Chat(_), .. } => {
                let told = "this model reads texts and no conversations; send the text as 'input', or ask a model that \
                            generates";
                return Err(invalid("messages", told.to_owned()));
            }
            Text::Pair { query, document } => (self.inner.read_pair(query, document), "documents"),
        };
        let unread = |error| invalid(param, format!("the text cannot be tokenised: {error}"));
        let sentence = sentence.map_err(unread)?;
        if overlong == Overlong::Refuse && sentence.is_truncated() {
            let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
            return Err(Refusal::ContextLength {
                context: count(self.inner.tokenizer.max_tokens()),
                prompt_tokens: count(sentence.full_length),
                max_tokens: None,
            });
        }
        Ok(sentence)
    }

    fn ids(&self, ids: &[u32], param: &str) -> Result<Result<Sentence, ModelError>, Refusal> {
        if ids.is_empty() {
            return Err(invalid(param, "at least one token id is needed".to_owned()));
        }
        let sentence = self.inner.tokenizer.encode_ids(ids).transpose();
        sentence.ok_or_else(|| {
            let advice = "the ids are not of this model's vocabulary; send text (in LangChain: \
                          check_embedding_ctx_length=False)";
            invalid(param, advice.to_owned())
        })
    }

    fn prompt(&self, purpose: &Purpose) -> Result<&str, Refusal> {
        let prompts = &self.inner.prompts;
        let first = |names: &[&str]| names.iter().find_map(|name| prompts.get(name)).unwrap_or_default();
        match purpose {
            Purpose::Unsaid => Ok(prompts.default_prompt()),
            Purpose::Query => Ok(first(QUERY)),
            Purpose::Document => Ok(first(DOCUMENT)),
            Purpose::Named(name) => prompts.get(name).ok_or_else(|| {
                let known: Vec<&str> = prompts.names().collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                invalid("prompt_name", format!("the model has no prompt '{name}'; it has {known}"))
            }),
        }
    }
}

fn invalid(param: &str, message: String) -> Refusal {
    Refusal::InvalidParameter { param: param.to_owned(), message }
}
