//! Incremental decoding that never shows half a character.

/// Incremental decoding of one sequence: every call returns the whole characters that the new token completes.
/// Concatenated pieces plus [`Utf8Stream::finish`] equal [`crate::tokenizer::Tokenizer::decode`] of all ids.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Takes the bytes of the next token and appends what is complete to `text`. Bytes that can never become valid
    /// become U+FFFD at once, as in lossy decoding of the whole.
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(broken) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[broken..];
                }
            }
        }
        let kept = rest.len();
        let done = self.pending.len() - kept;
        self.pending.drain(..done);
    }

    /// Appends U+FFFD for what stays incomplete.
    pub fn finish(&mut self, text: &mut String) {
        if !self.pending.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(bytes: &[u8], cuts: &[usize]) -> String {
        let (mut stream, mut text) = (Utf8Stream::default(), String::new());
        let mut rest = bytes;
        for cut in cuts {
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            stream.push(head, &mut text);
            assert!(stream.pending.len() < 4);
            rest = tail;
        }
        stream.push(rest, &mut text);
        stream.finish(&mut text);
        text
    }

    /// Bytes that are often the beginnings, middles and ends of characters, valid or not.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            any::<u8>(),
            proptest::sample::select(
                &[0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xA9, 0xED, 0xA0, 0xF4][..]
            ),
        ];
        proptest::collection::vec(byte, 0..40)
    }

    proptest! {
        #[test]
        fn equals_lossy_decoding_of_the_whole(bytes in bytes(), cuts in proptest::collection::vec(0usize..5, 0..30)) {
            prop_assert_eq!(pieces(&bytes, &cuts), String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_character_appears_with_its_last_byte() {
        let (mut stream, mut text) = (Utf8Stream::default(), String::new());
        for (byte, shown) in "é€😀".bytes().zip(["", "é", "é", "é", "é€", "é€", "é€", "é€", "é€😀"])
        {
            stream.push(&[byte], &mut text);
            assert_eq!(text, shown);
        }
    }
}
