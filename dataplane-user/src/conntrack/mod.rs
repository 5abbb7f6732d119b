//! Conntrack's table of conversations, over ctnetlink.
//!
//! | module | its job |
//! |---|---|
//! | [`entry`] | a conversation as conntrack knows it |
//! | [`message`] | entries as ctnetlink's messages, and back |
//! | [`sysctls`] | conntrack's time-outs and other settings |
//!
//! Everything here waits for the kernel and belongs on a blocking thread. The kernel answers before a
//! request's system call returns, so nothing here ever waits for long.

pub mod entry;
pub mod message;
pub mod sysctls;

use anyhow::Context as _;
use dataplane_common::headers::IpProtocol;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterMessage, NetfilterMessageInner,
    conntrack::{ConntrackAttribute, ConntrackMessage},
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::{errno::Errno, libc};

pub use entry::{Entry, Status, TcpState, Tuple};
use message::Message;

use crate::{firewall::Family, netlink::connection::Connection};

/// Requests that go to the kernel in one piece. Were all refused, their answers would still fit into a
/// socket's buffer of default size (212,992 bytes, about 1 KiB of which each takes).
const BATCH: usize = 128;

/// What has become of a request about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// It has been so before: to be created, the same translation is there already; to be deleted, there
    /// is no such entry.
    Unchanged,
    /// The kernel refuses. `EEXIST`: one of the tuples belongs to another conversation, or to this one
    /// with another translation. `ENOMEM`: the table is full.
    Refused(Errno),
}

/// A connection to the kernel's ctnetlink of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Conntrack {
    connection: Connection<NetfilterMessage>,
}

impl Conntrack {
    /// Opens the connection. None if this network namespace has no conntrack, or the kernel no
    /// ctnetlink.
    ///
    /// # Errors
    ///
    /// It is there and refuses.
    pub fn open() -> anyhow::Result<Option<Self>> {
        // Asking ctnetlink itself would make the kernel load conntrack.
        if !sysctls::is_there() {
            return Ok(None);
        }
        let connection = match Connection::open(NETLINK_NETFILTER) {
            Ok(connection) => connection,
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(None),
            Err(error) => return Err(error).context("cannot reach conntrack over netlink"),
        };
        let mut conntrack = Self { connection };
        let nobody = std::net::SocketAddr::from(([0; 4], 0));
        let nothing = Tuple {
            source: nobody,
            destination: nobody,
        };
        match conntrack.ask(IpProtocol::TCP, nothing)? {
            // What nfnetlink says of subsystems that it does not have.
            Err(Errno::EINVAL) => Ok(None),
            Ok(_) | Err(Errno::ENOENT) => Ok(Some(conntrack)),
            Err(errno) => Err(errno).context("cannot ask conntrack: run as root"),
        }
    }

    /// Visits every entry of `family`, as they are read: the table may be large. What comes or goes
    /// meanwhile may be missed, or seen twice.
    ///
    /// # Errors
    ///
    /// The kernel ends the list early.
    pub fn dump(&mut self, family: Family, mut visit: impl FnMut(Entry)) -> anyhow::Result<()> {
        let first = self
            .connection
            .send(NLM_F_DUMP, vec![message::list(family)])?;
        let mut result = None;
        while result.is_none() {
            self.connection
                .receive(|message| {
                    if message.header.sequence_number != first {
                        return;
                    }
                    match &message.payload {
                        NetlinkPayload::InnerMessage(inner) => {
                            attributes(&inner.inner)
                                .and_then(message::entry)
                                .map(&mut visit);
                        }
                        NetlinkPayload::Done(done) => result = Some(errno(done.code)),
                        NetlinkPayload::Error(error) => result = Some(errno(error.raw_code())),
                        _ => {}
                    }
                })
                .context("cannot list conntrack's entries")?;
        }
        match result.flatten() {
            Some(errno) => Err(errno).context("cannot list conntrack's entries"),
            None => Ok(()),
        }
    }

    /// The entry whose tuple, in either direction, this is.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn find(&mut self, protocol: IpProtocol, tuple: Tuple) -> anyhow::Result<Option<Entry>> {
        match self.ask(protocol, tuple)? {
            Ok(entry) => Ok(entry),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).context("cannot ask conntrack for an entry"),
        }
    }

    /// Creates entries, and tells of each what has become of it, in their order. Tuples, timeout, TCP
    /// state and the status bits but those of translations are taken from the entry; TCP connections are
    /// created liberal about windows, in both directions.
    ///
    /// An entry is made also where conntrack is not at work: it sees packets of this network namespace only
    /// as long as some rule needs it.
    ///
    /// # Errors
    ///
    /// The connection to the kernel fails. Some entries may have been created, of which nothing was told.
    pub fn insert(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        mut told: impl FnMut(&Entry, Outcome),
    ) -> anyhow::Result<()> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.in_batches(
            entries,
            flags,
            message::create,
            |conntrack, entry, refusal| {
                let outcome = match refusal {
                    None => Outcome::Done,
                    Some(Errno::EEXIST) => {
                        let there = conntrack.find(entry.protocol, entry.original)?;
                        let same = |there: &Entry| {
                            there.original == entry.original && there.reply == entry.reply
                        };
                        if there.as_ref().is_some_and(same) {
                            Outcome::Unchanged
                        } else {
                            Outcome::Refused(Errno::EEXIST)
                        }
                    }
                    Some(errno) => Outcome::Refused(errno),
                };
                told(entry, outcome);
                Ok(())
            },
        )
        .context("cannot create conntrack's entries")
    }

    /// Gives entries that are there their time-outs anew and makes TCP connections established and liberal
    /// about windows, by their original tuple. One that is not there any more is passed over.
    ///
    /// # Errors
    ///
    /// As [`Self::insert`].
    pub fn refresh(&mut self, entries: impl IntoIterator<Item = Entry>) -> anyhow::Result<()> {
        self.in_batches(entries, 0, message::refresh, |_, _, _| Ok(()))
            .context("cannot refresh conntrack's entries")
    }

    /// Deletes entries, by their original tuple, and tells of each what has become of it, in their
    /// order.
    ///
    /// # Errors
    ///
    /// As [`Self::insert`].
    pub fn delete(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        mut told: impl FnMut(&Entry, Outcome),
    ) -> anyhow::Result<()> {
        let request = |entry: &Entry| message::delete(entry.protocol, entry.original);
        self.in_batches(entries, 0, request, |_, entry, refusal| {
            told(
                entry,
                match refusal {
                    None => Outcome::Done,
                    Some(Errno::ENOENT) => Outcome::Unchanged,
                    Some(errno) => Outcome::Refused(errno),
                },
            );
            Ok(())
        })
        .context("cannot delete conntrack's entries")
    }

    /// Sends a request for each entry, many at a time, and tells of each whether it was refused.
    fn in_batches(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        flags: u16,
        request: impl Fn(&Entry) -> Message,
        mut told: impl FnMut(&mut Self, &Entry, Option<Errno>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut entries = entries.into_iter();
        loop {
            let batch: Vec<Entry> = entries.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let requests = batch.iter().map(&request).collect();
            // Refusals come by themselves. That the last request is answered in any case tells that the
            // others, which the kernel takes one after another, have been granted.
            let first = self.connection.send(flags, requests)?;
            let mut refusals = vec![None; batch.len()];
            let mut is_last_answered = false;
            while !is_last_answered {
                self.connection.receive(|message| {
                    let index = message.header.sequence_number.wrapping_sub(first) as usize;
                    if let NetlinkPayload::Error(error) = &message.payload
                        && let Some(refusal) = refusals.get_mut(index)
                    {
                        *refusal = errno(error.raw_code());
                        is_last_answered |= index + 1 == batch.len();
                    }
                })?;
            }
            for (entry, refusal) in batch.iter().zip(refusals) {
                told(self, entry, refusal)?;
            }
        }
    }

    /// Asks for one entry; none if it is of another zone.
    fn ask(
        &mut self,
        protocol: IpProtocol,
        tuple: Tuple,
    ) -> anyhow::Result<Result<Option<Entry>, Errno>> {
        let first = self
            .connection
            .send(0, vec![message::get(protocol, tuple)])?;
        let mut found = Ok(None);
        let mut is_answered = false;
        while !is_answered {
            self.connection.receive(|message| {
                if message.header.sequence_number != first {
                    return;
                }
                match &message.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        found = Ok(attributes(&inner.inner).and_then(message::entry));
                    }
                    NetlinkPayload::Error(error) => {
                        if let Some(errno) = errno(error.raw_code()) {
                            found = Err(errno);
                        }
                        is_answered = true;
                    }
                    _ => {}
                }
            })?;
        }
        Ok(found)
    }
}

fn attributes(inner: &NetfilterMessageInner) -> Option<&[ConntrackAttribute]> {
    match inner {
        NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => Some(attributes),
        _ => None,
    }
}

/// The error in an answer: the kernel gives it negative, and zero for none.
fn errno(code: i32) -> Option<Errno> {
    (code != 0).then(|| Errno::from_raw(-code))
}
