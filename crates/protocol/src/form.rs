//! The form that an output must have, and the marks by which parts of an output are told apart.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A language that every choice of a request is kept to: only tokens that can still lead to a text of it are sampled.
///
/// A choice that ends with [`crate::FinishReason::Stop`] is of the form; one that ends with
/// [`crate::FinishReason::Length`] was cut off on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A JSON object, whatever its fields.
    JsonObject,
    /// JSON that a [JSON Schema](https://json-schema.org/draft/2020-12) accepts. A schema with keywords that cannot be
    /// enforced is refused, unless it says `"x-guidance": {"lenient": true}`.
    JsonSchema(Value),
    /// Text that a regular expression matches from its beginning to its end (no look-around, no back-references).
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of a grammar, written in
    /// [llguidance's variant of Lark](https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).
    Grammar(String),
}

impl Form {
    /// What the form is called in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JsonObject => "JSON object",
            Self::JsonSchema(_) => "JSON schema",
            Self::Regex(_) => "regular expression",
            Self::Choice(_) => "choice",
            Self::Grammar(_) => "grammar",
        }
    }
}

/// A JSON schema that says how its JSON is spaced, unless it says so already: on one line, as models were taught to write
/// it. Free spacing would let a weak model write spaces until its tokens are used up.
///
/// # Errors
/// Gives back what is no schema that anything is of: neither an object nor `true`.
pub fn on_one_line(schema: Value) -> Result<Value, Value> {
    let mut fields = match schema {
        Value::Object(fields) => fields,
        Value::Bool(true) => Map::new(),
        other => return Err(other),
    };
    let spacing = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    fields.entry("x-guidance").or_insert(spacing);
    Ok(Value::Object(fields))
}

/// Two texts between which a model writes something that is not its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Begins it.
    pub open: String,
    /// Ends it.
    pub close: String,
}

impl Marks {
    /// Two marks.
    pub fn new(open: impl Into<String>, close: impl Into<String>) -> Self {
        Self { open: open.into(), close: close.into() }
    }
}
