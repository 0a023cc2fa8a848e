//! puka: connections.

use std::{io::ErrorKind, net::TcpListener};

use amqp_tokio::{Config, Error, core::CloseCause, wire::FieldTable};

use super::{Case, cases};
use crate::{context::Ctx, harness::Outcome};

pub(super) fn cases() -> Vec<Case> {
    cases![puk_03_a_server_that_just_hangs_up_has_refused_the_password]
}

/// Leaves out that this client understands being told why.
fn expect_no_reason(config: &mut Config) {
    let capabilities = "capabilities".try_into().expect("a short name");
    config.properties.insert(capabilities, FieldTable::new());
}

/// Given a wrong password, and no capability `authentication_failure_close`, then the server hangs
/// up without a word (RabbitMQ after 3 s, with a reset); that is an authentication failure, and the
/// next host is not asked.
async fn puk_03_a_server_that_just_hangs_up_has_refused_the_password(cx: Ctx) -> Outcome {
    let next = TcpListener::bind("127.0.0.1:0")?;
    next.set_nonblocking(true)?;
    let hosts = format!("{},{}", cx.address, next.local_addr()?);
    let uri = cx.uri.replace(&cx.address.to_string(), &hosts);
    for mechanism in ["PLAIN", "AMQPLAIN"] {
        let uri = uri.replace("guest:guest", "guest:Tr0ub4dor");
        let uri = format!("{uri}?auth_mechanism={mechanism}");
        let refused = cx.connect_to(&uri, expect_no_reason).await;
        let error = *refused.expect_err("it is refused").downcast::<Error>()?;
        let Error::ConnectionClosed(reason) = &error else {
            panic!("{error:?}");
        };
        match reason.cause() {
            CloseCause::AuthenticationFailed { why, close: None } => {
                assert!(why.contains("hung up"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert!(!format!("{error:?} {error}").contains("Tr0ub4dor"));
    }
    let asked = next.accept().expect_err("nobody asked");
    assert_eq!(asked.kind(), ErrorKind::WouldBlock);
    // With the right one there is nothing to be told.
    Ok(cx
        .connect_to(&cx.uri, expect_no_reason)
        .await?
        .close()
        .await?)
}
