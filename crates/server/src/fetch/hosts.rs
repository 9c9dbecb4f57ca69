//! From where pictures are fetched: the names that the one who runs the server has listed.

use std::fmt;
use std::str::FromStr;

use axum::http::uri::Authority;

/// A host from which pictures may be fetched, written `images.example.org`, `*.example.org` (the names below it), `*`
/// (every name), each with a port after a colon if it is not that of the scheme, and with `=private` behind it if its
/// address may be one that only this machine or its network can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHost {
    name: Name,
    port: Option<u16>,
    reach: Reach,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Any,
    Below(String),
    Exactly(String),
}

/// Which addresses a listed name may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Those that anyone can reach.
    Public,
    /// Those of this machine and of private networks too.
    Private,
}

const PRIVATE: &str = "private";

/// Name and port of an authority, the name as it is compared: in small letters, without the dot that may end it. `None` if
/// it has a password, or a port that is none.
pub(super) fn parts(authority: &Authority) -> Option<(String, Option<u16>)> {
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host)?.strip_prefix(':') {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        None if authority.as_str() == host => None,
        None => return None,
    };
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (!name.is_empty()).then_some((name, port))
}

impl ImageHost {
    /// Which addresses a name and port may have by this entry; `None` if the entry does not mean them.
    pub(super) fn reach(&self, name: &str, port: u16, usual: u16) -> Option<Reach> {
        let meant = match &self.name {
            Name::Any => true,
            Name::Below(parent) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Name::Exactly(exactly) => name == exactly,
        };
        (meant && port == self.port.unwrap_or(usual)).then_some(self.reach)
    }
}

impl FromStr for ImageHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "'{text}' is no host; write images.example.org, *.example.org, or files.lan:8000={PRIVATE} \
                 where the address may be a private one"
            )
        };
        let (place, reach) = match text.trim().split_once('=') {
            Some((place, PRIVATE)) => (place, Reach::Private),
            Some(_) => return Err(refuse()),
            None => (text.trim(), Reach::Public),
        };
        let authority: Authority = place.parse().map_err(|_| refuse())?;
        let (host, port) =
            parts(&authority).filter(|_| !authority.host().ends_with('.')).ok_or_else(refuse)?;
        let name = match host.strip_prefix('*') {
            None => Name::Exactly(host),
            Some("") => Name::Any,
            Some(below) => match below.strip_prefix('.') {
                Some(parent) if !parent.is_empty() => Name::Below(parent.to_owned()),
                _ => return Err(refuse()),
            },
        };
        if name == Name::Any && reach == Reach::Private {
            return Err(format!(
                "'{text}' would let whoever may ask reach every machine of this network; list hosts by their names"
            ));
        }
        match &name {
            Name::Below(name) | Name::Exactly(name) if name.contains('*') => Err(refuse()),
            _ => Ok(Self { name, port, reach }),
        }
    }
}

impl fmt::Display for ImageHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Any => f.write_str("*")?,
            Name::Below(parent) => write!(f, "*.{parent}")?,
            Name::Exactly(name) => f.write_str(name)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.reach {
            Reach::Public => Ok(()),
            Reach::Private => write!(f, "={PRIVATE}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_mean_names_and_ports() {
        let check = |entry: &str, place: (&str, u16), expected| {
            let host: ImageHost = entry.parse().unwrap();
            assert_eq!(host.reach(place.0, place.1, 443), expected, "{entry} for {place:?}");
        };
        let (public, private) = (Some(Reach::Public), Some(Reach::Private));
        check("Images.Example.org", ("images.example.org", 443), public);
        check("images.example.org", ("images.example.org", 8443), None);
        check("images.example.org", ("example.org", 443), None);
        check("images.example.org:8443", ("images.example.org", 8443), public);
        check("images.example.org:8443", ("images.example.org", 443), None);
        check("*.example.org", ("a.b.example.org", 443), public);
        check("*.example.org", ("example.org", 443), None);
        check("*.example.org", (".example.org", 443), None);
        check("*.example.org", ("evilexample.org", 443), None);
        check("*.example.org", ("example.org.evil.net", 443), None);
        check("*", ("anything.at.all", 443), public);
        check("*:8080", ("anything.at.all", 443), None);
        check("files.lan:80=private", ("files.lan", 80), private);
        check("[::1]:80=private", ("[::1]", 80), private);
    }

    #[test]
    fn entries_are_shown_as_they_are_written_and_nonsense_is_refused() {
        for entry in ["a.example", "*.a.example:81", "*", "b.lan=private", "[::1]:80=private"] {
            assert_eq!(entry.parse::<ImageHost>().unwrap().to_string(), entry);
        }
        let check = |entry: &str, told: &str| {
            let refused = entry.parse::<ImageHost>().unwrap_err();
            assert!(refused.contains(told), "{entry}: {refused}");
        };
        for entry in [
            "",
            "https://a.example",
            "a.example/x",
            "me@a.example",
            "a:b:c",
            "a.example=open",
            "a:0",
            "a:99999",
        ] {
            check(entry, "is no host; write");
        }
        for entry in ["*a.example", "*.", "a.*.example", "**"] {
            check(entry, "is no host; write");
        }
        check("*=private", "list hosts by their names");
    }
}
