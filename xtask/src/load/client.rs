//! One request over a connection of its own, as plain HTTP/1.1, so that going away is nothing but closing it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::mix::{Tier, Wish};
use super::server::Server;

/// A reply that does not go on for so long is taken for one that never ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client heard.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) tenant: usize,
    pub(crate) tier: Tier,
    pub(crate) is_malformed: bool,
    pub(crate) end: End,
    /// From asking to the first piece of the reply.
    pub(crate) first: Option<Duration>,
    /// Tokens that were written for it, as far as it heard.
    pub(crate) written: u64,
    /// Tokens of its prompt, if it heard.
    pub(crate) read: u64,
    /// When it ended.
    pub(crate) at: Instant,
}

/// How a reply ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Whole,
    /// The server would not, with this status.
    Refused(u16),
    /// It began, and ended with an error.
    Failed(String),
    /// The client went away.
    Left,
    /// It stopped without saying why, or said two things.
    Unclear(String),
}

/// Asks, and listens until the reply ends or the client has heard enough.
pub(crate) async fn ask(server: &Server, wish: &Wish) -> Result<Heard> {
    let began = Instant::now();
    let mut heard = Heard {
        tenant: wish.tenant,
        tier: wish.tier,
        is_malformed: wish.is_malformed,
        end: End::Left,
        first: None,
        written: 0,
        read: 0,
        at: began,
    };
    let listened = tokio::time::timeout(PATIENCE, listen(server, wish, (began, &mut heard))).await;
    heard.end = match listened {
        Ok(end) => end.unwrap_or_else(|error| End::Unclear(format!("{error:#}"))),
        Err(_) => End::Unclear(format!("nothing came for {} s", PATIENCE.as_secs())),
    };
    heard.at = Instant::now();
    Ok(heard)
}

async fn listen(server: &Server, wish: &Wish, (began, heard): (Instant, &mut Heard)) -> Result<End> {
    let mut stream = TcpStream::connect(server.address()).await.context("cannot connect")?;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        wish.path,
        server.address(),
        wish.key(),
        wish.body.len()
    );
    stream.write_all((head + &wish.body).as_bytes()).await.context("cannot ask")?;
    let mut reader = BufReader::new(stream);
    let status = status(&mut reader).await?;
    if status != 200 {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.context("the refusal broke off")?;
        return Ok(End::Refused(status));
    }
    let (mut pieces, mut waiting, mut end) = (0, Vec::new(), None);
    loop {
        if wish.leaves_after.is_some_and(|after| pieces >= after) {
            return Ok(End::Left);
        }
        if !chunk(&mut reader, &mut waiting).await? {
            return Ok(end.unwrap_or_else(|| End::Unclear("the reply broke off".to_owned())));
        }
        while let Some(at) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=at).collect();
            let Some(data) = line.trim_ascii().strip_prefix(b"data: ") else { continue };
            pieces += 1;
            if let Some(now) = event(data, heard, began)? {
                end = Some(match end {
                    None => now,
                    Some(before) => End::Unclear(format!("it ended with {before:?} and with {now:?}")),
                });
            }
        }
    }
}

/// Takes in one event; says how the reply ends if the event does.
fn event(data: &[u8], heard: &mut Heard, began: Instant) -> Result<Option<End>> {
    if data == b"[DONE]" {
        return Ok(Some(End::Whole));
    }
    let event: Value = serde_json::from_slice(data).context("an event is no JSON")?;
    if let Some(error) = event.get("error") {
        return Ok(Some(End::Failed(error.to_string())));
    }
    if event["choices"].as_array().is_some_and(|choices| !choices.is_empty()) {
        heard.first.get_or_insert_with(|| began.elapsed());
        heard.written += 1;
    }
    if let Some(usage) = event.get("usage").filter(|usage| usage.is_object()) {
        heard.written = usage["completion_tokens"].as_u64().unwrap_or(heard.written);
        heard.read = usage["prompt_tokens"].as_u64().unwrap_or(0);
    }
    Ok(None)
}

/// Reads the head of the reply.
async fn status(reader: &mut BufReader<TcpStream>) -> Result<u16> {
    let mut line = String::new();
    reader.read_line(&mut line).await.context("no reply comes")?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let Some(status) = status else { bail!("the reply begins with {line:?}") };
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line).await?;
    }
    Ok(status)
}

/// Appends the next chunk of the body; false after the last one.
async fn chunk(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<bool> {
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let size =
        usize::from_str_radix(line.trim(), 16).with_context(|| format!("no size of a chunk: {line:?}"))?;
    let start = body.len();
    body.resize(start + size, 0);
    reader.read_exact(&mut body[start..]).await?;
    line.clear();
    reader.read_line(&mut line).await?;
    Ok(size > 0)
}
