//! The alphabet of byte-level tokenizers: GPT-2 writes every byte as one printable character.

/// The byte that a character of the alphabet stands for.
///
/// Printable bytes stand for themselves (as Latin-1); the others, in ascending order, for U+0100 and following.
fn byte(symbol: char) -> Option<u8> {
    let code = u32::from(symbol);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Appends the bytes of a token; a token with a character outside the alphabet (an added token) stands for itself.
pub(super) fn append_bytes(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for symbol in token.chars() {
        match byte(symbol) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn alphabet_covers_every_byte_once() {
        let symbols: Vec<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(symbols.len(), 256);
        let bytes: HashSet<u8> = symbols.iter().map(|symbol| byte(*symbol).unwrap()).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(
            (byte('Ġ'), byte('Ċ'), byte('a'), byte('Ń')),
            (Some(b' '), Some(b'\n'), Some(b'a'), Some(0xAD))
        );
    }

    #[test]
    fn tokens_outside_the_alphabet_stand_for_themselves() {
        let bytes = |token| {
            let mut bytes = vec![1];
            append_bytes(token, &mut bytes);
            bytes
        };
        assert_eq!(bytes("Ġhi"), b"\x01 hi");
        assert_eq!(bytes("<a b>"), b"\x01<a b>");
        assert_eq!(bytes("é"), [1, 0xE9]);
    }
}
