//! A netlink socket for those who ask and wait for the answer.

use std::{io, marker::PhantomData};

use anyhow::{Context as _, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::libc::MSG_DONTWAIT;

/// As much as the kernel puts into one answer (`netlink_recvmsg`, net/netlink/af_netlink.c).
const ANSWER: usize = 32 * 1024;

/// A connection to one of the kernel's netlink protocols, whose messages are `M`, in the network namespace
/// that it was opened in. The kernel answers before the system call that asks returns, so nothing here waits.
#[derive(Debug)]
pub struct Connection<M> {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    messages: PhantomData<M>,
}

impl<M: NetlinkSerializable + NetlinkDeserializable> Connection<M> {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// The kernel does not have this protocol, or refuses.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Refusals without the request in them.
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(ANSWER),
            messages: PhantomData,
        })
    }

    /// Sends requests, at least one, in one piece, the last of them to be answered in any case. Returns the
    /// first one's sequence number; the others' follow.
    pub fn send(&mut self, flags: u16, requests: Vec<NetlinkMessage<M>>) -> anyhow::Result<u32> {
        let first = self.sequence;
        let last = first.wrapping_add(requests.len() as u32 - 1);
        let mut bytes = Vec::new();
        for mut request in requests {
            let header = &mut request.header;
            header.sequence_number = self.sequence;
            header.flags = NLM_F_REQUEST | flags;
            if self.sequence == last {
                header.flags |= NLM_F_ACK;
            }
            self.sequence = self.sequence.wrapping_add(1);
            request.finalize();
            let start = bytes.len();
            bytes.resize(start + request.buffer_len(), 0);
            request.serialize(&mut bytes[start..]);
        }
        self.socket
            .send(&bytes, 0)
            .context("cannot send to the kernel")?;
        Ok(first)
    }

    /// Takes what the kernel has answered.
    pub fn receive(&mut self, mut visit: impl FnMut(&NetlinkMessage<M>)) -> anyhow::Result<()> {
        self.buffer.clear();
        // Its answers are there already: were there none, none would come.
        self.socket
            .recv(&mut self.buffer, MSG_DONTWAIT)
            .context("the kernel does not answer")?;
        let mut rest = &self.buffer[..];
        while !rest.is_empty() {
            let message =
                NetlinkMessage::deserialize(rest).context("an answer that makes no sense")?;
            // Messages begin at multiples of four.
            let length = (message.header.length as usize).next_multiple_of(4);
            if length == 0 {
                bail!("an answer of no length");
            }
            visit(&message);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }
}
