//! From what a client sent to token ids.

use std::borrow::Cow;

use models::LoadedModel;
use models::chat_template::ChatTemplate;
use models::generation::GenerationDefaults;
use models::tokenizer::Tokenizer;
use models::vision::ClipForm;
use protocol::{Chat, Marks, Prompt, Refusal};
use serde_json::Value;

use crate::reasoning::{Reasoning, Section};

/// What turns prompts into tokens. Usable from many threads at once, and cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    first: Option<u32>,
    section: Option<Section>,
}

impl Reader {
    /// The reader of a model. An empty prompt begins with its first token, or its end-of-sequence token where that
    /// is the only mark between texts, as in GPT-2.
    pub(crate) fn new(loaded: &LoadedModel) -> Self {
        let GenerationDefaults { bos_token_id, eos_token_ids, .. } = &loaded.generation;
        Self {
            tokenizer: loaded.tokenizer.clone(),
            template: loaded.chat_template.clone(),
            section: Section::of(&loaded.tokenizer),
            first: bos_token_id.or(eos_token_ids.first().copied()),
        }
    }

    /// The ids of a prompt, at least one. The steps of its clips are told with their times, in seconds; ids are taken to
    /// do so already.
    pub(crate) fn read(&self, prompt: &Prompt, times: &[Vec<f64>]) -> Result<Vec<u32>, Refusal> {
        let ids = match prompt {
            Prompt::Tokens(ids) => ids.clone(),
            Prompt::Text(text) => self.encode("prompt", &expanded(text, times)?)?,
            Prompt::Chat(chat) => self.encode("messages", &expanded(&self.render(chat)?, times)?)?,
        };
        if !ids.is_empty() {
            return Ok(ids);
        }
        let first = self.first.map(|first| vec![first]);
        first.ok_or_else(|| {
            invalid("prompt", "the prompt is empty and the model has no token to begin with".to_owned())
        })
    }

    /// Where the answer to a prompt, read as `ids`, begins: a model reasons in conversations only.
    pub(crate) fn begins(&self, prompt: &Prompt, ids: &[u32]) -> Reasoning {
        match (prompt, self.section) {
            (Prompt::Chat(_), Some(section)) => Reasoning::after(ids, section),
            _ => Reasoning::Over,
        }
    }

    /// Between which texts the model reasons.
    pub(crate) fn reasoning(&self) -> Option<Marks> {
        self.section.map(|_| Section::marks())
    }

    /// Between which texts the model calls tools, if its template tells it of them.
    pub(crate) fn calls(&self) -> Option<Marks> {
        self.template
            .as_ref()
            .filter(|template| template.knows_tools())
            .map(|_| Marks::new("<tool_call>", "</tool_call>"))
    }

    /// Whether conversations can be rendered.
    pub(crate) fn has_template(&self) -> bool {
        self.template.is_some()
    }

    fn encode(&self, param: &str, text: &str) -> Result<Vec<u32>, Refusal> {
        self.tokenizer
            .encode(text)
            .map_err(|error| invalid(param, format!("the prompt cannot be tokenised: {error}")))
    }

    fn render(&self, chat: &Chat) -> Result<String, Refusal> {
        let template = self.template.as_ref().ok_or_else(|| {
            invalid("messages", "the model has no chat template; send a text prompt instead".to_owned())
        })?;
        let messages: Value =
            serde_json::to_value(&chat.messages).map_err(|error| invalid("messages", error.to_string()))?;
        template.render(&messages, &chat.template_options).map_err(|error| {
            invalid("messages", format!("the chat template refuses the conversation: {error}"))
        })
    }
}

fn expanded<'a>(text: &'a str, times: &[Vec<f64>]) -> Result<Cow<'a, str>, Refusal> {
    if times.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    let expanded = ClipForm::default().expand(text, times);
    expanded.map(Cow::Owned).ok_or_else(|| {
        let given = times.len();
        let told = format!("the prompt has not the {given} places for the {given} videos that were given");
        invalid("messages", told)
    })
}

fn invalid(param: &str, message: String) -> Refusal {
    Refusal::InvalidParameter { param: param.to_owned(), message }
}

/// Bytes that a prompt takes.
pub(crate) fn bytes(prompt: &Prompt) -> u64 {
    match prompt {
        Prompt::Tokens(tokens) => size_of_val(&tokens[..]) as u64,
        text => text.text_bytes() as u64,
    }
}
