//! Calls in both directions over one link: Bob serves an object to Alice, and calls her back meanwhile.
//!
//! ```text
//! cargo run -q -p amqp-peer --example calls
//! ```

use std::{error::Error, time::Duration};

use amqp_peer::{
    Config, Connect, Listen,
    rpc::{CallError, Failure, Json, Proxy},
};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    // Events that are neither taken nor dropped hold up calls in the end.
    let (bob, events) = amqp_peer::tokio::start(Config::new("bob")?)?;
    drop(events);
    let (alice, events) = amqp_peer::tokio::start(Config::new("alice")?)?;
    drop(events);

    // Bob calculates, and asks Alice for her permission before.
    let permits: Proxy<Json> = bob.rpc().proxy("alice".parse()?, "permits");
    let calc = bob.rpc().object("calc");
    calc.method("divide", move |(a, b): (i64, i64)| {
        let permits = permits.clone();
        async move {
            let is_permitted: bool = permits.call("ask", ("divide",)).await?;
            if !is_permitted {
                return Err(Failure::new("Forbidden", "the caller does not permit it"));
            }
            a.checked_div(b)
                .ok_or_else(|| Failure::new("Range", "division by zero"))
        }
    });
    calc.signal("log", async |text: String| {
        println!("bob: {text}");
        Ok::<_, Failure>(())
    });

    // Alice serves, too: who listens has nothing to do with who is called.
    let ask = async |(method,): (String,)| Ok::<_, Failure>(method == "divide");
    alice.rpc().object("permits").method("ask", ask);

    // The call may be made before there is a link: it waits for Bob, a minute at most.
    let calc: Proxy<Json> = alice.rpc().proxy("bob".parse()?, "calc");
    let calc = calc.timeout(Duration::from_secs(60));
    let early = tokio::spawn({
        let calc = calc.clone();
        async move { calc.call::<_, i64>("divide", (84, 2)).await }
    });

    let listening = bob.add_listener(Listen::tcp("127.0.0.1:0")).await?;
    let port = listening.port().ok_or("no port")?;
    alice.add_connector(Connect::tcp("127.0.0.1", port));
    println!("84 / 2 = {}", early.await??);

    match calc.call::<_, i64>("divide", (1, 0)).await {
        Err(CallError::Remote(error)) => println!("1 / 0: {} ({})", error.message, error.kind),
        other => return Err(format!("not a remote error: {other:?}").into()),
    }
    // A signal has no result; it is dropped unless it can be sent now.
    calc.signal("log", "that was all")?;
    alice.stop().await;
    bob.stop().await;
    Ok(())
}
