//! Pictures that clients name by an address: fetched from listed hosts only, and never from where only this machine can
//! reach.
//!
//! Whoever may ask the server could otherwise make it call on its neighbours. So a name must be listed; it is resolved once
//! and the connection goes to the address that was looked at, which no second answer can change; and where a redirect leads
//! is looked at like the first address. Everything is bounded: bytes, time, redirects, and how many are fetched at once.

mod address;
mod exchange;
mod hosts;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::Scheme;
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use hosts::ImageHost;

use address::may_reach;
use exchange::{Answer, Line};
use hosts::{Reach, parts};

/// From where pictures are fetched that clients only name, and what that may take.
#[derive(Clone, Debug)]
pub struct Fetching {
    /// The hosts; without any nothing is fetched.
    pub hosts: Vec<ImageHost>,
    /// From the request to the last byte of a picture, its redirects and the wait for a free connection included.
    pub time: Duration,
    /// Pictures that are fetched at once, for all clients.
    pub at_once: usize,
    /// Redirects that are followed.
    pub redirects: usize,
}

impl Default for Fetching {
    fn default() -> Self {
        Self { hosts: Vec::new(), time: Duration::from_secs(10), at_once: 32, redirects: 3 }
    }
}

/// Why a picture could not be fetched. Says nothing of what stands at an address that was not listed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum FetchError {
    #[error("'{0}' is no address of a picture; send one such as 'https://images.example.org/a.png'")]
    Address(String),
    #[error(
        "this server fetches no images from '{host}'; send the image itself, as 'data:image/png;base64,...', or have the \
         host listed by --image-hosts"
    )]
    NotListed { host: String },
    #[error(
        "'{host}' has no address that everyone can reach; if it may be in a private network, have it listed as \
         --image-hosts {host}=private"
    )]
    NotPublic { host: String },
    #[error("the name '{host}' is not known: {reason}")]
    Unknown { host: String, reason: String },
    #[error("'{host}' could not be reached: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("no connection to '{host}' that can be trusted: {reason}")]
    Distrusted { host: String, reason: String },
    #[error("'{host}' answered {status} and no image")]
    Status { host: String, status: u16 },
    #[error("'{host}' sent on to where no image is fetched from: {reason}")]
    Astray { host: String, reason: String },
    #[error("more than {most} redirects were not followed")]
    Redirects { most: usize },
    #[error("the answer of '{host}' broke off or is no HTTP: {reason}")]
    Broken { host: String, reason: String },
    #[error("'{host}' sent the image compressed once more, as '{encoding}', although it was asked not to")]
    Encoded { host: String, encoding: String },
    #[error("the image has more than the {limit} bytes that may be fetched for it")]
    TooLarge { limit: usize },
    #[error("the image did not arrive within {} s", waited.as_secs_f32())]
    Late { waited: Duration },
}

impl FetchError {
    /// What counts as what, for metrics: refused without a connection, or failed with one.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Address(_) | Self::NotListed { .. } | Self::NotPublic { .. } => "refused",
            Self::Astray { .. } | Self::Redirects { .. } => "astray",
            Self::TooLarge { .. } => "too_large",
            Self::Late { .. } => "late",
            _ => "failed",
        }
    }
}

/// Bytes that may still be fetched for one request.
#[derive(Debug)]
pub(crate) struct Room {
    left: AtomicUsize,
    most: usize,
}

impl Room {
    pub(crate) fn of(most: usize) -> Self {
        Self { left: AtomicUsize::new(most), most }
    }

    /// Takes room for some bytes, if there is so much.
    fn take(&self, bytes: usize) -> Result<(), FetchError> {
        let taken =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|_| FetchError::TooLarge { limit: self.most })
    }
}

/// What fetches, for all requests.
pub(crate) struct Fetcher {
    settings: Fetching,
    line: Line,
    free: Semaphore,
}

/// Where a picture is: an address that has been read, and that is listed.
struct Place {
    uri: Uri,
    /// As it is compared.
    host: String,
    port: u16,
    reach: Reach,
}

impl Fetcher {
    pub(crate) fn new(settings: Fetching) -> Self {
        let free = Semaphore::new(settings.at_once.clamp(1, Semaphore::MAX_PERMITS));
        Self { settings, line: Line::default(), free }
    }

    /// Whether anything is fetched at all.
    pub(crate) fn is_open(&self) -> bool {
        !self.settings.hosts.is_empty()
    }

    /// The bytes of the picture at `url`, at most `most`.
    ///
    /// # Errors
    /// When the address is not listed, or no picture came from there within the bounds.
    pub(crate) async fn fetch(&self, url: &str, most: usize, room: &Room) -> Result<Vec<u8>, FetchError> {
        let waited = self.settings.time;
        let fetched = async {
            // The semaphore is never closed; if it were, nothing would be bounded by it.
            let _free = self.free.acquire().await.map_err(|_| FetchError::Late { waited })?;
            self.follow(url, most, room).await
        };
        timeout(waited, fetched).await.map_err(|_| FetchError::Late { waited })?
    }

    async fn follow(&self, url: &str, most: usize, room: &Room) -> Result<Vec<u8>, FetchError> {
        let mut place = self.place(url)?;
        for _ in 0..=self.settings.redirects {
            let addresses = resolve(&place).await?;
            match self.line.get(&place, &addresses, (most, room)).await? {
                Answer::Whole(bytes) => return Ok(bytes),
                Answer::Elsewhere(location) => {
                    let host = place.host.clone();
                    let astray = |error: FetchError| FetchError::Astray { host, reason: error.to_string() };
                    place = self.onward(&place, &location).map_err(astray)?;
                }
            }
        }
        Err(FetchError::Redirects { most: self.settings.redirects })
    }

    /// Where a redirect leads. Nothing that was asked for in secret is asked for openly.
    fn onward(&self, from: &Place, location: &str) -> Result<Place, FetchError> {
        let url = match location.strip_prefix('/') {
            Some(rest) if !rest.starts_with('/') => {
                let scheme = from.uri.scheme_str().unwrap_or_default();
                let authority = from.uri.authority().map_or("", |authority| authority.as_str());
                format!("{scheme}://{authority}{location}")
            }
            _ => location.to_owned(),
        };
        let onward = self.place(&url)?;
        if from.is_secret() && !onward.is_secret() {
            return Err(FetchError::Address(shortened(location)));
        }
        Ok(onward)
    }

    fn place(&self, url: &str) -> Result<Place, FetchError> {
        let wrong = || FetchError::Address(shortened(url));
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let usual = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => 80,
            Some(scheme) if *scheme == Scheme::HTTPS => 443,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        let (host, port) = parts(authority).ok_or_else(wrong)?;
        let port = port.unwrap_or(usual);
        let listed = self.settings.hosts.iter().filter_map(|entry| entry.reach(&host, port, usual)).max();
        match listed {
            Some(reach) => Ok(Place { uri, host, port, reach }),
            None => Err(FetchError::NotListed { host: shortened(authority.as_str()) }),
        }
    }
}

impl Place {
    fn is_secret(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }
}

/// The addresses of a place that may be connected to. This is the only time that its name is looked up.
async fn resolve(place: &Place) -> Result<Vec<SocketAddr>, FetchError> {
    let Place { uri, host, port, reach } = place;
    let authority = uri.authority().map_or(host.as_str(), |authority| authority.as_str());
    let number = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let found: Vec<SocketAddr> = match number.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, *port)],
        Err(_) => {
            let unknown =
                |error: std::io::Error| FetchError::Unknown { host: host.clone(), reason: error.to_string() };
            lookup_host((host.as_str(), *port)).await.map_err(unknown)?.collect()
        }
    };
    let reachable: Vec<SocketAddr> =
        found.into_iter().filter(|found| may_reach(found.ip(), *reach)).take(MOST_ADDRESSES).collect();
    if reachable.is_empty() {
        Err(FetchError::NotPublic { host: authority.to_owned() })
    } else {
        Ok(reachable)
    }
}

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// As much of what a client sent as an error may repeat.
fn shortened(text: &str) -> String {
    text.chars().take(120).collect()
}
