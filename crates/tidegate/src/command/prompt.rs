//! Where the prompt comes from: the argument, a pipe, or a person at a terminal.

use std::io::Read;

use super::exit::Misuse;

/// What there is to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// One prompt.
    Prompt(String),
    /// A person who will type.
    Chat,
}

/// What standard input is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stdin {
    Terminal,
    Pipe,
}

/// Chooses the source. The argument `-` means standard input, whatever that is.
pub(super) fn source(argument: Option<&str>, stdin: Stdin, input: impl Read) -> anyhow::Result<Source> {
    let text = match (argument, stdin) {
        (None, Stdin::Terminal) => return Ok(Source::Chat),
        (None | Some("-"), _) => read(input)?,
        (Some(text), _) => text.to_owned(),
    };
    if text.is_empty() {
        let advice = "the prompt is empty; give one as an argument or on standard input: tidegate run \"Once upon a tide\"";
        return Err(Misuse(advice.to_owned()).into());
    }
    Ok(Source::Prompt(text))
}

fn read(mut input: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        Misuse(format!(
            "standard input is not UTF-8 text: byte {} is wrong",
            error.utf8_error().valid_up_to()
        ))
    })?;
    // `echo` ends its text with a line break that is not meant to be part of it.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let check = |argument: Option<&str>, stdin: Stdin, input: &[u8], expected: Result<Source, &str>| {
            let found = source(argument, stdin, input).map_err(|error| error.to_string());
            match (found, expected) {
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned)),
            }
        };
        let prompt = |text: &str| Ok(Source::Prompt(text.to_owned()));
        check(None, Stdin::Terminal, b"", Ok(Source::Chat));
        check(Some("hi"), Stdin::Terminal, b"", prompt("hi"));
        check(Some("hi"), Stdin::Pipe, b"ignored", prompt("hi"));
        check(None, Stdin::Pipe, b"hi\n", prompt("hi"));
        check(None, Stdin::Pipe, b"hi\r\n", prompt("hi"));
        check(None, Stdin::Pipe, b"hi\n\n", prompt("hi\n"));
        check(Some("-"), Stdin::Terminal, "näh".as_bytes(), prompt("näh"));
        check(None, Stdin::Pipe, b"\n", Err("the prompt is empty"));
        check(Some(""), Stdin::Terminal, b"", Err("the prompt is empty"));
        check(None, Stdin::Pipe, b"ab\xff", Err("byte 2 is wrong"));
    }
}
