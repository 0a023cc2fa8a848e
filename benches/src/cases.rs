//! The cases that are measured in time.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use crate::clock::Sample;
use crate::load::MANY_CHANNELS;
use crate::machine::Machine;
use crate::{Result, embedded, ours, peer_amqprs, peer_lapin, raw};

/// Something that is measured: so many messages, against the server at a port.
#[derive(Debug)]
pub(crate) struct Case {
    /// The load, then the client.
    pub(crate) name: &'static str,
    pub(crate) run: fn(port: u16, count: u64) -> Result<Sample>,
}

/// All of them. Tokio has as many threads as there are cores, as in `#[tokio::main]`, where the
/// name does not say otherwise.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "publish/raw socket",
        run: raw::publish,
    },
    Case {
        name: "publish/amqp-tokio",
        run: |port, count| threads(ours::publish(port, 1, count)),
    },
    Case {
        name: "publish/amqp-tokio, 1 thread",
        run: |port, count| thread(ours::publish(port, 1, count)),
    },
    Case {
        name: "publish/lapin, loop",
        run: |port, count| threads(peer_lapin::publish(port, 1, count)),
    },
    Case {
        name: "publish/lapin, loop, 1 thread",
        run: |port, count| thread(peer_lapin::publish(port, 1, count)),
    },
    Case {
        name: "publish/lapin, 1000 in flight",
        run: |port, count| threads(peer_lapin::publish_in_flight(port, 1, count)),
    },
    Case {
        name: "publish/lapin, 1000 tasks",
        run: |port, count| threads(peer_lapin::publish_in_tasks(port, 1, count)),
    },
    Case {
        name: "publish/amqprs",
        run: |port, count| threads(peer_amqprs::publish(port, 1, count)),
    },
    Case {
        name: "publish on 1000 channels/amqp-tokio",
        run: |port, count| threads(ours::publish(port, MANY_CHANNELS, count)),
    },
    Case {
        name: "publish on 1000 channels/lapin, 1000 tasks",
        run: |port, count| threads(peer_lapin::publish_in_tasks(port, MANY_CHANNELS, count)),
    },
    Case {
        name: "publish confirmed, 1000 in flight/amqp-tokio",
        run: |port, count| threads(ours::publish_confirmed(port, count)),
    },
    Case {
        name: "publish confirmed, 1000 in flight/lapin",
        run: |port, count| threads(peer_lapin::publish_confirmed(port, count)),
    },
    Case {
        name: "deliver/raw socket",
        run: raw::consume,
    },
    Case {
        name: "deliver/amqp-tokio",
        run: |port, count| threads(ours::consume(port, 1, count)),
    },
    Case {
        name: "deliver/amqp-tokio, 1 thread",
        run: |port, count| thread(ours::consume(port, 1, count)),
    },
    Case {
        name: "deliver/lapin",
        run: |port, count| threads(peer_lapin::consume(port, 1, count)),
    },
    Case {
        name: "deliver/lapin, 1 thread",
        run: |port, count| thread(peer_lapin::consume(port, 1, count)),
    },
    Case {
        name: "deliver/amqprs",
        run: |port, count| threads(peer_amqprs::consume(port, 1, count)),
    },
    Case {
        name: "deliver on 1 of 1000 channels/amqp-tokio",
        run: |port, count| threads(ours::consume(port, MANY_CHANNELS, count)),
    },
    Case {
        name: "deliver on 1 of 1000 channels/lapin",
        run: |port, count| threads(peer_lapin::consume(port, MANY_CHANNELS, count)),
    },
    Case {
        name: "publish, deliver and ack/embedded broker, 1 thread",
        run: |_, count| thread(embedded::round(count)),
    },
    Case {
        name: "core publish/1 channel",
        run: |_, count| Machine::open(1, false)?.publish(count),
    },
    Case {
        name: "core publish/1000 channels",
        run: |_, count| Machine::open(MANY_CHANNELS, false)?.publish(count),
    },
    Case {
        name: "core deliver/1 channel",
        run: |_, count| Machine::open(1, true)?.receive(1, count),
    },
    Case {
        name: "core deliver/1 of 1000 channels",
        run: |_, count| Machine::open(MANY_CHANNELS, true)?.receive(1, count),
    },
    Case {
        name: "core deliver/1000 channels",
        run: |_, count| Machine::open(MANY_CHANNELS, true)?.receive(MANY_CHANNELS.into(), count),
    },
];

fn threads<F: Future<Output = Result<Sample>>>(run: F) -> Result<Sample> {
    runtime()?.block_on(run)
}

fn thread<F: Future<Output = Result<Sample>>>(run: F) -> Result<Sample> {
    Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run)
}

/// The runtime of `#[tokio::main]`.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;
    use crate::sink;

    #[test]
    fn every_case_passes_its_messages() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || sink::accept(&listener));
        for case in CASES {
            let sample =
                (case.run)(port, 2000).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert!(sample.messages >= 2000, "{}", case.name);
        }
    }
}
