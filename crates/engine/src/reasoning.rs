//! Where a continuation stands between reasoning and answering.
//!
//! A model that reasons does so between two tokens of its vocabulary, at the very beginning of its turn. Some
//! templates open the section themselves, at the end of the prompt, or close it there to ask for an answer at once.

use models::tokenizer::Tokenizer;
use protocol::Marks;

/// The texts of the tokens, in all models that reason so.
const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Tokens at the end of a prompt in which a section that its template opens or closes would be found: a mark or two
/// with line breaks around them.
const TAIL: usize = 6;

/// The two tokens of a model that reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    open: u32,
    close: u32,
}

/// Where a continuation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reasoning {
    /// It answers.
    #[default]
    Over,
    /// Nothing was sampled, and the section may begin.
    MayOpen(Section),
    /// It reasons.
    Inside(Section),
}

impl Section {
    /// The section of a model whose vocabulary has tokens for it.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        Some(Self { open: tokenizer.id(OPEN)?, close: tokenizer.id(CLOSE)? })
    }

    /// What a client sees of it.
    pub(crate) fn marks() -> Marks {
        Marks::new(OPEN, CLOSE)
    }
}

impl Reasoning {
    /// Where a turn begins that follows `prompt`.
    pub(crate) fn after(prompt: &[u32], section: Section) -> Self {
        let tail = prompt[prompt.len().saturating_sub(TAIL)..].iter().rev();
        match tail.into_iter().find(|&&id| id == section.open || id == section.close) {
            Some(&id) if id == section.open => Self::Inside(section),
            Some(_) => Self::Over,
            None => Self::MayOpen(section),
        }
    }

    /// Goes on by one token; whether the token belongs to the reasoning.
    pub(crate) fn accept(&mut self, token: u32) -> bool {
        let (next, reasons) = match *self {
            Self::Over => (Self::Over, false),
            Self::MayOpen(section) if token == section.open => (Self::Inside(section), true),
            Self::MayOpen(_) => (Self::Over, false),
            Self::Inside(section) if token == section.close => (Self::Over, true),
            Self::Inside(section) => (Self::Inside(section), true),
        };
        *self = next;
        reasons
    }

    /// Whether it reasons now, so that anything may be said but the end.
    pub(crate) fn is_inside(self) -> bool {
        matches!(self, Self::Inside(_))
    }

    /// The token that may come here whatever the form of the answer is.
    pub(crate) fn opening(self) -> Option<u32> {
        match self {
            Self::MayOpen(section) => Some(section.open),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: Section = Section { open: 100, close: 101 };

    fn check(prompt: &[u32], output: &[u32], reasons: &[bool]) {
        let mut reasoning = Reasoning::after(prompt, SECTION);
        let found: Vec<bool> = output.iter().map(|&token| reasoning.accept(token)).collect();
        assert_eq!(found, reasons, "after {prompt:?}");
    }

    #[test]
    fn a_section_is_opened_by_the_model_or_the_prompt_and_only_at_the_beginning() {
        check(&[1, 2], &[100, 5, 101, 6, 100], &[true, true, true, false, false]);
        check(&[1, 2], &[5, 100, 5, 101], &[false; 4]);
        check(&[1, 100, 3], &[5, 101, 6], &[true, true, false]);
        check(&[1, 100, 3, 101, 3], &[5, 100, 6], &[false; 3]);
        // A mark in a text that the user wrote, farther back, opens nothing.
        check(&[1, 100, 3, 3, 3, 3, 3, 3], &[5, 101], &[false; 2]);
    }
}
