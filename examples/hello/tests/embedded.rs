//! The program on the embedded broker.

use std::{io, process::Command};

#[test]
fn three_messages_come_back() -> io::Result<()> {
    let mut hello = Command::new(env!("CARGO_BIN_EXE_amqp-hello"));
    let output = hello.env_remove("AMQP_URL").output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for number in 1..=3 {
        let message = format!("Hello World! ({number})");
        assert_eq!(printed.matches(&message).count(), 2, "{printed}");
    }
    Ok(())
}
