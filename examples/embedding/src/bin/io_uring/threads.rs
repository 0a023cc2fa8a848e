//! Two threads in place of the kernel: each waits in its own system call.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use amqp_core::{
    Transmit,
    bytes::{Buf as _, BytesMut},
};

use crate::{Done, Kernel};

/// A thread that reads, and one that writes.
pub(crate) struct Threads {
    socket: TcpStream,
    to_read: Sender<BytesMut>,
    to_write: Sender<Transmit>,
    done: Receiver<Done>,
}

impl Threads {
    pub(crate) fn new(socket: TcpStream) -> io::Result<Self> {
        let (to_read, buffers) = channel::<BytesMut>();
        let (to_write, outputs) = channel::<Transmit>();
        let (done, completed) = channel();
        let (mut source, mut sink) = (socket.try_clone()?, socket.try_clone()?);
        let read = done.clone();
        thread::spawn(move || {
            for mut buffer in buffers {
                buffer.resize(buffer.capacity(), 0);
                let result = source.read(&mut buffer).map(|count| {
                    buffer.truncate(count);
                    buffer
                });
                if read.send(Done::Read(result)).is_err() {
                    return;
                }
            }
        });
        thread::spawn(move || {
            for output in outputs {
                let written = sink.write(output.chunk());
                if done.send(Done::Written(output, written)).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            socket,
            to_read,
            to_write,
            done: completed,
        })
    }
}

impl Kernel for Threads {
    fn read(&mut self, buffer: BytesMut) -> io::Result<()> {
        self.to_read.send(buffer).map_err(|_| has_ended())
    }

    fn write(&mut self, output: Transmit) -> io::Result<()> {
        self.to_write.send(output).map_err(|_| has_ended())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<Done>> {
        let done = match timeout {
            Some(timeout) => self.done.recv_timeout(timeout),
            None => self.done.recv().map_err(RecvTimeoutError::from),
        };
        match done {
            Ok(done) => Ok(Some(done)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(has_ended()),
        }
    }
}

fn has_ended() -> io::Error {
    io::Error::other("a thread has ended")
}

/// Ends the system calls of the threads, and by that the threads.
impl Drop for Threads {
    fn drop(&mut self) {
        let _not_connected = self.socket.shutdown(Shutdown::Both);
    }
}
