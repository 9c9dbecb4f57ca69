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
use protocol::{Chat, ModelCard, Prompt};
use serde_json::{Map, Value};

use super::{Access, Endpoint};
use crate::app::App;
use crate::body;
use crate::conversation;
use crate::failure::Problem;
use crate::fields::Fields;
use crate::observe::Call;
use crate::parameters::{self, Delivery, MOST_LOGPROBS, Parameters};
use crate::pictures::Pictures;
use crate::reply;
use crate::reuse;
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
        let messages = conversation::messages(fields.required("messages")?, &mut pictures, most)?;
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
    let mut options = conversation::template_options(fields)?;
    // Templates of models that reason ask for it by this name, and know no degrees of it.
    let effort = fields.text("reasoning_effort")?;
    if language.reasoning.is_some() && effort.as_deref() == Some("none") {
        options.entry("enable_thinking").or_insert(Value::Bool(false));
    }
    Ok(options)
}
