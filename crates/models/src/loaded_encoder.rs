//! An encoder with everything that belongs to it: its tokenizer, and what is made of its hidden states.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use tensor::packed::streamed::StreamedWeights;
use tensor::{Dtype, Kernels};

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::encoder::{Encoder, EncoderBatch, EncoderShape};
use crate::family::{LoadFamily, ModelKind, Source};
use crate::head::{Head, HeadStep, Squash};
use crate::layers::{Classifier, Packing};
use crate::loaded::{arithmetic, family, key, other_kind, precision};
use crate::progress::{Loading, Progress};
use crate::sentence::{Case, Prompts, SentenceSettings};
use crate::tokenizer::{Sentence, SentenceTokenizer};
use crate::{LoadOptions, ModelError, ModelHolding, Quantisation, Repository};

/// What comes out of an encoder for each text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A vector of that width.
    Vector(usize),
    /// A score of a pair of texts.
    Score,
}

/// An encoder with its tokenizer and its head.
pub struct LoadedEncoder {
    /// Name of the family: `bert`.
    pub family: &'static str,
    /// Type of activations, and of weights that are not quantised.
    pub dtype: Dtype,
    /// How weights are quantised, if they are.
    pub quantised: Option<Quantisation>,
    /// Changes when the files change; none if that cannot be told.
    pub identity: Option<String>,
    /// The hidden states.
    pub model: Box<dyn Encoder>,
    /// Its packed weights, where memory holds only some of them.
    pub streamed: Option<StreamedWeights>,
    /// Text to tokens.
    pub reader: SentenceReader,
    /// The most rows that a batch may have: as many as the options asked for, and no fewer than one text can have.
    pub max_batch_tokens: usize,
    head: HeadStep,
}

/// Turns texts into what the model reads. Cheap to clone, usable from many threads at once.
#[derive(Clone)]
pub struct SentenceReader {
    /// Text to tokens.
    pub tokenizer: SentenceTokenizer,
    /// Texts that are put before others.
    pub prompts: Arc<Prompts>,
    case: Case,
    /// Token types that the model tells apart.
    types: usize,
}

impl SentenceReader {
    /// The reader of a model that tells no types apart.
    pub(crate) fn new(tokenizer: SentenceTokenizer, prompts: Arc<Prompts>, case: Case) -> Self {
        Self { tokenizer, prompts, case, types: 1 }
    }

    /// A text with a prompt before it.
    ///
    /// # Errors
    /// When the tokenizer fails on the text, or nothing is left of it.
    pub fn read(&self, prompt: &str, text: &str) -> Result<Sentence, ModelError> {
        let joined =
            if prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{prompt}{text}")) };
        self.tokenizer.encode(&self.cased(&joined)).and_then(|sentence| self.typed(sentence))
    }

    /// A pair of texts.
    ///
    /// # Errors
    /// As [`SentenceReader::read`].
    pub fn read_pair(&self, first: &str, second: &str) -> Result<Sentence, ModelError> {
        let sentence = self.tokenizer.encode_pair(&self.cased(first), &self.cased(second))?;
        self.typed(sentence)
    }

    /// The sentence with no types but those that the model has.
    fn typed(&self, mut sentence: Sentence) -> Result<Sentence, ModelError> {
        let last = u32::try_from(self.types.saturating_sub(1)).unwrap_or(u32::MAX);
        sentence.types.iter_mut().for_each(|kind| *kind = (*kind).min(last));
        some_tokens(sentence)
    }

    fn cased<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.case {
            Case::Kept => Cow::Borrowed(text),
            Case::Lower => Cow::Owned(text.to_lowercase()),
        }
    }
}

/// A model cannot read nothing; only tokenizers that put no special tokens around a text can come to that.
fn some_tokens(sentence: Sentence) -> Result<Sentence, ModelError> {
    match sentence.ids.is_empty() {
        false => Ok(sentence),
        true => Err(ModelError::Encode { reason: "it has no tokens".to_owned() }),
    }
}

impl LoadedEncoder {
    /// What comes out for each text.
    pub fn outcome(&self) -> Outcome {
        match *self.head.head {
            Head::Embedding(..) => Outcome::Vector(self.model.shape().hidden),
            Head::Classifier(..) => Outcome::Score,
        }
    }

    /// What the weights are held as, for people: `f32`, `int8`.
    pub fn precision(&self) -> String {
        precision((self.dtype, holding(self.quantised)))
    }

    /// The same model once more, with the same weights and working memory of its own; see [`crate::LoadedModel::twin`].
    pub fn twin(&self, kernels: Arc<dyn Kernels>) -> Option<Self> {
        if self.streamed.is_some() {
            return None;
        }
        Some(Self {
            model: self.model.twin(Arc::clone(&kernels)),
            streamed: None,
            head: self.head.twin(kernels),
            reader: self.reader.clone(),
            identity: self.identity.clone(),
            ..*self
        })
    }

    /// Bytes of memory for packed weights.
    pub fn weight_bytes(&self) -> usize {
        if let Some(streamed) = &self.streamed {
            return streamed.statistics().budget;
        }
        let head = match &*self.head.head {
            Head::Embedding(..) => 0,
            Head::Classifier(classifier, _) => classifier.bytes(),
        };
        self.model.shape().weight_bytes + head
    }

    /// The vectors or scores of a batch, one row per text; the slice lives until the next call.
    pub fn run(&mut self, batch: &EncoderBatch) -> &[f32] {
        let EncoderShape { hidden, .. } = self.model.shape();
        let states = self.model.forward(batch);
        self.head.forward(states, hidden, &batch.lengths)
    }
}

/// Reads an encoder from its files: a plain folder, a Sentence-Transformers folder, or one with a head that scores.
///
/// # Errors
/// Names the file, what was expected and what was found.
pub fn load_encoder(
    repository: &Repository,
    options: &LoadOptions,
    kernels: Arc<dyn Kernels>,
) -> Result<LoadedEncoder, ModelError> {
    load_encoder_with(repository, options, kernels, Loading::default())
}

/// As [`load_encoder`], with someone who watches and a cache.
///
/// # Errors
/// As `load_encoder`, and [`ModelError::Stopped`].
pub fn load_encoder_with(
    repository: &Repository,
    options: &LoadOptions,
    kernels: Arc<dyn Kernels>,
    loading: Loading<'_>,
) -> Result<LoadedEncoder, ModelError> {
    let config = Config::read(repository)?;
    let family = family(repository, &config)?;
    let LoadFamily::Encoder { positions, load } = family.load else {
        return Err(other_kind(repository, family, ModelKind::Encoder));
    };
    let checkpoint = Checkpoint::open(repository)?;
    let dtype = arithmetic(options.dtype, config.dtype()?.unwrap_or_else(|| checkpoint.dtype()))?;
    let mut settings = SentenceSettings::plain(repository, positions(&config)?)?;
    let max_batch_tokens = options.max_batch_tokens.max(settings.max_tokens);
    let options = &LoadOptions { max_batch_tokens, ..*options };
    let quantised = options.quantise.map(Quantisation::of_encoder);
    let holding = holding(quantised);
    let key = key(repository, &checkpoint, (dtype, holding));
    let identity = key.as_ref().map(|key| key.digest().to_owned());
    let source = Source {
        config: &config,
        checkpoint: &checkpoint,
        dtype,
        holding,
        packing: Packing::new(loading, key, &*kernels)?,
        progress: Progress::new(loading.watch, checkpoint.bytes()),
        options,
        kernels,
    };
    let model = load(&source)?;
    let EncoderShape { hidden, vocabulary, types, .. } = model.shape();
    let head = if scores(&config)? {
        classifier(&source, hidden)?
    } else {
        settings.read_modules(repository, hidden)?;
        Head::Embedding(settings.pooling, settings.scaling)
    };
    let streamed = source.packing.finish()?;
    let tokenizer = SentenceTokenizer::read(repository, settings.max_tokens)?;
    tokenizer.require_below(vocabulary)?;
    Ok(LoadedEncoder {
        family: family.name,
        dtype,
        quantised,
        identity,
        max_batch_tokens,
        head: HeadStep::new(head, source.kernels.clone()),
        model,
        streamed,
        reader: SentenceReader { tokenizer, prompts: Arc::new(settings.prompts), case: settings.case, types },
    })
}

fn holding(quantised: Option<Quantisation>) -> ModelHolding {
    quantised.map_or(ModelHolding::Floats, ModelHolding::Quantised)
}

/// Whether the folder is of a model with a head that scores.
fn scores(config: &Config) -> Result<bool, ModelError> {
    let first = config.get("architectures").and_then(|all| all.get(0)).and_then(Value::as_str);
    if !first.is_some_and(|name| name.ends_with("ForSequenceClassification")) {
        return Ok(false);
    }
    let labels = config.get("id2label").and_then(Value::as_object).map_or(2, |labels| labels.len());
    let labels = config.optional_count("num_labels", 1..=usize::MAX)?.unwrap_or(labels);
    match labels {
        1 => Ok(true),
        _ => Err(config.wrong("id2label", "one label, whose logit is the score of a pair", &labels.into())),
    }
}

/// The head of a cross-encoder; what its logit becomes is what Sentence-Transformers makes of it.
fn classifier(source: &Source<'_>, hidden: usize) -> Result<Head, ModelError> {
    let root = source.checkpoint.prefix(&["bert.", ""], "pooler.dense.weight");
    // The head of RoBERTa has a pooler of its own.
    let pooler = format!("{root}pooler.dense");
    let names = match source.checkpoint.contains("classifier.out_proj.weight") {
        true => ["classifier.dense", "classifier.out_proj"],
        false => [&*pooler, "classifier"],
    };
    let classifier = Classifier::load(source, hidden, names)?;
    let config = source.config;
    let keys = ["sentence_transformers.activation_fn", "sbert_ce_default_activation_function"];
    let key = keys.into_iter().find(|key| config.get(key).is_some()).unwrap_or(keys[0]);
    let squash = match config.text(key)?.and_then(|name| name.rsplit('.').next()) {
        None | Some("Sigmoid") => Squash::Sigmoid,
        Some("Identity") => Squash::Identity,
        Some(other) => return Err(config.wrong(key, "Sigmoid or Identity", &Value::from(other))),
    };
    Ok(Head::Classifier(Box::new(classifier), squash))
}
