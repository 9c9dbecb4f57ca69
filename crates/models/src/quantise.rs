//! Writing a model folder whose matrices are quantised, so that it opens as what quantising at load would make.
//!
//! What is quantised is what the family quantises as it loads: it is let to load once, with a list in place of packing. All
//! other tensors are copied as they stand. docs/quantised-folders.md describes the files.

mod output;
#[cfg(test)]
mod tests;
mod weights;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tensor::Kernels;

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::layers::Packing;
use crate::loaded::{family, other_kind};
use crate::progress::Progress;
use crate::{LoadOptions, Loading, ModelError, ModelKind, Quantisation, Repository, Source, Watch};

pub use output::Existing;
use output::Output;

/// Where config.json says that the matrices of its folder are quantised.
const KEY: &str = "quantization_config";

/// What it calls the way in which they are.
const METHOD: &str = "tidegate";

/// Version of the files.
const VERSION: u64 = 1;

/// Files that a quantised folder takes over as they are, where the model has them.
const COPIED: [&str; 19] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "LICENSE",
    "README.md",
];

/// A folder to be written.
#[derive(Clone, Copy, Debug)]
pub struct QuantisedFolder<'a> {
    /// How matrices are quantised.
    pub quantisation: Quantisation,
    /// The folder.
    pub out: &'a Path,
    /// What happens to what is there.
    pub existing: Existing,
}

/// Writes the model of a folder with quantised matrices. The new folder appears whole or not at all.
///
/// # Errors
/// When the model cannot be read or is quantised already, when the new folder cannot be written or may not replace what
/// is there, and when `watch` stops it.
pub fn quantise(
    repository: &Repository,
    folder: QuantisedFolder<'_>,
    kernels: Arc<dyn Kernels>,
    watch: &dyn Watch,
) -> Result<(), ModelError> {
    let name = folder.quantisation.name().unwrap_or_default();
    let config = Config::read(repository)?;
    if repository.gguf().is_some() {
        return Err(ModelError::QuantisedAlready {
            path: repository.path(""),
            found: "a GGUF file".to_owned(),
        });
    }
    if let Some(found) = stored(&config)? {
        let found = found.name().unwrap_or_default().to_owned();
        return Err(ModelError::QuantisedAlready { path: repository.path(""), found });
    }
    let checkpoint = Checkpoint::open(repository)?;
    let output = Output::begin(folder.out, folder.existing)?;
    let listed = list(repository, (&config, &checkpoint), folder.quantisation, kernels)?;
    weights::write(&output.path("model.safetensors"), &checkpoint, &listed, watch)?;
    for file in COPIED.into_iter().filter(|file| repository.contains(file)) {
        output.write(file, &repository.read(file)?)?;
    }
    let mut settings = repository.json("config.json")?;
    settings[KEY] = json!({ "quant_method": METHOD, "version": VERSION, "dtype": name });
    output.write("config.json", format!("{settings:#}\n").as_bytes())?;
    output.finish()
}

/// The matrices that the family quantises.
fn list(
    repository: &Repository,
    (config, checkpoint): (&Config, &Checkpoint),
    quantisation: Quantisation,
    kernels: Arc<dyn Kernels>,
) -> Result<Vec<crate::layers::Listed>, ModelError> {
    let family = family(repository, config)?;
    let options = LoadOptions {
        dtype: None,
        quantise: Some(quantisation),
        kv: None,
        max_batch_tokens: 1,
        max_outputs: 1,
    };
    let source = Source {
        config,
        checkpoint,
        dtype: tensor::Dtype::Bf16,
        holding: crate::ModelHolding::Quantised(quantisation),
        packing: Packing::listing(),
        progress: Progress::new(Loading::default().watch, 0),
        options: &options,
        kernels,
    };
    let loaded = family.load.decoder(&source);
    drop(loaded.ok_or_else(|| other_kind(repository, family, ModelKind::CausalLm))??);
    Ok(source.packing.into_list())
}

/// How config.json says that the matrices of its folder are quantised, if it does.
///
/// # Errors
/// When they are quantised in a way that is not read.
pub(crate) fn stored(config: &Config) -> Result<Option<Quantisation>, ModelError> {
    let Some(found) = config.get(KEY) else { return Ok(None) };
    let wrong = |key: &str, expected: &str| {
        let value = found.get(key).unwrap_or(&Value::Null);
        config.wrong(&format!("{KEY}.{key}"), expected, value)
    };
    if found.get("quant_method").and_then(Value::as_str) != Some(METHOD) {
        let expected =
            "'tidegate' (folders quantised by other programs are not read; give the original model)";
        return Err(wrong("quant_method", expected));
    }
    if found.get("version").and_then(Value::as_u64) != Some(VERSION) {
        return Err(wrong(
            "version",
            "1 (a newer program wrote it: use that, or quantise the original again)",
        ));
    }
    let dtype = found.get("dtype").and_then(Value::as_str);
    match dtype.and_then(Quantisation::named) {
        Some(quantisation) => Ok(Some(quantisation)),
        None => Err(wrong("dtype", "int8, int4 or int4-g128")),
    }
}
