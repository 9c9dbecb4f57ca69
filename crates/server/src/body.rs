//! Request bodies: read within a bound of bytes and time, then parsed.

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use futures::StreamExt;
use serde_json::Value;
use tokio::time::timeout;

use crate::Settings;
use crate::failure::Problem;
use crate::fields::Fields;

/// Parsing this much takes about as long as the runtime's other tasks should ever have to wait.
const PARSED_IN_PLACE: usize = 256 << 10;

/// The JSON object in the body of `request`.
pub(crate) async fn read(request: Request, settings: &Settings) -> Result<Fields, Problem> {
    check_media_type(request.headers())?;
    let limit = settings.limits.body_bytes;
    if announced(request.headers()).is_some_and(|bytes| bytes > limit as u64) {
        return Err(Problem::BodyTooLarge { limit });
    }
    let waited = settings.timeouts.body;
    let bytes = timeout(waited, collect(request.into_body(), limit));
    let bytes = bytes.await.map_err(|_| Problem::BodyTimeout { waited })??;
    if bytes.len() <= PARSED_IN_PLACE {
        return parse(&bytes);
    }
    tokio::task::spawn_blocking(move || parse(&bytes)).await.map_err(|_| Problem::Panicked)?
}

fn parse(bytes: &[u8]) -> Result<Fields, Problem> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| Problem::InvalidJson { message: error.to_string() })?;
    Fields::of(value, "")
}

async fn collect(body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(frame) = stream.next().await {
        let frame = frame.map_err(|_| Problem::BodyBroken)?;
        if bytes.len() + frame.len() > limit {
            return Err(Problem::BodyTooLarge { limit });
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body that says it is something else is refused, not guessed at; one that says nothing is taken for JSON. That a
/// form or plain text is refused also keeps a web page from posting to a server on its reader's machine.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let told = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if let Some(found) = told(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return Err(Problem::MediaType { expected: "sent without compression", found });
    }
    let Some(found) = told(CONTENT_TYPE) else { return Ok(()) };
    let essence = found.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::MediaType { expected: "application/json", found })
}
