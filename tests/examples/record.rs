//! A TCP proxy that records the bytes of both directions.
//!
//! ```text
//! cargo run -p amqp-tests --example record -- --listen PORT --to HOST:PORT --out DIRECTORY
//! ```
//!
//! Connections to `PORT` of the loopback interface (0: any free one, which it prints) are passed on
//! to `HOST:PORT`. The bytes of the client of the Nth connection are in the directory's `N.c2s`,
//! those of the server in `N.s2c`, from the moment at which they are passed on. It runs until it is
//! killed.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::{env, thread};

const USAGE: &str = "record --listen PORT --to HOST:PORT --out DIRECTORY";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let option = |name: &str| {
        let pairs = arguments.chunks_exact(2);
        let mut values = pairs.filter(|pair| pair[0] == name);
        values.next().map(|pair| pair[1].as_str()).ok_or(USAGE)
    };
    let to = option("--to")?.to_owned();
    let directory = Path::new(option("--out")?);
    fs::create_dir_all(directory)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, option("--listen")?.parse::<u16>()?))?;
    println!("listening on {}", listener.local_addr()?);

    for (number, client) in (1..).zip(listener.incoming()) {
        let client = client?;
        let server = TcpStream::connect(&to)?;
        for (from, to, ending) in [(&client, &server, "c2s"), (&server, &client, "s2c")] {
            let record = File::create_new(directory.join(format!("{number}.{ending}")))?;
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            thread::spawn(move || {
                match pass(&from, &to, record) {
                    // RabbitMQ ends every connection with a reset.
                    Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
                        eprintln!("{number}.{ending}: {error}");
                    }
                    _ => {}
                }
                // The other side may be gone.
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
    Ok(())
}

/// Relays and records bytes, until the end.
fn pass(mut from: &TcpStream, mut to: &TcpStream, mut record: File) -> io::Result<()> {
    from.set_nodelay(true)?;
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        record.write_all(&buffer[..length])?;
        to.write_all(&buffer[..length])?;
    }
}
