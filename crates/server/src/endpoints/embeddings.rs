//! `POST /v1/embeddings`: vectors of texts, and of conversations with pictures as vLLM spells it: `messages` in place of
//! `input`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Extension, Json};
use protocol::{Chat, EmbedInput, EmbedRequest, Embedding, Embeddings, Purpose, RequestId, Shown};
use serde::Serialize;
use serde_json::Value;

use super::{Access, Endpoint};
use crate::app::App;
use crate::body;
use crate::conversation;
use crate::failure::Problem;
use crate::fields::{self, Fields};
use crate::observe::Call;
use crate::parameters::{self, at_most, token_ids};
use crate::pictures::Pictures;
use crate::reading::{Asked, TokensRead, answer, note};
use crate::settings::Limits;

pub(super) const ENDPOINTS: &[Endpoint] =
    &[Endpoint { path: "/v1/embeddings", access: Access::Work, route: || post(create) }];

async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Json<List>, Problem> {
    let mut fields = body::read(request, &app.settings).await?;
    let format = format(&mut fields)?;
    let wanted = wanted(&mut fields, &app)?;
    let mut request = asked(fields, &call)?;
    let param = match wanted {
        Wanted::Texts(inputs) => {
            request.inputs = inputs;
            "input"
        }
        Wanted::Chat(chat, pictures) => {
            alone(&request.purpose)?;
            let shown = pictures.taken(&app).await?;
            let shown = Shown { chat, images: shown.images, clips: shown.clips };
            request.inputs = vec![EmbedInput::Chat(Box::new(shown))];
            "messages"
        }
    };
    call.charge(&request)?;
    let embeddings = answer(&app, app.inference.embed(request), param).await?;
    let list = List::new(embeddings, &call, format);
    Ok(Json(list))
}

/// How the numbers of a vector are written.
#[derive(Clone, Copy)]
enum Format {
    /// As numbers.
    Float,
    /// As the base64 of little-endian `f32`.
    Base64,
}

fn format(fields: &mut Fields) -> Result<Format, Problem> {
    match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => Ok(Format::Float),
        Some("base64") => Ok(Format::Base64),
        Some(_) => Err(Problem::invalid("encoding_format", "expected 'float' or 'base64'.")),
    }
}

/// What vectors are wanted of.
enum Wanted<'a> {
    Texts(Vec<EmbedInput>),
    /// One vector of all that is said and shown.
    Chat(Chat, Pictures<'a>),
}

fn wanted<'a>(fields: &mut Fields, app: &'a App) -> Result<Wanted<'a>, Problem> {
    let most = &app.settings.limits;
    let Some(turns) = fields.take("messages") else {
        return Ok(Wanted::Texts(inputs(fields.required("input")?, most)?));
    };
    if fields.take("input").is_some() {
        return Err(Problem::invalid("messages", "send either 'input' or 'messages', not both."));
    }
    parameters::refuse_unsupported(fields)?;
    let mut pictures = Pictures::of(app);
    let messages = conversation::messages(turns, &mut pictures, most)?;
    let template_options = conversation::template_options(fields)?;
    Ok(Wanted::Chat(Chat { messages, template_options }, pictures))
}

/// A conversation says itself what it is for.
fn alone(purpose: &Purpose) -> Result<(), Problem> {
    match purpose {
        Purpose::Unsaid => Ok(()),
        Purpose::Named(_) => Err(Problem::invalid("prompt_name", SAID_IN_TURNS)),
        _ => Err(Problem::invalid("input_type", SAID_IN_TURNS)),
    }
}

const SAID_IN_TURNS: &str = "it goes with 'input'; in 'messages', say it in a turn of the system.";

fn asked(mut fields: Fields, call: &Call) -> Result<EmbedRequest, Problem> {
    let asked = Asked::read(&mut fields)?;
    let request = EmbedRequest {
        id: RequestId(call.id.to_string()),
        model: asked.model,
        inputs: Vec::new(),
        purpose: purpose(&mut fields)?,
        dimensions: fields.count("dimensions", 1)?,
        overlong: asked.overlong,
        tenant: call.tenant(),
        priority: asked.urgency.priority,
        deadline: asked.deadline,
    };
    parameters::note_unknown(fields);
    Ok(request)
}

/// `prompt_name` names one of the model's prompts; `input_type` says what the texts are for, as several servers spell it.
fn purpose(fields: &mut Fields) -> Result<Purpose, Problem> {
    if let Some(name) = fields.text("prompt_name")? {
        return Ok(Purpose::Named(name));
    }
    match fields.text("input_type")?.as_deref() {
        None => Ok(Purpose::Unsaid),
        Some("query" | "search_query") => Ok(Purpose::Query),
        Some("document" | "passage" | "search_document") => Ok(Purpose::Document),
        Some(_) => Err(Problem::invalid("input_type", "expected 'query' or 'document'.")),
    }
}

fn inputs(value: Value, most: &Limits) -> Result<Vec<EmbedInput>, Problem> {
    let items = match value {
        Value::String(text) => return Ok(vec![EmbedInput::Text(text)]),
        Value::Array(items) => items,
        other => return Err(fields::wrong_type("input", "a string or an array", &other)),
    };
    if matches!(items.first(), Some(Value::Number(_))) {
        return Ok(vec![EmbedInput::Tokens(token_ids(&items, "input")?)]);
    }
    if items.is_empty() {
        return Err(Problem::invalid("input", "at least one text is needed."));
    }
    at_most(most.inputs, items.len(), "input", "texts")?;
    items.into_iter().enumerate().map(|(index, item)| input(item, &format!("input[{index}]"))).collect()
}

fn input(item: Value, path: &str) -> Result<EmbedInput, Problem> {
    match item {
        Value::String(text) => Ok(EmbedInput::Text(text)),
        Value::Array(ids) => Ok(EmbedInput::Tokens(token_ids(&ids, path)?)),
        other => Err(fields::wrong_type(path, "a string or an array of token ids", &other)),
    }
}

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Told>,
    model: String,
    usage: TokensRead,
}

#[derive(Serialize)]
struct Told {
    object: &'static str,
    index: usize,
    embedding: Vector,
    /// Only where the end of the text was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

impl List {
    fn new(embeddings: Embeddings, call: &Call, format: Format) -> Self {
        let Embeddings { model, vectors, timing } = embeddings;
        let tokens = vectors.iter().map(|vector| vector.tokens).sum();
        note(call, &model, (tokens, timing));
        let told = |(index, Embedding { values, is_truncated, .. })| Told {
            object: "embedding",
            index,
            embedding: match format {
                Format::Float => Vector::Numbers(values),
                Format::Base64 => Vector::Base64(base64(&values)),
            },
            truncated: is_truncated.then_some(true),
        };
        let data = vectors.into_iter().enumerate().map(told).collect();
        Self { object: "list", data, model, usage: TokensRead::new(tokens) }
    }
}

/// The base64 (RFC 4648) of the little-endian bytes.
fn base64(values: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word =
            three.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let symbol = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place > three.len() { '=' } else { char::from(symbol) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use protocol::scripted::{Script, Scripted};
    use protocol::{Failure, ModelCard, Refusal, Task};

    use super::*;
    use crate::testing::{Bench, check, check_refusals};

    fn bench() -> Bench {
        Bench::over(Scripted::new())
    }

    #[tokio::test]
    async fn one_text_several_texts_and_token_ids() {
        check(
            "embeddings/one",
            &bench(),
            r#"POST /v1/embeddings

{"input": "ab ba", "model": "scripted", "dimensions": 3, "user": "x"}"#,
        )
        .await;
        check(
            "embeddings/several",
            &bench(),
            r#"POST /v1/embeddings

{"input": ["a", "", "b"], "dimensions": 2, "encoding_format": "base64"}"#,
        )
        .await;
        check(
            "embeddings/ids",
            &bench(),
            r#"POST /v1/embeddings

{"input": [[1, 2], [3]], "dimensions": 4, "input_type": "query", "encoding_format": "float"}"#,
        )
        .await;
    }

    #[tokio::test]
    async fn what_was_asked_for_arrives() {
        let bench = bench();
        bench
            .json("POST /v1/embeddings\n\n{\"input\": [7, 8], \"prompt_name\": \"query\", \"truncate\": false, \"service_tier\": \"flex\", \"timeout\": 2}")
            .await;
        let [request] = bench.scripted.ledger().embeds.try_into().unwrap();
        assert_eq!(request.inputs, [EmbedInput::Tokens(vec![7, 8])]);
        assert_eq!(request.purpose, Purpose::Named("query".to_owned()));
        assert_eq!(request.overlong, protocol::Overlong::Refuse);
        assert_eq!(request.priority, protocol::Priority::Low);
        assert_eq!(request.deadline, Some(std::time::Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn wrong_requests_are_told_what_is_wrong() {
        let card = ModelCard {
            tasks: vec![Task::Generate],
            ..protocol::Inference::models(&Scripted::new()).swap_remove(0)
        };
        let able = ModelCard { id: "able".to_owned(), tasks: vec![Task::Embed], ..card.clone() };
        let bench = Bench::over(Scripted::with_models(vec![card, able]));
        let bodies = [
            r#"{}"#,
            r#"{"input": 5}"#,
            r#"{"input": []}"#,
            r#"{"input": ["a", 5]}"#,
            r#"{"input": [1, "a"]}"#,
            r#"{"input": [[1, -1]]}"#,
            r#"{"input": "a", "dimensions": 0}"#,
            r#"{"input": "a", "encoding_format": "int8"}"#,
            r#"{"input": "a", "input_type": "image"}"#,
            r#"{"input": "a", "truncate": "yes"}"#,
            r#"{"input": "a", "model": "scripted"}"#,
            r#"{"input": "a", "model": "nobody"}"#,
            r#"{"input": "a", "messages": [{"role": "user", "content": "a"}]}"#,
            r#"{"messages": []}"#,
            r#"{"messages": [{"role": "user", "content": "a"}], "input_type": "query"}"#,
            r#"{"messages": [{"role": "user", "content": "a"}], "continue_final_message": true}"#,
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}"#,
        ];
        check_refusals("embeddings/refusals", &bench, "/v1/embeddings", &bodies).await;
    }

    #[tokio::test]
    async fn a_conversation_has_one_vector_of_all_that_it_says_and_shows() {
        let bench = bench();
        // The smallest GIF there is.
        let image = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=";
        let written = format!(
            r#"POST /v1/embeddings

{{"messages": [{{"role": "user", "content": [{{"type": "image_url", "image_url": {{"url": "{image}"}}}}, {{"type": "text", "text": "ab"}}]}}], "dimensions": 3, "chat_template_kwargs": {{"x": 1}}}}"#
        );
        check("embeddings/chat", &bench, &written).await;
        let [request] = bench.scripted.ledger().embeds.try_into().unwrap();
        let [EmbedInput::Chat(shown)] = &request.inputs[..] else { panic!("{request:?}") };
        assert_eq!((shown.images.len(), shown.chat.messages.len()), (1, 1));
        assert_eq!(shown.chat.template_options["x"], 1);
    }

    #[tokio::test]
    async fn overload_and_failure_have_their_status() {
        let full = Refusal::QueueFull { queued: 9, retry_after: std::time::Duration::from_secs(3) };
        let scripted =
            Scripted::new().then(Script::refuse(full)).then(Script::new().fail(Failure::DeadlineExceeded));
        let bench = Bench::over(scripted);
        check("embeddings/full", &bench, "POST /v1/embeddings\n\n{\"input\": \"a\"}").await;
        check("embeddings/late", &bench, "POST /v1/embeddings\n\n{\"input\": \"a\"}").await;
    }

    #[test]
    fn base64_pads_as_the_rfc_says() {
        assert_eq!(base64(&[]), "");
        assert_eq!(base64(&[1.0]), "AACAPw==");
        assert_eq!(base64(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(base64(&[0.0, 1.0, -2.5]), "AAAAAAAAgD8AACDA");
    }
}
