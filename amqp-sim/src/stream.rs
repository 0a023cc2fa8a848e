//! The byte streams of the simulated network.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_driver::{core::Transmit, io::Transport};
use amqp_embedded::broker::Direction;
use bytes::{Buf as _, BytesMut};

use crate::{
    flow::End,
    network::{ConnId, Written, lane_of, opposite},
    world::Shared,
};

/// One end of a connection of the simulated network. Dropping it ends both directions.
#[derive(Debug)]
pub struct SimStream {
    shared: Arc<Shared>,
    conn: ConnId,
    /// The direction in which this end sends.
    output: Direction,
}

impl SimStream {
    pub(crate) const fn new(shared: Arc<Shared>, conn: ConnId, output: Direction) -> Self {
        Self {
            shared,
            conn,
            output,
        }
    }
}

impl Transport for SimStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let (now, waker) = (self.shared.now(), cx.waker().clone());
        let room = buf.capacity() - buf.len();
        let (conn, input) = (self.conn, opposite(self.output));
        let read = self.shared.with(|world, later| {
            let read = world.read(conn, input, now, room, waker, later);
            world.network.moved += u64::from(read.is_some());
            read
        });
        match read {
            None => Poll::Pending,
            Some(Ok(bytes)) => {
                buf.extend_from_slice(&bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    fn is_inline(&self) -> bool {
        true
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        let (now, waker) = (self.shared.now(), cx.waker().clone());
        let (conn, output) = (self.conn, self.output);
        let len = out.len();
        let copy = |count: usize| {
            let mut bytes = Vec::with_capacity(count);
            for segment in out.segments() {
                let room = count - bytes.len();
                bytes.extend_from_slice(&segment[..segment.len().min(room)]);
            }
            bytes
        };
        let written = self.shared.with(|world, later| {
            let written = world.write(conn, output, now, len, copy, later);
            match (&written, world.network.conns.get_mut(&conn)) {
                (Written::Full, Some(conn)) => {
                    later.drop(conn.flows[lane_of(output)].wait_for_room(waker));
                }
                (Written::Count(_), _) => world.network.moved += 1,
                _ => {}
            }
            written
        });
        match written {
            Written::Count(count) => {
                out.advance(count);
                Poll::Ready(Ok(count))
            }
            Written::Full => Poll::Pending,
            Written::Refused(kind) => Poll::Ready(Err(kind.into())),
        }
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (now, conn, output) = (self.shared.now(), self.conn, self.output);
        self.shared
            .with(|world, later| world.shut(conn, output, now, End::Eof, later));
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let (now, conn, output) = (self.shared.now(), self.conn, self.output);
        self.shared
            .with(|world, later| world.drop_end(conn, output, now, later));
    }
}
