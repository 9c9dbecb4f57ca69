//! What a model says, told apart while it says it: reasoning, answer, and calls of tools.
//!
//! Text comes in pieces of any size. Whatever may still turn out to be the beginning of a mark is held back until it is
//! clear; everything else goes on at once, the arguments of a call included.

mod call;

use protocol::Marks;

use call::Call;

/// A part of what was said. Parts of one kind that follow each other concatenate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Reasoning(String),
    Answer(String),
    /// A call begins.
    Call {
        name: String,
    },
    /// Text of the last call's arguments: JSON, if the model keeps to it.
    Arguments(String),
}

/// Which marks matter. Without any, everything is answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Language {
    pub(crate) reasoning: Option<Marks>,
    /// Absent where no tool may be called, so that the marks are text like any other.
    pub(crate) calls: Option<Marks>,
}

/// One choice, as far as it has been said.
#[derive(Clone, Debug)]
pub(crate) struct Speech {
    language: Language,
    at: At,
    held: String,
}

#[derive(Clone, Debug)]
enum At {
    /// Nothing but white space has come.
    Beginning,
    /// `begun` once there was something but white space, which then belongs to it.
    Reasoning {
        begun: bool,
    },
    /// As above.
    Answer {
        begun: bool,
    },
    Call(Call),
}

impl Speech {
    /// The beginning of a choice; `inside` if the prompt has opened the reasoning.
    pub(crate) fn new(language: Language, begins: Begins) -> Self {
        let at = match (begins, &language.reasoning) {
            (Begins::InReasoning, Some(_)) => At::Reasoning { begun: false },
            (_, Some(_)) => At::Beginning,
            (_, None) => At::Answer { begun: language.calls.is_none() },
        };
        Self { language, at, held: String::new() }
    }

    /// Adds text, and says what has become clear.
    pub(crate) fn push(&mut self, text: &str, said: &mut Vec<Said>) {
        self.held.push_str(text);
        while self.step(said) {}
    }

    /// Nothing will follow: says what was held back.
    pub(crate) fn finish(&mut self, said: &mut Vec<Said>) {
        let held = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.at, At::Answer { begun: true }) {
            At::Beginning | At::Answer { begun: true } => tell(Said::Answer, held, said),
            At::Answer { begun: false } => tell(Said::Answer, held.trim_start().to_owned(), said),
            At::Reasoning { begun: true } => tell(Said::Reasoning, held.trim_end().to_owned(), said),
            At::Reasoning { begun: false } => tell(Said::Reasoning, held.trim().to_owned(), said),
            At::Call(call) => {
                if let Some(raw) = call.finish(&held, said) {
                    let open = self.language.calls.as_ref().map_or("", |marks| &marks.open);
                    tell(Said::Answer, format!("{open}{raw}"), said);
                }
            }
        }
    }

    /// Makes of what is held as much as can be made; true if there may be more to make.
    fn step(&mut self, said: &mut Vec<Said>) -> bool {
        match &mut self.at {
            At::Beginning => self.begin(),
            At::Reasoning { .. } => self.reason(said),
            At::Answer { .. } => self.answer(said),
            At::Call(call) => {
                let Some(marks) = &self.language.calls else { return false };
                match call.read(&mut self.held, &marks.close, said) {
                    call::Progress::More => false,
                    call::Progress::Over => {
                        self.at = At::Answer { begun: false };
                        true
                    }
                    call::Progress::NoCall(raw) => {
                        tell(Said::Answer, format!("{}{raw}{}", marks.open, marks.close), said);
                        self.at = At::Answer { begun: true };
                        true
                    }
                }
            }
        }
    }

    fn begin(&mut self) -> bool {
        let Some(marks) = &self.language.reasoning else { return false };
        let text = self.held.trim_start();
        if let Some(rest) = text.strip_prefix(&*marks.open) {
            self.held = rest.to_owned();
            self.at = At::Reasoning { begun: false };
            return true;
        }
        if marks.open.starts_with(text) {
            return false;
        }
        self.at = At::Answer { begun: self.language.calls.is_none() };
        true
    }

    fn reason(&mut self, said: &mut Vec<Said>) -> bool {
        let begun = self.has_begun();
        let Some(marks) = &self.language.reasoning else { return false };
        if let Some(at) = self.held.find(&*marks.close) {
            tell(Said::Reasoning, self.held[..at].trim_end().to_owned(), said);
            self.held.drain(..at + marks.close.len());
            self.at = At::Answer { begun: false };
            return true;
        }
        let clear = clear_of(&self.held, &marks.close);
        self.at = At::Reasoning { begun: begun || clear > 0 };
        tell(Said::Reasoning, self.held.drain(..clear).collect(), said);
        false
    }

    /// Whether the part has begun. Until then white space falls away.
    fn has_begun(&mut self) -> bool {
        let begun = matches!(self.at, At::Reasoning { begun: true } | At::Answer { begun: true });
        if !begun {
            let blank = self.held.len() - self.held.trim_start().len();
            self.held.drain(..blank);
        }
        begun
    }

    fn answer(&mut self, said: &mut Vec<Said>) -> bool {
        let begun = self.has_begun();
        let Some(marks) = &self.language.calls else {
            self.at = At::Answer { begun: begun || !self.held.is_empty() };
            tell(Said::Answer, std::mem::take(&mut self.held), said);
            return false;
        };
        if let Some(at) = self.held.find(&*marks.open) {
            tell(Said::Answer, self.held[..at].trim_end().to_owned(), said);
            self.held.drain(..at + marks.open.len());
            self.at = At::Call(Call::default());
            return true;
        }
        let clear = clear_of(&self.held, &marks.open);
        self.at = At::Answer { begun: begun || clear > 0 };
        tell(Said::Answer, self.held.drain(..clear).collect(), said);
        false
    }
}

/// Where a choice begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// Before anything.
    AtStart,
    /// Within a reasoning that the prompt has opened.
    InReasoning,
}

/// How much of `text` goes on for sure: all but white space at the end, which falls away before a mark, and what may be
/// the beginning of the mark.
fn clear_of(text: &str, mark: &str) -> usize {
    let begins = |at: &usize| text.is_char_boundary(*at) && mark.starts_with(&text[*at..]);
    let held = (text.len().saturating_sub(mark.len())..text.len()).find(begins).unwrap_or(text.len());
    text[..held].trim_end().len()
}

fn tell(kind: fn(String) -> Said, text: String, said: &mut Vec<Said>) {
    if !text.is_empty() {
        said.push(kind(text));
    }
}

#[cfg(test)]
mod tests;
