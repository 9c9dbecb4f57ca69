//! The tools that a request offers to the model, and what it says about calling them.
//!
//! A call that the request demands is demanded of the model as a form of its output, so that it comes out well-formed
//! and with arguments that the tool's schema accepts. A call that the model is free to make is read as it comes.

use protocol::form::on_one_line;
use protocol::{Form, Marks};
use serde_json::{Value, json};

use crate::failure::Problem;
use crate::fields::{self, Fields};

/// What a request says about tools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tools {
    /// As the client sent them, for the model's template.
    offered: Vec<Value>,
    functions: Vec<Function>,
    choice: Choice,
    calls: Calls,
}

#[derive(Clone, Debug)]
struct Function {
    name: String,
    /// A JSON schema that says how the arguments are spaced.
    parameters: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Choice {
    #[default]
    None,
    Auto,
    Required,
    Named(String),
}

/// How many calls one answer may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Calls {
    One,
    #[default]
    Several,
}

impl Tools {
    /// Takes `tools`, `tool_choice` and `parallel_tool_calls`.
    pub(crate) fn read(fields: &mut Fields) -> Result<Self, Problem> {
        let offered = fields.list("tools")?.unwrap_or_default();
        let function = |(index, tool): (usize, &Value)| function(tool.clone(), format!("tools[{index}]"));
        let functions: Result<Vec<Function>, Problem> = offered.iter().enumerate().map(function).collect();
        let functions = functions?;
        let choice = match fields.take("tool_choice") {
            None if functions.is_empty() => Choice::None,
            None => Choice::Auto,
            Some(choice) => read_choice(choice, &functions)?,
        };
        let several = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        let calls = if several { Calls::Several } else { Calls::One };
        Ok(Self { offered, functions, choice, calls })
    }

    /// Whether the model may call any.
    pub(crate) fn may_be_called(&self) -> bool {
        self.choice != Choice::None
    }

    /// The parameter that asks for more than a model without tools can do.
    pub(crate) fn asked_by(&self) -> &'static str {
        if self.choice == Choice::Auto { "tools" } else { "tool_choice" }
    }

    /// What the model's template tells it of. Tools that must not be called are not mentioned.
    pub(crate) fn for_template(&self) -> Option<Value> {
        self.may_be_called().then(|| Value::Array(self.offered.clone()))
    }

    /// The text at which an answer that may make one call only is over.
    pub(crate) fn stop<'a>(&self, marks: &'a Marks) -> Option<&'a str> {
        (self.choice == Choice::Auto && self.calls == Calls::One).then_some(&*marks.close)
    }

    /// What the output must be: the calls that are demanded; or, where calls are free and the answer has a form, one or
    /// the other.
    pub(crate) fn form(&self, marks: &Marks, answer: Option<Form>) -> Result<Option<Form>, Problem> {
        let callable: Vec<&Function> = match &self.choice {
            Choice::None => return Ok(answer),
            Choice::Auto | Choice::Required => self.functions.iter().collect(),
            Choice::Named(name) => self.functions.iter().filter(|function| function.name == *name).collect(),
        };
        let spaced = |schema| {
            let told = |_| Problem::invalid("response_format", "expected a schema, which is an object.");
            on_one_line(schema).map_err(told)
        };
        let answer = match (&self.choice, answer) {
            (Choice::Auto, None) => return Ok(None),
            (Choice::Auto, Some(Form::JsonObject)) => Some(spaced(json!({"type": "object"}))?),
            (Choice::Auto, Some(Form::JsonSchema(schema))) => Some(spaced(schema)?),
            (_, None) => None,
            (_, Some(_)) => {
                let told = "this form of the output leaves no room for the calls; leave one of them out.";
                return Err(Problem::invalid(self.asked_by(), told));
            }
        };
        Ok(Some(Form::Grammar(grammar(&callable, marks, self.calls, answer))))
    }
}

/// The grammar of calls, and of an answer that may come instead.
fn grammar(callable: &[&Function], marks: &Marks, calls: Calls, answer: Option<Value>) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let calls = if calls == Calls::One { "call" } else { "call (\"\\n\" call)*" };
    let start = if answer.is_some() { format!("{calls} | answer") } else { calls.to_owned() };
    let bodies: Vec<String> = (0..callable.len()).map(|index| format!("call{index}")).collect();
    let (open, close) = (quoted(&format!("{}\n", marks.open)), quoted(&format!("\n{}", marks.close)));
    let mut lines = vec![format!("start: {start}"), format!("call: {open} ({}) {close}", bodies.join(" | "))];
    for (index, Function { name, parameters }) in callable.iter().enumerate() {
        let head = format!("{{\"name\": {}, \"arguments\": ", quoted(name));
        lines.push(format!("call{index}: {} arguments{index} \"}}\"", quoted(&head)));
        lines.push(format!("arguments{index}: %json {parameters}"));
    }
    lines.extend(answer.map(|schema| format!("answer: %json {schema}")));
    lines.join("\n")
}

fn function(tool: Value, path: String) -> Result<Function, Problem> {
    let mut tool = Fields::of(tool, path)?;
    let kind = tool.text("type")?.ok_or_else(|| tool.missing("type"))?;
    if kind != "function" {
        return Err(Problem::unsupported(
            tool.path_of("type"),
            "only tools of type 'function' can be called.",
        ));
    }
    let mut function = tool.object("function")?.ok_or_else(|| tool.missing("function"))?;
    let name = function.text("name")?.ok_or_else(|| function.missing("name"))?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
        let told = "expected letters, digits, underscores, dashes and dots.";
        return Err(Problem::invalid(function.path_of("name"), told));
    }
    let parameters = match function.take("parameters") {
        None => json!({"type": "object", "properties": {}, "additionalProperties": false}),
        Some(parameters) => parameters,
    };
    let parameters = on_one_line(parameters)
        .map_err(|other| fields::wrong_type(function.path_of("parameters"), "an object", &other))?;
    Ok(Function { name, parameters })
}

fn read_choice(choice: Value, functions: &[Function]) -> Result<Choice, Problem> {
    let some = || match functions {
        [] => Err(Problem::invalid("tool_choice", "it needs 'tools' to choose from.")),
        _ => Ok(()),
    };
    match choice {
        Value::String(choice) => match choice.as_str() {
            "none" => Ok(Choice::None),
            // Without tools, the choice among them says nothing.
            "auto" if functions.is_empty() => Ok(Choice::None),
            "auto" => Ok(Choice::Auto),
            "required" => some().map(|()| Choice::Required),
            _ => {
                let told = "expected 'none', 'auto', 'required' or an object that names a function.";
                Err(Problem::invalid("tool_choice", told))
            }
        },
        choice => {
            some()?;
            let mut choice = Fields::of(choice, "tool_choice")?;
            let mut function = choice.object("function")?.ok_or_else(|| choice.missing("function"))?;
            let name = function.text("name")?.ok_or_else(|| function.missing("name"))?;
            if functions.iter().any(|function| function.name == name) {
                return Ok(Choice::Named(name));
            }
            let names: Vec<&str> = functions.iter().map(|function| &*function.name).collect();
            let told = format!("there is no tool '{name}'; 'tools' holds {}.", names.join(", "));
            Err(Problem::invalid("tool_choice.function.name", told))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(body: Value) -> Result<Tools, String> {
        let mut fields = Fields::of(body, "").unwrap();
        Tools::read(&mut fields).map_err(|problem| problem.to_string())
    }

    fn weather() -> Value {
        json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}})
    }

    fn form(body: Value, answer: Option<Form>) -> Result<Option<Form>, String> {
        let marks = Marks::new("<call>", "</call>");
        tools(body).unwrap().form(&marks, answer).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_demanded_call_becomes_a_grammar() {
        let spacing =
            r#""x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": "}"#;
        let call = [
            r#"call: "<call>\n" (call0) "\n</call>""#,
            r#"call0: "{\"name\": \"weather\", \"arguments\": " arguments0 "}""#,
            &format!(r#"arguments0: %json {{"type":"object",{spacing}}}"#),
        ]
        .join("\n");
        let required = json!({"tools": [weather()], "tool_choice": "required", "parallel_tool_calls": false});
        assert_eq!(form(required, None), Ok(Some(Form::Grammar(format!("start: call\n{call}")))));
        let named = json!({"tools": [weather()], "tool_choice": {"type": "function", "function": {"name": "weather"}}});
        let several = format!("start: call (\"\\n\" call)*\n{call}");
        assert_eq!(form(named.clone(), None), Ok(Some(Form::Grammar(several.clone()))));
        assert!(form(named, Some(Form::JsonObject)).unwrap_err().contains("leaves no room for the calls"));

        let auto = || json!({"tools": [weather()]});
        assert_eq!(form(auto(), None), Ok(None));
        let either = several.replacen('\n', " | answer\n", 1)
            + &format!("\nanswer: %json {{\"type\":\"object\",{spacing}}}");
        assert_eq!(form(auto(), Some(Form::JsonObject)), Ok(Some(Form::Grammar(either))));
        let none = json!({"tools": [weather()], "tool_choice": "none"});
        assert_eq!(form(none, Some(Form::JsonObject)), Ok(Some(Form::JsonObject)));
        let refused = form(auto(), Some(Form::JsonSchema(json!("text")))).unwrap_err();
        assert!(refused.contains("expected a schema"), "{refused}");
    }

    #[test]
    fn wrong_tools_are_named() {
        let complaint = |body| tools(body).unwrap_err();
        let cases = [
            (json!({"tool_choice": "required"}), "Invalid 'tool_choice': it needs 'tools' to choose from."),
            (json!({"tools": [{"type": "function"}]}), "Missing required parameter: 'tools[0].function'."),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}),
                "Invalid 'tools[0].function.name': expected letters, digits, underscores, dashes and dots.",
            ),
            (
                json!({"tools": [weather()], "tool_choice": {"function": {"name": "other"}}}),
                "Invalid 'tool_choice.function.name': there is no tool 'other'; 'tools' holds weather.",
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(complaint(body), expected);
        }
        assert!(!tools(json!({"tool_choice": "auto"})).unwrap().may_be_called());
    }
}
