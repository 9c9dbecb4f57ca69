//! The model that is part of the program: for wiring, not for wisdom.

use models::Repository;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../embedded/tidegate-tiny/", $name)))),*]
    };
}

const FILES: &[(&str, &[u8])] = files!(
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
);

/// The files of `tidegate-tiny`. Its model card stands beside them in the source tree.
pub(crate) const TINY: Repository = Repository::embedded("tidegate-tiny", FILES);
