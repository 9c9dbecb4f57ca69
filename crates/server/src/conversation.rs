//! Conversations, as clients write them: turns of text and pictures, and what reaches the template beside them.

use protocol::{Content, Message, Part};
use serde_json::{Map, Value};

use crate::failure::Problem;
use crate::fields::{self, Fields};
use crate::parameters;
use crate::pictures::Pictures;
use crate::settings::Limits;

/// Variables for the template.
pub(crate) fn template_options(fields: &mut Fields) -> Result<Map<String, Value>, Problem> {
    let mut options = fields.object("chat_template_kwargs")?.map(Fields::rest).unwrap_or_default();
    if let Some(add) = fields.boolean("add_generation_prompt")? {
        options.insert("add_generation_prompt".to_owned(), Value::Bool(add));
    }
    Ok(options)
}

/// The turns, oldest first; `pictures` takes what they show.
pub(crate) fn messages(
    value: Value,
    pictures: &mut Pictures<'_>,
    most: &Limits,
) -> Result<Vec<Message>, Problem> {
    let turns = fields::list(value, "messages")?;
    parameters::at_most(most.messages, turns.len(), "messages", "turns")?;
    if turns.is_empty() {
        return Err(Problem::invalid("messages", "at least one message is needed."));
    }
    let turns = turns.into_iter().enumerate();
    turns.map(|(index, turn)| message(turn, format!("messages[{index}]"), pictures)).collect()
}

fn message(turn: Value, path: String, pictures: &mut Pictures<'_>) -> Result<Message, Problem> {
    let mut fields = Fields::of(turn, path)?;
    let role = fields.text("role")?.ok_or_else(|| fields.missing("role"))?;
    if !["developer", "system", "user", "assistant", "tool"].contains(&role.as_str()) {
        let told = "expected one of 'developer', 'system', 'user', 'assistant' and 'tool'.";
        return Err(Problem::invalid(fields.path_of("role"), told));
    }
    // The newer name of the same role; templates of the models at hand know the older one only, and leave out what
    // they do not know without a word.
    let role = if role == "developer" { "system".to_owned() } else { role };
    let path = fields.path_of("content");
    let content = fields.take("content").map(|content| content_of(content, &path, pictures)).transpose()?;
    if content.is_none() && role != "assistant" {
        return Err(fields.missing("content"));
    }
    Ok(Message { role, content, extra: fields.rest() })
}

/// Text; or parts, if there is a picture among them. Parts of text alone are joined by line breaks, since templates of
/// text models expect one text.
fn content_of(content: Value, path: &str, pictures: &mut Pictures<'_>) -> Result<Content, Problem> {
    let parts = match content {
        Value::String(text) => return Ok(Content::Text(text)),
        Value::Array(parts) => parts,
        other => return Err(fields::wrong_type(path, "a string or an array of parts", &other)),
    };
    let parts = parts.into_iter().enumerate();
    let parts = parts.map(|(index, part)| Fields::of(part, format!("{path}[{index}]")));
    let parts: Vec<Part> = parts.map(|part| self::part(part?, pictures)).collect::<Result<_, _>>()?;
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part.fields.get(TEXT)?.as_str()).collect();
    Ok(match texts {
        Some(texts) => Content::Text(texts.join("\n")),
        None => Content::Parts(parts),
    })
}

const TEXT: &str = "text";

fn part(mut part: Fields, pictures: &mut Pictures<'_>) -> Result<Part, Problem> {
    let kind = part.text("type")?.ok_or_else(|| part.missing("type"))?;
    match kind.as_str() {
        "text" | "refusal" => {
            let text = part.text(&kind)?.ok_or_else(|| part.missing(&kind))?;
            let fields = Map::from_iter([(TEXT.to_owned(), Value::String(text))]);
            Ok(Part { kind: TEXT.to_owned(), fields })
        }
        "image_url" => {
            pictures.take(&mut part)?;
            // Templates mark the place of a picture; its bytes are none of their business.
            Ok(Part { kind: "image".to_owned(), fields: Map::new() })
        }
        "video" => {
            pictures.take_frames(&mut part)?;
            Ok(Part { kind: "video".to_owned(), fields: Map::new() })
        }
        "video_url" => {
            pictures.take_strip(&mut part)?;
            Ok(Part { kind: "video".to_owned(), fields: Map::new() })
        }
        other => Err(Problem::unsupported(
            part.path_of("type"),
            format!(
                "a part of kind '{other}' cannot be read; send parts of kind 'text', 'image_url', 'video' or 'video_url'."
            ),
        )),
    }
}
