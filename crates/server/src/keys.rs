//! API keys: who may ask, and as which tenant.
//!
//! A key is kept as its SHA-256 digest, so that neither a memory dump nor a printed configuration gives it away. Keys
//! are long random texts, not passwords: a slow hash would cost every request and protect nothing. A presented key
//! is digested and compared with every stored digest, each in full, so the time taken says neither which key nor
//! how much of it matched.

use std::fmt;
use std::hint::black_box;

use axum::http::{HeaderMap, header};
use protocol::TenantId;
use sha2::{Digest, Sha256};

use crate::failure::Problem;

/// The digest of one secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// A text that is not the digest of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored key is written sha256: and 64 hexadecimal digits, but {digits} characters follow sha256:")]
pub struct KeyError {
    digits: usize,
}

impl Key {
    /// Digests a secret.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Reads a configured key: `sha256:` and 64 hexadecimal digits for a stored digest, anything else is the secret.
    ///
    /// # Errors
    /// When `sha256:` is followed by something else.
    pub fn parse(written: &str) -> Result<Self, KeyError> {
        let Some(digits) = written.strip_prefix("sha256:") else { return Ok(Self::of(written)) };
        let wrong = KeyError { digits: digits.chars().count() };
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong.clone())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong.clone())?;
        }
        Ok(Self(digest))
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    fn matches(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |seen, (a, b)| black_box(seen | (a ^ b)));
        difference == 0
    }
}

/// Shows four digits: enough to tell keys apart in a log, too few to be of use.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(sha256:{:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// Every key with the tenant whose work it asks for. Without any, everybody is the default tenant.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    named: Vec<(String, Key)>,
}

impl Keys {
    /// Adds a key; the same name may have several, as when one is being replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, key: Key) -> Self {
        self.named.push((name.into(), key));
        self
    }

    /// Whether everybody may ask.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    pub(crate) fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, Problem> {
        if self.named.is_empty() {
            return Ok(TenantId::default());
        }
        let presented = Key::of(presented(headers).ok_or(Problem::MissingKey)?);
        let mut found = None;
        for (name, key) in &self.named {
            if key.matches(&presented) {
                found = Some(name);
            }
        }
        found.map(|name| TenantId(name.clone())).ok_or(Problem::WrongKey)
    }
}

/// Checks the key of `/metrics`, if it has one.
pub(crate) fn opens(key: Option<&Key>, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(key) = key else { return Ok(()) };
    let presented = Key::of(presented(headers).ok_or(Problem::MissingKey)?);
    if key.matches(&presented) { Ok(()) } else { Err(Problem::WrongKey) }
}

/// The secret in `Authorization: Bearer …`, or in `x-api-key`, which some client libraries send instead.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
    });
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok()).filter(|secret| !secret.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_digest_and_its_secret_are_the_same_key() {
        let digest = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(Key::parse(digest), Ok(Key::of("secret")));
        assert_eq!(Key::parse("secret"), Ok(Key::of("secret")));
        assert_eq!(Key::parse("sha256:abc"), Err(KeyError { digits: 3 }));
        assert!(Key::parse(&format!("sha256:{}", "ü".repeat(32))).is_err());
        assert_eq!(format!("{:?}", Key::of("secret")), "Key(sha256:2bb8…)");
    }

    #[test]
    fn the_tenant_is_the_name_of_the_key() {
        let keys =
            Keys::default().with("alice", Key::of("a")).with("bob", Key::of("b")).with("bob", Key::of("c"));
        let tenant = |headers: HeaderMap| keys.tenant(&headers).map(|tenant| tenant.0).ok();
        assert_eq!(tenant(asked("authorization", "Bearer a")).as_deref(), Some("alice"));
        assert_eq!(tenant(asked("authorization", "bearer c")).as_deref(), Some("bob"));
        assert_eq!(tenant(asked("x-api-key", "b")).as_deref(), Some("bob"));
        assert_eq!(tenant(asked("authorization", "Bearer d")), None);
        assert_eq!(tenant(asked("authorization", "Basic a")), None);
        assert_eq!(tenant(asked("authorization", "Bearer ")), None);
        assert_eq!(tenant(HeaderMap::new()), None);
        assert_eq!(Keys::default().tenant(&HeaderMap::new()).map(|t| t.0).ok().as_deref(), Some("default"));
    }
}
