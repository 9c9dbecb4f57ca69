//! A compiled form, and one continuation's way through it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::Matcher;
use toktrie::SimpleVob;

/// A compiled form that no continuation has begun. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Template {
    fresh: Arc<Mutex<Matcher>>,
}

impl Template {
    pub(super) fn new(fresh: Matcher) -> Self {
        Self { fresh: Arc::new(Mutex::new(fresh)) }
    }

    /// The beginning of a continuation. It shares nothing that it could fill up with the others.
    pub(crate) fn guide(&self) -> Guide {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        Guide { matcher: fresh.deep_clone(), mask: None }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").finish_non_exhaustive()
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fresh, &other.fresh)
    }
}

/// Where a continuation stands in its form.
pub(crate) struct Guide {
    matcher: Matcher,
    /// What may come next, once it is computed.
    mask: Option<SimpleVob>,
}

impl Guide {
    /// Finds out which tokens may come next.
    ///
    /// # Errors
    /// When the form is too involved at this place; the message is for the client.
    pub(super) fn look(&mut self) -> Result<(), String> {
        if self.mask.is_none() {
            let mask = self.matcher.compute_mask_or_eos().map_err(|error| plain(&error))?;
            self.mask = Some(mask);
        }
        Ok(())
    }

    /// Bit `id % 32` of word `id / 32` says whether token `id` may come next; there once it was looked for.
    pub(crate) fn allowed(&self) -> Option<&[u32]> {
        self.mask.as_ref().map(SimpleVob::as_slice)
    }

    /// Allows one more token next.
    pub(crate) fn allow(&mut self, token: u32) {
        if let Some(mask) = &mut self.mask {
            mask.allow_token(token);
        }
    }

    /// Goes on by one token; whether the text is complete and nothing can follow.
    pub(crate) fn accept(&mut self, token: u32) -> bool {
        self.mask = None;
        // A token that was allowed can be consumed; if it cannot, the next look says so.
        self.matcher.consume_token(token).is_ok() && self.matcher.is_stopped()
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide").finish_non_exhaustive()
    }
}

/// A message without the library's state, which it adds in further lines; but with the reason that a regular expression
/// is wrong, which comes behind a drawing of it.
pub(super) fn plain(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_end_matches(['.', ':']);
    let reason = text.lines().skip(1).find_map(|line| line.strip_prefix("error: "));
    reason.map_or_else(|| first.to_owned(), |reason| format!("{first}: {reason}"))
}
