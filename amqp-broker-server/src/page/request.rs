//! Requests of a browser: the paths that exist, and the hosts that are accepted.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use hyper::{HeaderMap, Method, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;

/// The hosts by which a browser may name the page.
///
/// A page of another site can have its name resolve to this machine (DNS rebinding), and would then
/// read the responses as its own. It needs a name for that: an IP address and `localhost` are safe,
/// and so is the name that the page is bound to.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    bound: String,
}

impl Hosts {
    /// The hosts of a page that is bound to that one.
    pub(crate) fn named(bound: &str) -> Self {
        Self {
            bound: bound.to_ascii_lowercase(),
        }
    }

    /// Returns whether a host is accepted.
    fn accept(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        host == "localhost" || host == self.bound || host.parse::<IpAddr>().is_ok()
    }
}

/// The host that a request names: that of its URI, which precedes that of the header `Host` (section
/// 3.2.2 of RFC 9112). The header is required, once and valid, in any case (section 3.2).
fn named<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let host = without_port(value.to_str().ok()?)?;
    match uri.authority() {
        Some(authority) => without_port(authority.as_str()),
        None => Some(host),
    }
}

/// The host of an authority, without the brackets of an IPv6 address.
fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            let port = rest.strip_prefix(':');
            (host, port.or_else(|| rest.is_empty().then_some(""))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(host)
}

/// A request for something that may exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Html,
    Css,
    JavaScript,
    Icon,
    Overview,
    Queues(Part),
    Exchanges(Part),
    Connections {
        after: u64,
    },
    Bindings {
        vhost: String,
        exchange: String,
    },
    Messages {
        vhost: String,
        queue: String,
        count: usize,
    },
}

/// A part of a list by virtual host and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// The virtual host and the name that it begins behind.
    pub(crate) after: Option<(String, String)>,
    /// A text in the names, of either case; empty for all.
    pub(crate) contains: String,
}

/// The number of messages that are peeked by default, and at most.
const MESSAGES: (usize, usize) = (10, 100);

/// Parses a request. The error is the status to refuse it with.
pub(crate) fn parse(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    hosts: &Hosts,
) -> Result<Wanted, StatusCode> {
    let host = named(uri, headers).ok_or(StatusCode::BAD_REQUEST)?;
    if !hosts.accept(host) {
        return Err(StatusCode::MISDIRECTED_REQUEST);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let query = query(uri.query().unwrap_or_default())?;
    let given = |name: &str| query.get(name).cloned();
    let part = || Part {
        after: given("after_vhost").map(|vhost| (vhost, given("after").unwrap_or_default())),
        contains: given("contains").unwrap_or_default().to_lowercase(),
    };
    let number = |text: String| text.parse().map_err(|_| StatusCode::BAD_REQUEST);
    let path = uri.path().strip_prefix('/').unwrap_or_default();
    let path: Vec<&str> = path.split('/').collect();
    Ok(match path[..] {
        [""] => Wanted::Html,
        ["page.css"] => Wanted::Css,
        ["page.js"] => Wanted::JavaScript,
        ["favicon.ico"] => Wanted::Icon,
        ["api", "overview"] => Wanted::Overview,
        ["api", "queues"] => Wanted::Queues(part()),
        ["api", "exchanges"] => Wanted::Exchanges(part()),
        ["api", "connections"] => Wanted::Connections {
            after: given("after").map_or(Ok(0), number)?,
        },
        ["api", "exchanges", vhost, exchange, "bindings"] => Wanted::Bindings {
            vhost: decoded(vhost)?,
            exchange: decoded(exchange)?,
        },
        ["api", "queues", vhost, queue, "messages"] => {
            let (default, most) = MESSAGES;
            let count = given("count").map(number).transpose()?;
            let count = count.map_or(default, |count| usize::try_from(count).unwrap_or(most));
            Wanted::Messages {
                vhost: decoded(vhost)?,
                queue: decoded(queue)?,
                count: count.min(most),
            }
        }
        _ => return Err(StatusCode::NOT_FOUND),
    })
}

/// Parses a query. Of parameters with one name the last one counts.
fn query(text: &str) -> Result<BTreeMap<String, String>, StatusCode> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(name)?, decoded(&value.replace('+', " "))?))
    });
    pairs.collect()
}

/// Decodes a segment of a path, or a part of a query.
fn decoded(text: &str) -> Result<String, StatusCode> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Result<Wanted, StatusCode> {
        request(Method::GET, path, "localhost:15672")
    }

    fn request(method: Method, path: &str, host: &str) -> Result<Wanted, StatusCode> {
        request_with(method, path, &[host])
    }

    fn request_with(method: Method, path: &str, named: &[&str]) -> Result<Wanted, StatusCode> {
        let mut headers = HeaderMap::new();
        for host in named {
            headers.append(header::HOST, host.parse().unwrap());
        }
        parse(
            &method,
            &path.parse().unwrap(),
            &headers,
            &Hosts::named("Broker.example"),
        )
    }

    #[test]
    fn names_are_decoded_after_the_path_is_split() {
        let wanted = Wanted::Messages {
            vhost: "/".into(),
            queue: "a/b <c>?".into(),
            count: 10,
        };
        assert_eq!(
            get("/api/queues/%2F/a%2Fb%20%3Cc%3E%3F/messages"),
            Ok(wanted)
        );
        let wanted = Wanted::Bindings {
            vhost: "/".into(),
            exchange: String::new(),
        };
        assert_eq!(get("/api/exchanges/%2f//bindings"), Ok(wanted));
        assert_eq!(
            get("/api/exchanges/%ff//bindings"),
            Err(StatusCode::BAD_REQUEST)
        );
    }

    #[test]
    fn the_number_of_messages_is_bounded() {
        for (query, count) in [("count=3", 3), ("count=101", 100), ("count=0", 0)] {
            let path = format!("/api/queues/v/q/messages?{query}");
            let Ok(Wanted::Messages { count: parsed, .. }) = get(&path) else {
                panic!("{path}");
            };
            assert_eq!(parsed, count);
        }
        let path = "/api/queues/v/q/messages?count=x";
        assert_eq!(get(path), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn lists_are_continued_and_filtered() {
        assert_eq!(get("/api/queues"), Ok(Wanted::Queues(Part::default())));
        let part = Part {
            after: Some(("/".into(), "a b".into())),
            contains: "é".into(),
        };
        let path = "/api/queues?after_vhost=%2F&after=a+b&contains=%C3%89";
        assert_eq!(get(path), Ok(Wanted::Queues(part)));
        let wanted = Wanted::Connections { after: 7 };
        assert_eq!(get("/api/connections?after=7"), Ok(wanted));
    }

    #[test]
    fn a_name_of_another_site_is_refused() {
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:15672",
            "[::1]:15672",
            "192.168.1.2",
            "broker.example:80",
        ] {
            assert_eq!(request(Method::GET, "/", host), Ok(Wanted::Html), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ] {
            let refused = request(Method::GET, "/", host);
            assert_eq!(refused, Err(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let both = ["localhost", "evil.example"];
        for named in [&both[..], &["localhost", "localhost"], &[]] {
            let refused = request_with(Method::GET, "/", named);
            assert_eq!(refused, Err(StatusCode::BAD_REQUEST), "{named:?}");
        }
        for host in ["[::1", "[::1]x", "[localhost]", "localhost:x", "::1"] {
            let refused = request(Method::GET, "/", host);
            assert_eq!(refused, Err(StatusCode::BAD_REQUEST), "{host}");
        }
        let misdirected = Err(StatusCode::MISDIRECTED_REQUEST);
        for (uri, host, expected) in [
            ("http://[::1]:80/", "evil.example", Ok(Wanted::Html)),
            ("http://evil.example/", "localhost", misdirected.clone()),
            ("http://localhost@evil.example/", "localhost", misdirected),
            ("http://localhost/", "[::1", Err(StatusCode::BAD_REQUEST)),
        ] {
            assert_eq!(request(Method::GET, uri, host), expected, "{uri}");
        }
    }

    #[test]
    fn nothing_can_be_changed() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let refused = request(method, "/api/overview", "localhost");
            assert_eq!(refused, Err(StatusCode::METHOD_NOT_ALLOWED));
        }
        for path in ["/api", "/api/", "/page.html", "/../Cargo.toml", "//"] {
            assert_eq!(get(path), Err(StatusCode::NOT_FOUND), "{path}");
        }
    }
}
