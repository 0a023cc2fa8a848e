//! Time, and the bytes between the broker and its clients.

use std::time::Duration;

use amqp_core::{
    Transmit, client,
    frame::{Frame, FrameKind, split_method},
    protocol::Method,
    wire::Encode as _,
};
use bytes::BytesMut;

use super::{Peer, Rig};

/// The bytes of a method frame.
pub(crate) fn frame(channel: u16, method: &Method) -> Vec<u8> {
    let id = method.id();
    let mut payload = BytesMut::new();
    payload.extend_from_slice(&id.class.to_be_bytes());
    payload.extend_from_slice(&id.method.to_be_bytes());
    method.encode(&mut payload);
    let mut bytes = BytesMut::new();
    Frame {
        kind: FrameKind::Method,
        channel,
        payload: &payload,
    }
    .encode(&mut bytes);
    bytes.to_vec()
}

impl Rig {
    /// Moves bytes until nothing is left to move.
    pub(crate) fn exchange(&mut self) {
        let mut out = Transmit::new();
        loop {
            let mut moved = false;
            for peer in &mut self.peers {
                while peer.client.poll_transmit(self.now, &mut out) {}
                for segment in out.take_segments() {
                    peer.to_broker.extend_from_slice(&segment);
                }
                if !peer.to_broker.is_empty() && self.broker.wants_input(peer.key) {
                    let before = peer.to_broker.len();
                    self.broker
                        .handle_input(peer.key, self.now, &mut peer.to_broker);
                    moved |= peer.to_broker.len() < before;
                }
                if !peer.stalled {
                    while self.broker.poll_transmit(peer.key, self.now, &mut out) {}
                    for segment in out.take_segments() {
                        peer.to_client.extend_from_slice(&segment);
                    }
                    if !peer.to_client.is_empty() {
                        let before = peer.to_client.len();
                        peer.client.handle_input(self.now, &mut peer.to_client);
                        moved |= peer.to_client.len() < before;
                    }
                }
                while let Some(event) = peer.client.poll_event() {
                    peer.events.push_back(event);
                }
            }
            while self.broker.poll_wake().is_some() {
                moved = true;
            }
            if self.broker.poll_timeout().is_some_and(|at| at <= self.now) {
                self.broker.handle_timeout(self.now);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets time pass, from deadline to deadline.
    pub(crate) fn advance(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            self.exchange();
            let of_peers = self.peers.iter().flat_map(|peer| {
                let own = peer.client.poll_timeout();
                [own, self.broker.poll_connection_timeout(peer.key)]
            });
            let next = of_peers
                .flatten()
                .map(|(at, _)| at)
                .chain(self.broker.poll_timeout())
                .min()
                .filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            for peer in &mut self.peers {
                peer.client.handle_timeout(self.now);
                self.broker.handle_connection_timeout(peer.key, self.now);
            }
            self.broker.handle_timeout(self.now);
        }
        self.now = end;
        self.broker.handle_timeout(end);
        self.exchange();
    }

    /// Sends a method as it is, past all checks of the client.
    pub(crate) fn inject(&mut self, client: usize, channel: u16, method: impl Into<Method>) {
        let frame = frame(channel, &method.into());
        self.inject_bytes(client, &frame);
    }

    pub(crate) fn inject_bytes(&mut self, client: usize, bytes: &[u8]) {
        self.peers[client].to_broker.extend_from_slice(bytes);
        self.exchange();
    }

    /// A connection with a silent client.
    pub(crate) fn begin_raw(&mut self) -> usize {
        let key = self.broker.accept(self.now).unwrap();
        let client = client::Connection::new(client::Config::default(), self.now).unwrap();
        self.peers.push(Peer::new(client, key));
        self.peers.len() - 1
    }

    /// Sends bytes, and takes the methods that come back without showing them to the client.
    pub(crate) fn ask_raw(&mut self, client: usize, bytes: &[u8]) -> Vec<Method> {
        let key = self.peers[client].key;
        let mut input = BytesMut::from(bytes);
        self.broker.handle_input(key, self.now, &mut input);
        let mut out = Transmit::new();
        while self.broker.poll_transmit(key, self.now, &mut out) {}
        let mut said = BytesMut::new();
        for segment in out.take_segments() {
            said.extend_from_slice(&segment);
        }
        let mut rest = &said[..];
        let mut methods = Vec::new();
        while let Some(frame) = Frame::parse(rest, u32::MAX).unwrap() {
            if frame.kind == FrameKind::Method {
                let (id, arguments) = split_method(frame.payload).unwrap();
                methods.push(Method::decode(id, arguments).unwrap());
            }
            rest = &rest[frame.len()..];
        }
        methods
    }
}
