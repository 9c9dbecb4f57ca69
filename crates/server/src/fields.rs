//! A JSON object read field by field, so that every complaint names the field by its path from the top of the body.
//!
//! Deriving a reader would be shorter, but its messages name no path inside lists and alternatives, and cannot tell
//! a wrong type from a wrong value. `null` counts as absent everywhere, because client libraries send it so.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::failure::Problem;

/// What is left to read of one object.
#[derive(Debug)]
pub(crate) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// `path` is the object's own path; empty for the body itself.
    pub(crate) fn of(value: Value, path: impl Into<String>) -> Result<Self, Problem> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            other if path.is_empty() => {
                Err(Problem::InvalidJson { message: format!("it is {}", kind(&other)) })
            }
            other => Err(wrong_type(path, "an object", &other)),
        }
    }

    /// The path of a field of this object.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn required(&mut self, name: &str) -> Result<Value, Problem> {
        self.take(name).ok_or_else(|| self.missing(name))
    }

    pub(crate) fn missing(&self, name: &str) -> Problem {
        Problem::Missing { param: self.path_of(name) }
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        self.read(name, |value, path| match value {
            Value::String(text) => Ok(text),
            other => Err(wrong_type(path, "a string", &other)),
        })
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        self.read(name, |value, path| match value {
            Value::Bool(is) => Ok(is),
            other => Err(wrong_type(path, "a boolean", &other)),
        })
    }

    pub(crate) fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Problem> {
        self.read(name, |value, path| integer(&value, path, &range))
    }

    /// An integer from `least` to the largest that a token count can be.
    pub(crate) fn count(&mut self, name: &str, least: u32) -> Result<Option<u32>, Problem> {
        let found = self.integer(name, i64::from(least)..=i64::from(u32::MAX))?;
        Ok(found.and_then(|count| u32::try_from(count).ok()))
    }

    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, Problem> {
        self.read(name, |value, path| number(&value, path, &range))
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, Problem> {
        self.read(name, Self::of)
    }

    pub(crate) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Problem> {
        self.read(name, list)
    }

    /// What nobody has taken.
    pub(crate) fn rest(self) -> Map<String, Value> {
        self.map
    }

    fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value, String) -> Result<T, Problem>,
    ) -> Result<Option<T>, Problem> {
        self.take(name).map(|value| read(value, self.path_of(name))).transpose()
    }
}

pub(crate) fn wrong_type(param: impl Into<String>, expected: &'static str, found: &Value) -> Problem {
    Problem::InvalidType { param: param.into(), expected, found: kind(found) }
}

pub(crate) fn list(value: Value, path: impl Into<String>) -> Result<Vec<Value>, Problem> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(wrong_type(path, "an array", &other)),
    }
}

pub(crate) fn integer(
    value: &Value,
    path: impl Into<String>,
    range: &RangeInclusive<i64>,
) -> Result<i64, Problem> {
    let Value::Number(number) = value else { return Err(wrong_type(path, "an integer", value)) };
    if number.is_f64() {
        return Err(wrong_type(path, "an integer", value));
    }
    match number.as_i64() {
        Some(found) if range.contains(&found) => Ok(found),
        _ => Err(out_of_range(path, range.start(), range.end(), number)),
    }
}

pub(crate) fn number(
    value: &Value,
    path: impl Into<String>,
    range: &RangeInclusive<f64>,
) -> Result<f32, Problem> {
    let Value::Number(number) = value else { return Err(wrong_type(path, "a number", value)) };
    match number.as_f64() {
        Some(found) if range.contains(&found) => Ok(found as f32),
        _ => Err(out_of_range(path, range.start(), range.end(), number)),
    }
}

fn out_of_range(
    path: impl Into<String>,
    least: &impl std::fmt::Display,
    most: &impl std::fmt::Display,
    found: &serde_json::Number,
) -> Problem {
    Problem::invalid(path, format!("expected a value from {least} to {most}, but got {found} instead."))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaint<T: std::fmt::Debug>(read: impl FnOnce(&mut Fields) -> Result<T, Problem>) -> String {
        let body = json!({"n": null, "text": "x", "half": 0.5, "big": 18_446_744_073_709_551_615_u64, "in": {"a": [1]}});
        let mut fields = Fields::of(body, "").unwrap();
        match read(&mut fields) {
            Ok(value) => format!("{value:?}"),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn every_complaint_names_the_path_and_what_was_found() {
        assert_eq!(complaint(|fields| fields.integer("n", 0..=9)), "None");
        assert_eq!(
            complaint(|fields| fields.integer("text", 0..=9)),
            "Invalid type for 'text': expected an integer, but got a string instead."
        );
        assert_eq!(
            complaint(|fields| fields.integer("half", 0..=9)),
            "Invalid type for 'half': expected an integer, but got a decimal number instead."
        );
        assert_eq!(
            complaint(|fields| fields.count("big", 1)),
            "Invalid 'big': expected a value from 1 to 4294967295, but got 18446744073709551615 instead."
        );
        assert_eq!(complaint(|fields| fields.number("half", 0.0..=1.0)), "Some(0.5)");
        assert_eq!(
            complaint(|fields| fields.object("in").map(|inner| inner.map(|mut inner| inner.text("a")))),
            "Some(Err(InvalidType { param: \"in.a\", expected: \"a string\", found: \"an array\" }))"
        );
        assert_eq!(complaint(|fields| fields.required("n")), "Missing required parameter: 'n'.");
    }
}
