//! How values are spelled: Go's time spans and truth values, URLs as etcd checks them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::flags::Kind;

/// An `http://host:port`, the only kind of URL that is served now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

impl Url {
    /// Reads one URL by etcd's rules (`client/pkg/types/urls.go`).
    ///
    /// # Errors
    /// etcd's text for a bad one; ours for https and unix sockets, which are not served yet.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("URL scheme must be http, https, unix, or unixs: {text}"));
        };
        match scheme {
            "http" => {}
            "https" => {
                return Err(format!(
                    "{text}: https is not served yet; use http until it is, in a network that you trust"
                ));
            }
            "unix" | "unixs" => return Err(format!("{text}: unix sockets are not served yet")),
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        }
        let (authority, path) =
            rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        let form = || format!("URL address does not have the form \"host:port\": {text}");
        let (host, port) = authority.rsplit_once(':').ok_or_else(form)?;
        let host = match (host.strip_prefix('['), host.strip_suffix(']')) {
            (Some(_), Some(_)) => &host[1..host.len() - 1],
            (None, None) if !host.contains(':') => host,
            _ => return Err(form()),
        };
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        let port = port.parse().map_err(|_| form())?;
        Ok(Self { host: host.to_owned(), port })
    }

    /// The address to listen on; `localhost` is 127.0.0.1, as where etcd runs without IPv6 names.
    ///
    /// # Errors
    /// etcd's text (`embed/config.go` checkBindURLs) when the host is neither localhost nor an address.
    pub fn bind_address(&self) -> Result<SocketAddr, String> {
        if self.host == "localhost" {
            return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        }
        let address: IpAddr =
            self.host.parse().map_err(|_| format!("expected IP in URL for binding ({self})"))?;
        Ok(SocketAddr::new(address, self.port))
    }

    /// Whether others can be told to dial it.
    ///
    /// # Errors
    /// etcd's text (`embed/config.go` checkHostURLs) when there is no host in it.
    pub fn check_host(&self) -> Result<(), String> {
        if self.host.is_empty() {
            return Err(format!("unexpected empty host ({self})"));
        }
        Ok(())
    }
}

/// Reads a list of URLs and sorts it by text, as etcd does.
///
/// # Errors
/// The first bad one's.
pub fn urls(text: &str) -> Result<Vec<Url>, String> {
    let mut urls = list(text).into_iter().map(Url::parse).collect::<Result<Vec<_>, _>>()?;
    urls.sort_by_key(ToString::to_string);
    urls.dedup();
    Ok(urls)
}

/// The parts between commas, trimmed, empty ones left out.
#[must_use]
pub fn list(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Go's `strconv.ParseBool`.
///
/// # Errors
/// Anything else.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// A whole number.
///
/// # Errors
/// Anything else.
pub fn integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number"))
}

/// Go's `time.ParseDuration` for spans that are not negative: numbers with units, `1h30m`, `1.5s`, or `0`.
///
/// # Errors
/// Anything else.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time span such as 300ms, 5s or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.starts_with('-') {
        return Err(format!("{text:?} is negative"));
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += number * seconds;
        rest = &rest[end..];
    }
    // Rounded to a nanosecond: floating point must not turn 100ms into 99.999999ms.
    Duration::try_from_secs_f64((total * 1e9).round() / 1e9).map_err(|_| bad())
}

/// Whether two texts are the same value of a kind.
///
/// # Errors
/// One of them is no value of that kind.
pub fn same(kind: Kind, left: &str, right: &str) -> Result<bool, String> {
    Ok(match kind {
        // An ignored flag's default is empty, whatever its kind.
        _ if left.is_empty() && right.is_empty() => true,
        Kind::Text => left == right,
        Kind::Bool if right.is_empty() => !boolean(left)?,
        Kind::Bool => boolean(left)? == boolean(right)?,
        Kind::Integer => integer(left)? == integer(right)?,
        Kind::Duration => duration(left)? == duration(right)?,
        Kind::List => list(left) == list(right),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_gos() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("100ns", 100),
            ("10µs", 10_000),
            ("2h", 7_200_000_000_000),
            ("+5s", 5_000_000_000),
        ] {
            assert_eq!(duration(text).unwrap().as_nanos(), nanos, "{text}");
        }
        for text in ["", "5", "s", "5x", "-1s", "1h 30m", "1..5s", "+"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn truth_values_are_gos() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(boolean(text), Ok(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(boolean(text), Ok(false), "{text}");
        }
        for text in ["yes", "", "tRUE"] {
            assert!(boolean(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_are_checked_as_etcd_checks_them() {
        let url = Url::parse(" http://10.0.0.1:2379 ").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("10.0.0.1", 2379));
        assert_eq!(url.to_string(), "http://10.0.0.1:2379");
        let six = Url::parse("http://[fd00::1]:2380").unwrap();
        assert_eq!(six.host, "fd00::1");
        assert_eq!(six.to_string(), "http://[fd00::1]:2380");
        for (text, part) in [
            ("10.0.0.1:2379", "URL scheme must be"),
            ("ftp://a:1", "URL scheme must be"),
            ("http://a", "does not have the form \"host:port\""),
            ("http://a:b", "does not have the form \"host:port\""),
            ("http://fd00::1:2380", "does not have the form \"host:port\""),
            ("http://a:70000", "does not have the form \"host:port\""),
            ("http://a:1/path", "must not contain a path"),
            ("http://a:1/", "must not contain a path"),
            ("https://a:1", "https is not served yet"),
            ("unix://a:1", "unix sockets are not served yet"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn only_addresses_and_localhost_are_listened_on() {
        let address = |text: &str| Url::parse(text).unwrap().bind_address();
        assert_eq!(address("http://localhost:1").unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(address("http://0.0.0.0:1").unwrap().to_string(), "0.0.0.0:1");
        assert_eq!(address("http://[::]:1").unwrap().to_string(), "[::]:1");
        let error = address("http://example.com:1").unwrap_err();
        assert_eq!(error, "expected IP in URL for binding (http://example.com:1)");
    }
}
