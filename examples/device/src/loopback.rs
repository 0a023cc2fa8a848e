//! Two ports that are joined, with little room.

use alloc::{collections::VecDeque, rc::Rc};
use core::cell::RefCell;

type Line = Rc<RefCell<VecDeque<u8>>>;

/// One end of a line.
#[derive(Debug)]
pub struct Port {
    incoming: Line,
    outgoing: Line,
    room: usize,
}

/// Returns both ends of a line that holds that many bytes each way.
#[must_use]
pub fn loopback(room: usize) -> (Port, Port) {
    let (there, back) = (Line::default(), Line::default());
    let end = |incoming: &Line, outgoing: &Line| Port {
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        room,
    };
    (end(&back, &there), end(&there, &back))
}

impl crate::Port for Port {
    fn read(&mut self, into: &mut [u8]) -> usize {
        let mut line = self.incoming.borrow_mut();
        let count = into.len().min(line.len());
        for (place, byte) in into.iter_mut().zip(line.drain(..count)) {
            *place = byte;
        }
        count
    }

    fn write(&mut self, from: &[u8]) -> usize {
        let mut line = self.outgoing.borrow_mut();
        let count = from.len().min(self.room.saturating_sub(line.len()));
        line.extend(&from[..count]);
        count
    }
}
