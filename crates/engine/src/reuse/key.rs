//! What makes two requests the same.

use std::fmt::{self, Write};

use protocol::{Content, GenerateRequest, Image, Prompt, TenantId};
use sha2::{Digest, Sha256};

use super::likeness::Likeness;

/// A request without its name, its deadline and its prompt's wording; digests, so that keeping it costs little.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    tenant: TenantId,
    /// Everything but the prompt's texts: its pictures too, of which none is like another.
    frame: [u8; 32],
    prompt: [u8; 32],
    likeness: Likeness,
    determined: Determined,
}

/// Whether the same request gives the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Determined {
    Yes,
    No,
}

impl Key {
    pub(super) fn of(request: &GenerateRequest) -> Self {
        // Taken apart by name, so that whoever adds a field decides here whether it changes the answer.
        let GenerateRequest {
            id: _,
            model,
            prompt,
            images,
            clips,
            sampling,
            limits,
            form,
            choices,
            logprobs,
            tenant,
            priority,
            deadline: _,
            cache_salt,
            sharing: _,
        } = request;
        let greedy = sampling.temperature == Some(0.0);
        let determined = if greedy || sampling.seed.is_some() { Determined::Yes } else { Determined::No };
        // A run has one priority: whoever is more urgent does not wait with those who are less.
        let look = |image: &Image| -> [u8; 32] { Sha256::digest(&image.bytes).into() };
        let looks = |images: &[Image]| images.iter().map(look).collect::<Vec<_>>();
        let scenes: Vec<_> = clips.iter().map(|clip| (looks(&clip.frames), clip.fps)).collect();
        let looks = (looks(images), scenes);
        let other = (choices, logprobs, priority, cache_salt, looks);
        let frame = (model, sampling, limits, form, other, options(prompt));
        Self {
            tenant: tenant.clone(),
            frame: digest(&frame),
            prompt: digest(prompt),
            likeness: Likeness::of(texts(prompt)),
            determined,
        }
    }

    pub(super) fn is_determined(&self) -> bool {
        self.determined == Determined::Yes
    }

    /// How alike the prompts are, from 0 to 1, if nothing else differs.
    pub(super) fn likeness(&self, other: &Self) -> Option<f32> {
        let comparable = self.tenant == other.tenant && self.frame == other.frame;
        comparable.then(|| self.likeness.to(other.likeness))
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.tenant.0.len()
    }
}

/// What of a prompt is not wording: its kind, its template's options, who speaks in which order.
fn options(prompt: &Prompt) -> impl fmt::Debug {
    match prompt {
        Prompt::Text(_) => ("text", None, Vec::new()),
        Prompt::Tokens(_) => ("tokens", None, Vec::new()),
        Prompt::Chat(chat) => {
            let roles = chat.messages.iter().map(|message| message.role.as_str()).collect();
            ("chat", Some(&chat.template_options), roles)
        }
    }
}

fn texts(prompt: &Prompt) -> Vec<&str> {
    match prompt {
        Prompt::Text(text) => vec![text],
        // Ids have no words; they are only ever the same or not.
        Prompt::Tokens(_) => Vec::new(),
        Prompt::Chat(chat) => {
            chat.messages.iter().flat_map(|message| content(message.content.as_ref())).collect()
        }
    }
}

fn content(content: Option<&Content>) -> Vec<&str> {
    match content {
        None => Vec::new(),
        Some(Content::Text(text)) => vec![text],
        Some(Content::Parts(parts)) => {
            parts.iter().flat_map(|part| part.fields.values()).filter_map(serde_json::Value::as_str).collect()
        }
    }
}

/// The digest of a value as Rust writes it for people, which is exact: texts come in quotes, and numbers with all their
/// digits.
fn digest(value: &impl fmt::Debug) -> [u8; 32] {
    struct Into(Sha256);
    impl Write for Into {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut into = Into(Sha256::new());
    // Writing into a digest cannot fail.
    let _ = write!(into, "{value:?}");
    into.0.finalize().into()
}
