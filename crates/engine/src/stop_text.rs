//! Ending a text at the first stop text, though both arrive in pieces.

/// What became of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No stop text so far.
    Continue,
    /// A stop text is complete; the text ends before it.
    Stop,
}

/// Passes text on until the first stop text, which it swallows, and holds back only what may still become one.
///
/// The first stop text is the one that is complete first (and of several complete at once the longest), so the result
/// does not depend on how the text was cut into pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopText {
    stops: Vec<String>,
    held: String,
}

impl StopText {
    /// A matcher for `stops`, none of which is empty.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes the next piece and appends to `out` what is certainly not part of a stop text.
    pub(crate) fn push(&mut self, piece: &str, out: &mut String) -> Verdict {
        if self.stops.is_empty() {
            out.push_str(piece);
            return Verdict::Continue;
        }
        self.held.push_str(piece);
        if let Some(start) = self.first_stop() {
            out.push_str(&self.held[..start]);
            self.held.clear();
            return Verdict::Stop;
        }
        let settled = self.held.len() - self.undecided();
        out.push_str(&self.held[..settled]);
        self.held.drain(..settled);
        Verdict::Continue
    }

    /// Appends what was held back, when nothing follows.
    pub(crate) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Where the stop text that is complete first begins.
    fn first_stop(&self) -> Option<usize> {
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop).map(|start| (start + stop.len(), start)));
        found.min().map(|(_, start)| start)
    }

    /// Length of the longest tail of the held text that begins a stop text.
    fn undecided(&self) -> usize {
        self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0)
    }
}

/// Length of the longest proper beginning of `stop` that ends `text`.
fn overlap(text: &str, stop: &str) -> usize {
    let beginnings = stop.char_indices().rev().map(|(end, _)| end).filter(|&end| end <= text.len());
    beginnings.into_iter().find(|&end| text.ends_with(&stop[..end])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(stops: &[String], pieces: &[&str]) -> (String, Verdict) {
        let mut matcher = StopText::new(stops.to_vec());
        let mut out = String::new();
        for piece in pieces {
            if matcher.push(piece, &mut out) == Verdict::Stop {
                return (out, Verdict::Stop);
            }
        }
        matcher.finish(&mut out);
        (out, Verdict::Continue)
    }

    /// The definition: at the earliest end of any stop text, cut before the longest one that ends there.
    fn by_definition(stops: &[String], text: &str) -> (String, Verdict) {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        let longest =
            |end: usize| stops.iter().filter(|s| text[..end].ends_with(s.as_str())).map(String::len).max();
        let mut found = ends.filter_map(|end| longest(end).map(|length| end - length));
        found
            .next()
            .map_or((text.to_owned(), Verdict::Continue), |start| (text[..start].to_owned(), Verdict::Stop))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn emitted_text_is_the_full_text_cut_at_the_first_stop(
            stops in prop::collection::vec("[abé🙂]{1,4}", 0..4),
            pieces in prop::collection::vec("[abé🙂]{0,5}", 0..8),
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(cut(&stops, &pieces), by_definition(&stops, &pieces.concat()));
        }
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut matcher = StopText::new(vec!["\n\nUser:".to_owned()]);
        let mut push = |piece: &str| {
            let mut out = String::new();
            matcher.push(piece, &mut out);
            out
        };
        assert_eq!(push("Hello\n"), "Hello");
        assert_eq!(push("\nUs"), "");
        assert_eq!(push("e it"), "\n\nUse it");
    }
}
