//! A text that may be a URI.

use amqp_core::{
    Instant,
    client::{Config, Connection},
    uri::Uri,
};

/// A password that is in no error.
const CANARY: &str = "S3cr3tCanary";

/// The input is a text. A NUL in it is the place of a password: behind the login of a URI.
pub fn uri(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    parse(text);
    if let Some((before, behind)) = text.split_once('\0') {
        keep_secret(&format!(
            "amqp://u:{before}{CANARY}{behind}@host/v?heartbeat=1"
        ));
        keep_secret(&format!("{before}://u:{CANARY}{behind}@host"));
    }
}

/// A URI that is shown is the same one, except for the password; and a client takes it, or says which
/// setting is wrong.
fn parse(text: &str) {
    let Ok(mut uri) = text.parse::<Uri>() else {
        return;
    };
    assert!(!uri.addresses.is_empty() && !uri.vhost.is_empty());
    if let Ok(config) = Config::from_uri(&uri) {
        drop(Connection::new(config, Instant::ORIGIN));
    }
    uri.password = None;
    assert_eq!(uri.to_string().parse::<Uri>(), Ok(uri));
}

/// Neither a URI nor the reason why a text is none shows a password.
fn keep_secret(text: &str) {
    let shown = match text.parse::<Uri>() {
        Ok(uri) => {
            let whole = uri.password.is_some();
            let config = Config::from_uri(&uri);
            // Where it is no password, it may be shown.
            if !whole {
                return;
            }
            format!("{uri} {uri:?} {config:?}")
        }
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(!shown.contains(CANARY), "{text} is shown as {shown}");
}
