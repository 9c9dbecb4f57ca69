//! One call of a tool: `{"name": "…", "arguments": {…}}`, read while it is written.

use serde_json::Value;

use super::Said;

/// How far a call has been read.
#[derive(Clone, Debug, Default)]
pub(super) enum Call {
    /// Name and arguments are still to come.
    #[default]
    Head,
    /// The arguments are coming; they are an object.
    Arguments(Depth),
    /// The arguments are over, the closing mark is still to come.
    Tail,
}

/// What has come of the text so far.
pub(super) enum Progress {
    /// It goes on.
    More,
    /// The closing mark was read.
    Over,
    /// The closing mark was read, and what stands before it is no call.
    NoCall(String),
}

impl Call {
    /// Takes from `held` what it can make sense of.
    pub(super) fn read(&mut self, held: &mut String, close: &str, said: &mut Vec<Said>) -> Progress {
        if let Self::Head = self
            && let Some((name, rest)) = head(held)
        {
            *held = rest.to_owned();
            said.push(Said::Call { name });
            *self = Self::Arguments(Depth::default());
        }
        if let Self::Arguments(depth) = self {
            let (taken, over) = depth.walk(held);
            if taken > 0 {
                said.push(Said::Arguments(held.drain(..taken).collect()));
            }
            if over {
                *self = Self::Tail;
            }
        }
        let Some(at) = held.find(close).filter(|_| !matches!(self, Self::Arguments(_))) else {
            return Progress::More;
        };
        let body: String = held.drain(..at + close.len()).take(at).collect();
        match self {
            Self::Head => whole(&body, said).map_or(Progress::NoCall(body), |()| Progress::Over),
            Self::Arguments(_) | Self::Tail => Progress::Over,
        }
    }

    /// The text ended before the closing mark. Gives back what was no call.
    pub(super) fn finish(self, held: &str, said: &mut Vec<Said>) -> Option<String> {
        match self {
            Self::Head if whole(held, said).is_none() => Some(held.to_owned()),
            _ => None,
        }
    }
}

/// Splits `{"name": "…", "arguments": {` before its last brace. A call written in another way is read once it is whole.
fn head(text: &str) -> Option<(String, &str)> {
    let after = |text: &'_ str, token: &str| text.trim_start().strip_prefix(token).map(str::len);
    let skip = |at: usize, token: &str| after(&text[at..], token).map(|rest| text.len() - rest);
    let at = skip(skip(skip(0, "{")?, "\"name\"")?, ":")?;
    let mut names = serde_json::Deserializer::from_str(&text[at..]).into_iter::<String>();
    let name = names.next()?.ok()?;
    let at = skip(skip(skip(at + names.byte_offset(), ",")?, "\"arguments\"")?, ":")?;
    let rest = text[at..].trim_start();
    rest.starts_with('{').then_some((name, rest))
}

/// Reads a call that is complete, in any order and spacing. Models of other families call the arguments `parameters`.
fn whole(text: &str, said: &mut Vec<Said>) -> Option<()> {
    let call: Value = serde_json::from_str(text.trim()).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = match call.get("arguments").or_else(|| call.get("parameters")) {
        None => "{}".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(arguments) => arguments.to_string(),
    };
    said.extend([Said::Call { name }, Said::Arguments(arguments)]);
    Some(())
}

/// How deep in an object the last character was.
#[derive(Clone, Debug, Default)]
pub(super) struct Depth {
    open: usize,
    text: Text,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// The next character is escaped.
    Escaped,
}

impl Depth {
    /// How many bytes of `text` belong to the object, and whether it ends with them.
    fn walk(&mut self, text: &str) -> (usize, bool) {
        for (at, byte) in text.bytes().enumerate() {
            match (self.text, byte) {
                (Text::Escaped, _) => self.text = Text::Inside,
                (Text::Inside, b'\\') => self.text = Text::Escaped,
                (Text::Inside, b'"') => self.text = Text::Outside,
                (Text::Inside, _) => {}
                (Text::Outside, b'"') => self.text = Text::Inside,
                (Text::Outside, b'{' | b'[') => self.open += 1,
                (Text::Outside, b'}' | b']') => self.open = self.open.saturating_sub(1),
                (Text::Outside, _) => {}
            }
            if self.open == 0 {
                return (at + 1, true);
            }
        }
        (text.len(), false)
    }
}
