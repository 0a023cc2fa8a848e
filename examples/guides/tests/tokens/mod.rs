//! The program `oauth2` on a RabbitMQ that takes tokens, signed here.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use amqp_tests::harness::{Broker, Failure, Outcome};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::process::Program;

/// The key that signs tokens: of one block of SHA-256, so that HMAC takes it as it is.
const KEY: [u8; 64] = [7; 64];

/// The seconds for which a token is valid.
const VALID: u64 = 30;

/// A token is valid for half a minute: the program publishes for longer with the next ones, is
/// refused without them, and goes on with a later one.
pub(crate) fn renews_tokens(broker: Broker) -> Outcome {
    take_tokens(&broker)?;
    let file = broker.node.directory().join("token.json");
    write_token(&file)?;
    let path = file.to_string_lossy();
    let url = format!("amqp://{}", broker.node.address());
    let variables = [("AMQP_URL", url.as_str()), ("TOKEN_FILE", path.as_ref())];
    let program = Program::start(env!("CARGO_BIN_EXE_oauth2"), &variables, &[])?;
    program.expect("confirmed")?;
    let connections = || {
        broker
            .node
            .ctl(&["list_connections", "pid", "auth_mechanism"])
    };
    let first = connections()?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2 * VALID + 5) {
        write_token(&file)?;
        program.expect("confirmed")?;
    }
    assert!(first.contains("PLAIN"), "{first}");
    assert_eq!(connections()?, first);
    program.expect_error("ACCESS_REFUSED")?;
    program.skip();
    write_token(&file)?;
    program.expect("confirmed")?;
    Ok(())
}

/// Lets a node take tokens: its plugin, which every package of RabbitMQ has, and the key.
fn take_tokens(broker: &Broker) -> Outcome {
    let enabled = broker.node.directory().join("enabled_plugins");
    fs::write(&enabled, "[rabbitmq_auth_backend_oauth2].\n")?;
    let key = URL_SAFE_NO_PAD.encode(KEY);
    let application = "rabbitmq_auth_backend_oauth2";
    let enabled = enabled.display();
    let commands = [
        // How long a channel remembers that it was permitted to publish.
        "application:set_env(rabbit, channel_tick_interval, 1000).".to_owned(),
        format!("application:load({application})."),
        format!("application:set_env({application}, resource_server_id, <<\"rabbitmq\">>)."),
        format!(
            "application:set_env({application}, key_config, [{{default_key, <<\"key\">>}}, \
             {{signing_keys, #{{<<\"key\">> => {{map, #{{<<\"kty\">> => <<\"oct\">>, \
             <<\"k\">> => <<\"{key}\">>}}}}}}}}])."
        ),
        format!("rabbit_plugins:ensure(\"{enabled}\")."),
    ];
    for command in commands {
        broker.node.ctl(&["eval", &command])?;
    }
    Ok(())
}

/// Writes the response of a token endpoint, whole or not at all.
fn write_token(file: &Path) -> Outcome {
    let token = token()?;
    let response =
        format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{VALID}}}"#);
    let new = file.with_extension("new");
    fs::write(&new, response)?;
    Ok(fs::rename(new, file)?)
}

/// A token (RFC 7519) with all permissions, signed by HS256.
fn token() -> Result<String, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let expires = now + VALID;
    let header = r#"{"alg":"HS256","typ":"JWT","kid":"key"}"#;
    let claims = format!(
        r#"{{"sub":"guide","client_id":"guide","aud":["rabbitmq"],"exp":{expires},"scope":["rabbitmq.read:*/*","rabbitmq.write:*/*","rabbitmq.configure:*/*"]}}"#
    );
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = hmac(signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// HMAC with SHA-256 (RFC 2104).
fn hmac(text: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| KEY.map(|byte| byte ^ pad);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(padded(0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}
