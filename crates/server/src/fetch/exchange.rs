//! One question and its answer, over a connection of its own.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HOST, LOCATION, USER_AGENT,
};
use axum::http::{Request, Response, StatusCode};
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{FetchError, Place, Room, shortened};

/// Bytes of the head of an answer.
const HEAD_BYTES: usize = 64 << 10;

/// What a host says.
pub(super) enum Answer {
    /// The picture.
    Whole(Vec<u8>),
    /// Where it says that the picture is.
    Elsewhere(String),
}

/// How hosts are reached.
#[derive(Default)]
pub(super) struct Line {
    /// Whom to trust: those whom the system trusts, read when the first connection needs it.
    trust: OnceCell<Arc<ClientConfig>>,
}

impl Line {
    /// Trusts these and nobody else.
    #[cfg(test)]
    pub(super) fn trusting(roots: RootCertStore) -> Self {
        Self { trust: OnceCell::new_with(config(roots).ok()) }
    }

    /// Asks for what stands at a place, at one of these addresses and no other.
    pub(super) async fn get(
        &self,
        place: &Place,
        addresses: &[SocketAddr],
        bounds: (usize, &Room),
    ) -> Result<Answer, FetchError> {
        let stream = connect(place, addresses).await?;
        if !place.is_secret() {
            return ask(place, stream, bounds).await;
        }
        let distrusted = |reason: String| FetchError::Distrusted { host: place.host.clone(), reason };
        let config = self.trust.get_or_try_init(system).await.map_err(distrusted)?;
        let bare = place.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|error| distrusted(error.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await.map_err(|error| distrusted(error.to_string()))?;
        ask(place, stream, bounds).await
    }
}

/// Trusts whom the system trusts. The files are read on a thread that may wait.
async fn system() -> Result<Arc<ClientConfig>, String> {
    let read = tokio::task::spawn_blocking(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            let advice =
                "install the system's package ca-certificates, or name a file of them in SSL_CERT_FILE";
            let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
            return Err(format!("this system trusts no authority ({}); {advice}", reasons.join(", ")));
        }
        config(roots)
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn connect(place: &Place, addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(FetchError::Unreachable { host: place.host.clone(), reason: last.to_string() })
}

async fn ask(
    place: &Place,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    bounds: (usize, &Room),
) -> Result<Answer, FetchError> {
    let broken = |error: hyper::Error| FetchError::Broken { host: place.host.clone(), reason: told(&error) };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Dropping the set ends the connection, wherever it is: when the picture is there, and when nobody wants it any more.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let response = sender.send_request(question(place)?).await.map_err(broken)?;
    match response.status() {
        StatusCode::OK => picture(place, response, bounds).await.map(Answer::Whole),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            Ok(Answer::Elsewhere(location.unwrap_or_default().to_owned()))
        }
        status => Err(FetchError::Status { host: place.host.clone(), status: status.as_u16() }),
    }
}

fn question(place: &Place) -> Result<Request<Body>, FetchError> {
    let path = place.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = place.uri.authority().map_or("", |authority| authority.as_str());
    Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "image/png, image/jpeg, image/webp, image/gif")
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .body(Body::empty())
        .map_err(|_| FetchError::Address(shortened(&place.uri.to_string())))
}

/// Reads a picture as far as it keeps the bounds. What it claims to be is not asked: its first bytes will tell.
async fn picture(
    place: &Place,
    response: Response<Incoming>,
    (most, room): (usize, &Room),
) -> Result<Vec<u8>, FetchError> {
    let header = |name| response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(encoding) = header(CONTENT_ENCODING).filter(|found| !found.eq_ignore_ascii_case("identity")) {
        return Err(FetchError::Encoded { host: place.host.clone(), encoding: shortened(&encoding) });
    }
    let announced = header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > most as u64) {
        return Err(FetchError::TooLarge { limit: most });
    }
    let mut bytes = Vec::new();
    let mut stream = Body::new(response.into_body()).into_data_stream();
    while let Some(part) = stream.next().await {
        let part =
            part.map_err(|error| FetchError::Broken { host: place.host.clone(), reason: told(&error) })?;
        if bytes.len() + part.len() > most {
            return Err(FetchError::TooLarge { limit: most });
        }
        room.take(part.len())?;
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// An error with what is behind it.
fn told(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
