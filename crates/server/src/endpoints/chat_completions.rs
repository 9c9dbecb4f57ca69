//! `POST /v1/chat/completions`: the next turn of a conversation.

mod chunks;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};
use protocol::{Chat, Content, Message, ModelCard, Part, Prompt};
use serde_json::{Map, Value};

use super::{Access, Endpoint};
use crate::app::App;
use crate::body;
use crate::failure::Problem;
use crate::fields::{self, Fields};
use crate::observe::Call;
use crate::parameters::{self, Delivery, MOST_LOGPROBS, Parameters};
use crate::pictures::Pictures;
use crate::reply;
use crate::reuse;
use crate::settings::Limits;
use crate::speech::{Language, Speech};
use crate::sse;
use crate::tools::Tools;
use crate::wire::{Head, Kind};

use chunks::ChatChunks;
use wire::whole;

pub(super) const ENDPOINTS: &[Endpoint] =
    &[Endpoint { path: "/v1/chat/completions", access: Access::Work, route: || post(create) }];

const WHOLE: Kind = Kind { prefix: "chatcmpl-", object: "chat.completion" };
const CHUNK: Kind = Kind { prefix: "chatcmpl-", object: "chat.completion.chunk" };

async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let fields = body::read(request, &app.settings).await?;
    let Asked { parameters: asked, chat, pictures, language } = Asked::read(fields, &app)?;
    let mut request = asked.request(call.id.to_string(), call.tenant(), Prompt::Chat(chat));
    let shown = pictures.taken(&app).await?;
    (request.images, request.clips) = (shown.images, shown.clips);
    let reply = reply::admit(&app, &call, vec![request], "messages").await?;
    let speech = Speech::new(language, reply.begins);
    let reused = reply.reused;
    if asked.delivery == Delivery::Whole {
        let head = Head::new(&app, &reply, &asked, WHOLE);
        let (choices, usage) = reply::collect(reply, asked.choices as usize).await?;
        let turns = choices.into_iter().map(|choice| wire::WholeChoice::new(choice, speech.clone(), &app));
        return Ok(reuse::marked(Json(whole(&head, &asked, turns.collect(), usage)).into_response(), reused));
    }
    let head = Head::new(&app, &reply, &asked, CHUNK);
    let chunks = ChatChunks::new(app.clone(), head, speech, &asked);
    Ok(reuse::marked(sse::respond(reply, chunks, app.settings.timeouts.keep_alive), reused))
}

/// A request, read.
struct Asked<'a> {
    parameters: Parameters,
    chat: Chat,
    /// The pictures of the conversation, in order.
    pictures: Pictures<'a>,
    /// The marks that the answer is to be read by.
    language: Language,
}

impl<'a> Asked<'a> {
    fn read(mut fields: Fields, app: &'a App) -> Result<Self, Problem> {
        let most = &app.settings.limits;
        parameters::refuse_unsupported(&mut fields)?;
        let mut pictures = Pictures::of(app);
        let messages = messages(fields.required("messages")?, &mut pictures, most)?;
        let mut parameters = Parameters::read(&mut fields, most)?;
        parameters.logprobs = logprobs(&mut fields)?;
        let tools = Tools::read(&mut fields)?;
        let card = app.card(parameters.model.as_deref());
        let language = language(&tools, card.as_ref())?;
        let mut template_options = template_options(&mut fields, &language)?;
        template_options.extend(tools.for_template().map(|tools| ("tools".to_owned(), tools)));
        if let Some(marks) = &language.calls {
            parameters.form = tools.form(marks, parameters.form.take())?;
            parameters.limits.stop.extend(tools.stop(marks).map(str::to_owned));
        }
        if fields.boolean("echo")?.unwrap_or(false) {
            return Err(Problem::unsupported(
                "echo",
                "a conversation is not repeated; /v1/completions can echo a prompt.",
            ));
        }
        parameters::note_unknown(fields);
        let chat = Chat { messages, template_options };
        Ok(Self { parameters, chat, pictures, language })
    }
}

/// What the answer is read by. A model that nobody knows is refused later, by its name.
fn language(tools: &Tools, card: Option<&ModelCard>) -> Result<Language, Problem> {
    let Some(card) = card else { return Ok(Language::default()) };
    let calls = card.calls.clone().filter(|_| tools.may_be_called());
    if tools.may_be_called() && calls.is_none() {
        let told = "the model's chat template knows no tools; leave it out or set tool_choice to 'none'.";
        return Err(Problem::unsupported(tools.asked_by(), told));
    }
    Ok(Language { reasoning: card.reasoning.clone(), calls })
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, Problem> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=MOST_LOGPROBS)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.map_or(0, |top| top as u32))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            Err(Problem::invalid("top_logprobs", "it is only allowed when 'logprobs' is true."))
        }
    }
}

fn template_options(fields: &mut Fields, language: &Language) -> Result<Map<String, Value>, Problem> {
    let mut options = fields.object("chat_template_kwargs")?.map(Fields::rest).unwrap_or_default();
    if let Some(add) = fields.boolean("add_generation_prompt")? {
        options.insert("add_generation_prompt".to_owned(), Value::Bool(add));
    }
    // Templates of models that reason ask for it by this name, and know no degrees of it.
    let effort = fields.text("reasoning_effort")?;
    if language.reasoning.is_some() && effort.as_deref() == Some("none") {
        options.entry("enable_thinking").or_insert(Value::Bool(false));
    }
    Ok(options)
}

fn messages(value: Value, pictures: &mut Pictures<'_>, most: &Limits) -> Result<Vec<Message>, Problem> {
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
