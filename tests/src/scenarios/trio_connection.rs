//! trio_amqp: connections.

use amqp_tokio::{Error, core::protocol::ReplyCode, wire::FieldValue};

use super::{
    Case, case, cases,
    tools::{assert_connection_closed, open, own_queue},
};
use crate::{context::Ctx, harness::Outcome, relay::Relay};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        tri_01_defaults_connect,
        tri_02_the_lesser_limits_hold,
        tri_04_client_properties_reach_the_server,
        tri_05_an_unknown_vhost_is_refused,
        tri_06_a_wrong_login_is_refused,
        tri_09_closing_twice_is_closing_once,
    ];
    cases.push(
        case!(tri_02_limits_that_are_asked_for_hold)
            .alone(&["heartbeat = 120"])
            .embedded(|config| config.server.heartbeat = 120),
    );
    cases
}

/// Given defaults, when connected, then the state is open and server_properties are present.
async fn tri_01_defaults_connect(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    assert!(connection.is_open());
    let properties = connection.server_properties();
    let product = properties.get("product").and_then(FieldValue::as_str);
    assert_eq!(product, Some("RabbitMQ"));
    for capability in [
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "exchange_exchange_bindings",
        "authentication_failure_close",
    ] {
        assert!(connection.has_capability(capability), "{capability}");
    }
    assert!(!connection.has_capability("telepathy"));
    Ok(connection.close().await?)
}

/// Given channel_max=10, frame_max=131072, heartbeat=100, when connected, then exactly those are
/// negotiated; after the scope the state is closed.
async fn tri_02_limits_that_are_asked_for_hold(cx: Ctx) -> Outcome {
    let connection = cx
        .connect_asking("channel_max=10&frame_max=131072&heartbeat=100")
        .await?;
    let tuning = connection.tuning();
    assert_eq!(
        (tuning.channel_max, tuning.frame_max, tuning.heartbeat),
        (10, 131_072, 100)
    );
    connection.close().await?;
    assert!(!connection.is_open());
    Ok(())
}

/// The server's limits hold where they are lower: RabbitMQ offers 2047 channels and frames of 131,072
/// bytes. The heartbeat of 60 s that it suggests holds if none is asked for.
async fn tri_02_the_lesser_limits_hold(cx: Ctx) -> Outcome {
    for (asked, negotiated) in [
        ("channel_max=10&frame_max=8192&heartbeat=20", (10, 8192, 20)),
        (
            "channel_max=65535&frame_max=1000000&heartbeat=100",
            (2047, 131_072, 100),
        ),
        ("channel_max=0&frame_max=0&heartbeat=0", (2047, 131_072, 0)),
        ("", (2047, 131_072, 60)),
    ] {
        let connection = cx.connect_asking(asked).await?;
        let tuning = connection.tuning();
        assert_eq!(
            (tuning.channel_max, tuning.frame_max, tuning.heartbeat),
            negotiated,
            "{asked}"
        );
        let channel = connection.open_channel().await?;
        own_queue(&channel).await?;
        connection.close().await?;
    }
    Ok(())
}

/// Given client_properties {program, version}, when connected, then they reach the server.
async fn tri_04_client_properties_reach_the_server(cx: Ctx) -> Outcome {
    let connection = cx
        .connect_to(&cx.uri, |config| {
            let mut tell = |name: &'static str, value: &str| {
                let name = name.try_into().expect("a short name");
                config.properties.insert(name, value);
            };
            tell("program", "tri_04");
            tell("version", "1.2.3");
        })
        .await?;
    let told = cx.client_properties().await?;
    for (name, value) in [
        ("program", "tri_04"),
        ("version", "1.2.3"),
        ("product", "amqp-core"),
        ("platform", "Rust"),
        ("consumer_cancel_notify", "true"),
        ("connection.blocked", "true"),
    ] {
        assert_eq!(told.get(name).map(String::as_str), Some(value), "{name}");
    }
    Ok(connection.close().await?)
}

/// Given an unknown virtual host, then the connection is closed at connect.
async fn tri_05_an_unknown_vhost_is_refused(cx: Ctx) -> Outcome {
    let error = cx.refusal(&format!("{}-not", cx.uri)).await?;
    assert_connection_closed(&error, ReplyCode::NOT_ALLOWED);
    assert!(error.to_string().contains(&cx.vhost), "{error}");
    Ok(())
}

/// Given a wrong login or password, then the connection is closed at connect.
async fn tri_06_a_wrong_login_is_refused(cx: Ctx) -> Outcome {
    for login in ["guest:Tr0ub4dor", "Tr0ub4dor:guest", "guest:", ":"] {
        for mechanism in ["PLAIN", "AMQPLAIN"] {
            let uri = cx.uri.replace("guest:guest", login);
            let error = cx
                .refusal(&format!("{uri}?auth_mechanism={mechanism}"))
                .await?;
            assert_connection_closed(&error, ReplyCode::ACCESS_REFUSED);
            // What was tried is told to nobody.
            assert!(!format!("{error:?} {error}").contains("Tr0ub4dor"));
        }
    }
    // And the right ones are not.
    for mechanism in ["PLAIN", "AMQPLAIN"] {
        let connection = cx
            .connect_asking(&format!("auth_mechanism={mechanism}"))
            .await?;
        connection.close().await?;
    }
    Ok(())
}

/// Given an open connection, when closed twice, then the second is a no-op; what drove it has ended
/// and the socket is closed.
async fn tri_09_closing_twice_is_closing_once(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
    let mark = cx.mark(&connection).await?;
    connection.close().await?;
    let sent = relay.to_broker();
    connection.close().await?;
    connection.clone().close().await?;
    cx.until("the client has hung up", || relay.hung_up() == 1)
        .await?;
    assert_eq!(relay.to_broker(), sent);
    let reason = connection.close_reason().ok_or("closed without a reason")?;
    let error = connection.open_channel().await.expect_err("it is closed");
    assert_eq!(error, Error::ConnectionClosed(reason));
    cx.gone(&mark).await?;

    // The same at once, by two handles.
    let (connection, _channel) = open(&cx).await?;
    let other = connection.clone();
    let (first, second) = crate::context::join(connection.close(), other.close()).await;
    Ok(first.and(second)?)
}
