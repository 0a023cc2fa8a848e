//! The kernel by io_uring.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use amqp_core::{Transmit, bytes::BytesMut};
use io_uring::{IoUring, opcode, squeue, types};

use crate::{Done, Kernel};

/// The numbers of the operations in flight.
const READ: u64 = 0;
const WRITE: u64 = 1;
/// The number of segments of one write.
const SEGMENTS: usize = 64;

/// A ring for one socket.
pub(crate) struct Uring {
    ring: IoUring,
    socket: TcpStream,
    /// `Some` while a read is in flight. Invariant of both: the kernel has pointers into them, so
    /// they are neither changed nor dropped before the completion.
    reading: Option<BytesMut>,
    /// `Some` while a write is in flight: the output, and the list of its segments.
    writing: Option<(Transmit, Vec<libc::iovec>)>,
}

impl Uring {
    /// Fails where the kernel has no io_uring, or refuses it to this process.
    pub(crate) fn new(socket: TcpStream) -> io::Result<Self> {
        let ring = IoUring::new(4)?;
        if !ring.params().is_feature_ext_arg() {
            let message = "waiting with a timeout needs Linux 5.11";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        Ok(Self {
            ring,
            socket,
            reading: None,
            writing: None,
        })
    }

    fn socket(&self) -> types::Fd {
        types::Fd(self.socket.as_raw_fd())
    }

    #[expect(unsafe_code, reason = "an entry has pointers into its buffer")]
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the socket and the buffers belong to `self`, and `drop` waits for the completion.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)
    }

    #[expect(unsafe_code, reason = "the kernel has filled a buffer")]
    fn completed(&mut self) -> Option<Done> {
        let entry = self.ring.completion().next()?;
        let result = match usize::try_from(entry.result()) {
            Ok(count) => Ok(count),
            Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
        };
        if entry.user_data() == READ {
            let mut buffer = self.reading.take()?;
            return Some(Done::Read(result.map(|count| {
                // SAFETY: the kernel has written so many bytes at the start of the spare capacity.
                unsafe { buffer.set_len(buffer.len() + count) };
                buffer
            })));
        }
        let (output, _segments) = self.writing.take()?;
        Some(Done::Written(output, result))
    }
}

impl Kernel for Uring {
    fn read(&mut self, mut buffer: BytesMut) -> io::Result<()> {
        let spare = buffer.spare_capacity_mut();
        let len = u32::try_from(spare.len()).unwrap_or(u32::MAX);
        let pointer = spare.as_mut_ptr().cast();
        self.reading = Some(buffer);
        let entry = opcode::Recv::new(self.socket(), pointer, len).build();
        self.push(&entry.user_data(READ))
    }

    fn write(&mut self, output: Transmit) -> io::Result<()> {
        let segments: Vec<_> = output
            .segments()
            .take(SEGMENTS)
            .map(|segment| libc::iovec {
                iov_base: segment.as_ptr().cast_mut().cast(),
                iov_len: segment.len(),
            })
            .collect();
        let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
        let entry = opcode::Writev::new(self.socket(), segments.as_ptr(), count).build();
        self.writing = Some((output, segments));
        self.push(&entry.user_data(WRITE))
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<Done>> {
        if let Some(done) = self.completed() {
            return Ok(Some(done));
        }
        let submitted = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let timeout = types::Timespec::from(timeout);
                let arguments = types::SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
        };
        match submitted {
            Ok(_) => Ok(self.completed()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {
                Ok(self.completed())
            }
            Err(error) => Err(error),
        }
    }
}

/// Ends the operations in flight, and gets their buffers back.
impl Drop for Uring {
    fn drop(&mut self) {
        let _not_connected = self.socket.shutdown(Shutdown::Both);
        while self.reading.is_some() || self.writing.is_some() {
            let waited = self.ring.submit_and_wait(1);
            while self.completed().is_some() {}
            if waited.is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
                // The kernel may still write: memory that is lost is better than one in use twice.
                std::mem::forget((self.reading.take(), self.writing.take()));
            }
        }
    }
}
