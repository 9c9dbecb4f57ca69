//! `tojson` as `json.dumps(value, ensure_ascii=False)` of Python writes it: separators `", "` and `": "`, keys in their
//! own order, no escaping for HTML.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// Levels of lists and maps that are followed.
const DEPTH_LIMIT: usize = 128;

/// How a value is laid out.
struct Style {
    /// Text of one level of indentation; without it everything is on one line.
    indent: Option<String>,
    item: String,
    key: String,
    order: KeyOrder,
    characters: Characters,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyOrder {
    Given,
    Sorted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Characters {
    AsTheyAre,
    Ascii,
}

/// The filter, with the keyword arguments that `transformers` gives it: `ensure_ascii`, `indent`, `separators`,
/// `sort_keys`.
pub(super) fn filter(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(none) if none.is_none() => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(count) => Some(" ".repeat(count.as_usize().filter(|count| *count <= 64).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, "indent is a number up to 64 or a text")
        })?)),
    };
    let item = if indent.is_some() { "," } else { ", " };
    let (item, key) = match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
        None => (item.to_owned(), ": ".to_owned()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators are two texts")),
    };
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    options.assert_all_used()?;
    let order = if sorted { KeyOrder::Sorted } else { KeyOrder::Given };
    let characters = if ascii { Characters::Ascii } else { Characters::AsTheyAre };
    let mut out = String::new();
    Style { indent, item, key, order, characters }.write(value, 0, &mut out)?;
    Ok(out)
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEPTH_LIMIT {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: the value is nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)?),
            ValueKind::String => self.quote(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    self.separate(at, depth, out);
                    self.write(item, depth + 1, out)?;
                }
                self.close(']', items.len(), depth, out);
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.order == KeyOrder::Sorted {
                    keys.sort();
                }
                out.push('{');
                for (at, key) in keys.iter().enumerate() {
                    self.separate(at, depth, out);
                    self.quote(&key_text(key)?, out);
                    out.push_str(&self.key);
                    self.write(&value.get_item(key)?, depth + 1, out)?;
                }
                self.close('}', keys.len(), depth, out);
            }
            kind => {
                let reason = format!("tojson: a value of kind {kind} cannot be written as JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, reason));
            }
        }
        Ok(())
    }

    /// What stands before item `at` of a list or map.
    fn separate(&self, at: usize, depth: usize, out: &mut String) {
        if at > 0 {
            out.push_str(&self.item);
        }
        self.new_line(depth + 1, out);
    }

    fn close(&self, bracket: char, items: usize, depth: usize, out: &mut String) {
        if items > 0 {
            self.new_line(depth, out);
        }
        out.push(bracket);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn quote(&self, text: &str, out: &mut String) {
        out.push('"');
        for symbol in text.chars() {
            match symbol {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                control if control < ' ' => escape(control, out),
                other if self.characters == Characters::Ascii && !(' '..='~').contains(&other) => {
                    escape(other, out);
                }
                plain => out.push(plain),
            }
        }
        out.push('"');
    }
}

/// `\uXXXX`, twice for a character outside the basic plane.
fn escape(symbol: char, out: &mut String) {
    for unit in symbol.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}

/// How Python turns a key into text.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => number(key),
        kind => Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: a key of kind {kind}"))),
    }
}

fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() { Ok(value.to_string()) } else { Ok(float(f64::try_from(value.clone())?)) }
}

/// `repr` of a Python float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_are_written_as_python_does() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1.25e-5, "1.25e-05"),
            (-123456.789, "-123456.789"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(float(number), text);
        }
    }
}
