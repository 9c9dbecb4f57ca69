//! Jinja chat templates of Hugging Face folders.

use serde_json::{Map, Value};

use crate::ModelError;

/// A compiled chat template. Cheap to clone.
#[derive(Clone)]
pub struct ChatTemplate {}

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts of these tokens, if any.
    ///
    /// # Errors
    /// When the template does not parse.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, ModelError> {
        let _ = (source, bos, eos);
        todo!()
    }

    /// Renders a conversation. `messages` is a JSON array; `options` become variables of the template
    /// (`add_generation_prompt` defaults to true).
    ///
    /// # Errors
    /// When the template raises (`raise_exception`) or fails; the message is meant for the client.
    pub fn render(&self, messages: &Value, options: &Map<String, Value>) -> Result<String, ModelError> {
        let _ = (messages, options);
        todo!()
    }
}
