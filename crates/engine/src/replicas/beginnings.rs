//! Which replica has read the beginning of a prompt: a guess from its text, of which nothing depends but speed.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use protocol::{Content, GenerateRequest, Prompt};

/// Beginnings that are remembered; the oldest go.
const MOST: usize = 4096;

/// Marks of one prompt: what comes behind the last one is not looked at.
const MARKS: usize = 32;

/// Bytes of a text, and tokens of a prompt of tokens, from one mark to the next.
const BYTES: usize = 512;
const TOKENS: usize = 128;

/// Where beginnings have been read.
#[derive(Default)]
pub(super) struct Beginnings {
    read: HashMap<u64, usize>,
    order: VecDeque<u64>,
}

impl Beginnings {
    /// Who has read the longest beginning, if anyone has.
    pub(super) fn reader(&self, marks: &[u64]) -> Option<usize> {
        marks.iter().rev().find_map(|mark| self.read.get(mark).copied())
    }

    /// Notes who reads a prompt.
    pub(super) fn note(&mut self, marks: &[u64], at: usize) {
        for mark in marks {
            if self.read.insert(*mark, at).is_none() {
                self.order.push_back(*mark);
            }
        }
        while self.order.len() > MOST {
            let oldest = self.order.pop_front();
            oldest.and_then(|mark| self.read.remove(&mark));
        }
    }
}

/// Digests of ever longer beginnings of a prompt: up to the end of each message of a conversation, and of each stretch of a
/// text. They begin with whose keys and values it may share.
pub(super) fn marks(request: &GenerateRequest) -> Vec<u64> {
    let mut hasher = DefaultHasher::new();
    (&request.tenant, &request.cache_salt).hash(&mut hasher);
    let mut marks = Vec::new();
    let mut mark = |hasher: &DefaultHasher| marks.push(hasher.finish());
    match &request.prompt {
        Prompt::Chat(chat) => {
            chat.template_options.iter().for_each(|(name, value)| {
                (name, value.to_string()).hash(&mut hasher);
            });
            for message in chat.messages.iter().take(MARKS) {
                message.role.hash(&mut hasher);
                match &message.content {
                    Some(Content::Text(text)) => text.hash(&mut hasher),
                    // A picture is told by its place alone, which is good enough for a guess.
                    Some(Content::Parts(parts)) => parts.iter().for_each(|part| {
                        (&part.kind, part.fields.get("text").and_then(|text| text.as_str()))
                            .hash(&mut hasher);
                    }),
                    None => {}
                }
                mark(&hasher);
            }
        }
        Prompt::Text(text) => text.as_bytes().chunks_exact(BYTES).take(MARKS).for_each(|stretch| {
            stretch.hash(&mut hasher);
            mark(&hasher);
        }),
        Prompt::Tokens(tokens) => tokens.chunks_exact(TOKENS).take(MARKS).for_each(|stretch| {
            stretch.hash(&mut hasher);
            mark(&hasher);
        }),
    }
    marks
}
