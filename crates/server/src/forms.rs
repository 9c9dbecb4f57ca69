//! The form that an output must have, in the dialects that clients speak: OpenAI's `response_format`, and vLLM's
//! `structured_outputs` with its older spelling `guided_json`, `guided_regex`, `guided_choice` and `guided_grammar`.

use protocol::Form;
use serde_json::Value;

use crate::failure::Problem;
use crate::fields::{self, Fields};

/// What the output must be, if the request says so in any of the dialects.
pub(crate) fn read(fields: &mut Fields) -> Result<Option<Form>, Problem> {
    let asked = [response_format(fields)?, structured_outputs(fields)?, guided(fields)?];
    let mut asked = asked.into_iter().flatten();
    let (form, more) = (asked.next(), asked.next());
    match (form, more) {
        (Some((_, form)), None) => Ok(Some(form)),
        (Some((first, _)), Some((second, _))) => Err(Problem::invalid(
            second,
            format!("'{first}' already says what form the output has; send one of them."),
        )),
        (None, _) => Ok(None),
    }
}

/// A form and the path of the parameter that asks for it.
type Asked = Option<(String, Form)>;

fn response_format(fields: &mut Fields) -> Result<Asked, Problem> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(None) };
    let kind = format.text("type")?.ok_or_else(|| format.missing("type"))?;
    let form = match kind.as_str() {
        "text" => return Ok(None),
        "json_object" => format.take("schema").map_or(Form::JsonObject, Form::JsonSchema),
        "json_schema" => {
            let mut named = format.object("json_schema")?.ok_or_else(|| format.missing("json_schema"))?;
            Form::JsonSchema(named.required("schema")?)
        }
        _ => {
            let told = "expected one of 'text', 'json_object' and 'json_schema'.";
            return Err(Problem::invalid(format.path_of("type"), told));
        }
    };
    Ok(Some(("response_format".to_owned(), form)))
}

fn structured_outputs(fields: &mut Fields) -> Result<Asked, Problem> {
    let Some(mut outputs) = fields.object("structured_outputs")? else { return Ok(None) };
    if outputs.boolean("json_object")?.unwrap_or(false) {
        return Ok(Some((outputs.path_of("json_object"), Form::JsonObject)));
    }
    let asked = one_of(&mut outputs, ["json", "regex", "choice", "grammar"])?;
    let told = "expected one of 'json', 'regex', 'choice', 'grammar' and 'json_object' in it.";
    asked.map(Some).ok_or_else(|| Problem::invalid("structured_outputs", told))
}

fn guided(fields: &mut Fields) -> Result<Asked, Problem> {
    one_of(fields, ["guided_json", "guided_regex", "guided_choice", "guided_grammar"])
}

/// The form under the first of the four names that is there.
fn one_of(fields: &mut Fields, [json, regex, choice, grammar]: [&str; 4]) -> Result<Asked, Problem> {
    if let Some(schema) = fields.take(json) {
        return Ok(Some((fields.path_of(json), Form::JsonSchema(parsed(schema, fields.path_of(json))?))));
    }
    if let Some(pattern) = fields.text(regex)? {
        return Ok(Some((fields.path_of(regex), Form::Regex(pattern))));
    }
    if let Some(texts) = fields.list(choice)? {
        let path = fields.path_of(choice);
        let text = |(index, text): (usize, Value)| match text {
            Value::String(text) => Ok(text),
            other => Err(fields::wrong_type(format!("{path}[{index}]"), "a string", &other)),
        };
        let texts: Result<Vec<String>, Problem> = texts.into_iter().enumerate().map(text).collect();
        return Ok(Some((path.clone(), Form::Choice(texts?))));
    }
    let grammar_text = fields.text(grammar)?;
    Ok(grammar_text.map(|text| (fields.path_of(grammar), Form::Grammar(text))))
}

/// vLLM's clients send a schema as an object or as the text of one.
fn parsed(schema: Value, path: String) -> Result<Value, Problem> {
    match schema {
        Value::String(text) => serde_json::from_str(&text).map_err(|error| {
            Problem::invalid(path, format!("it is not the text of a JSON schema: {error}."))
        }),
        schema => Ok(schema),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value, expected: Result<Option<Form>, &str>) {
        let found = Fields::of(body.clone(), "").and_then(|mut fields| read(&mut fields));
        let found = found.map_err(|problem| problem.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{body}");
    }

    #[test]
    fn every_dialect_asks_for_the_same_forms() {
        let schema = || json!({"type": "integer"});
        check(json!({}), Ok(None));
        check(json!({"response_format": {"type": "text"}}), Ok(None));
        check(json!({"response_format": {"type": "json_object"}}), Ok(Some(Form::JsonObject)));
        let named = json!({"name": "n", "strict": true, "schema": schema()});
        for body in [
            json!({"response_format": {"type": "json_schema", "json_schema": named}}),
            json!({"response_format": {"type": "json_object", "schema": schema()}}),
            json!({"structured_outputs": {"json": schema()}}),
            json!({"guided_json": schema()}),
            json!({"guided_json": schema().to_string()}),
        ] {
            check(body, Ok(Some(Form::JsonSchema(schema()))));
        }
        check(json!({"structured_outputs": {"json_object": true}}), Ok(Some(Form::JsonObject)));
        check(json!({"structured_outputs": {"regex": "a+"}}), Ok(Some(Form::Regex("a+".to_owned()))));
        check(json!({"guided_choice": ["a"]}), Ok(Some(Form::Choice(vec!["a".to_owned()]))));
        check(json!({"guided_grammar": "start: A"}), Ok(Some(Form::Grammar("start: A".to_owned()))));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        check(
            json!({"response_format": {"type": "xml"}}),
            Err("Invalid 'response_format.type': expected one of 'text', 'json_object' and 'json_schema'."),
        );
        check(
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}),
            Err("Missing required parameter: 'response_format.json_schema.schema'."),
        );
        check(
            json!({"response_format": {"type": "json_object"}, "guided_regex": "a"}),
            Err(
                "Invalid 'guided_regex': 'response_format' already says what form the output has; send one of them.",
            ),
        );
        check(
            json!({"structured_outputs": {}}),
            Err(
                "Invalid 'structured_outputs': expected one of 'json', 'regex', 'choice', 'grammar' and 'json_object' in it.",
            ),
        );
        check(
            json!({"guided_choice": ["a", 1]}),
            Err("Invalid type for 'guided_choice[1]': expected a string, but got an integer instead."),
        );
    }
}
