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

/// The same for requests that are answered with an entry, in a buffer of a page each.
const BATCH_OF_ENTRIES: usize = 32;

/// What has become of a request about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// It has been so before: to be created, the same translation is there already; to be deleted, there
    /// is no such entry.
    Unchanged,
    /// To be created, the conversation is there with another translation.
    Elsewhere,
    /// The kernel refuses. `EEXIST`: one of the tuples belongs to another conversation. `ENOMEM`: the table
    /// is full.
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
        self.in_batches(entries, flags, message::create, |conntrack, batch| {
            let clashes = batch
                .iter()
                .filter(|(_, refusal)| *refusal == Some(Errno::EEXIST));
            let clashes: Vec<_> = clashes.map(|(entry, _)| *entry).collect();
            let mut there = conntrack.find_all(&clashes)?.into_iter();
            for (entry, refusal) in batch {
                let outcome = match refusal {
                    None => Outcome::Done,
                    Some(Errno::EEXIST) => match there.next().flatten() {
                        Some(there) if there.original != entry.original => {
                            Outcome::Refused(Errno::EEXIST)
                        }
                        Some(there) if there.reply == entry.reply => Outcome::Unchanged,
                        Some(_) => Outcome::Elsewhere,
                        None => Outcome::Refused(Errno::EEXIST),
                    },
                    Some(errno) => Outcome::Refused(*errno),
                };
                told(entry, outcome);
            }
            Ok(())
        })
        .context("cannot create conntrack's entries")
    }

    /// Gives entries that are there their time-outs anew and makes TCP connections established and liberal
    /// about windows, by their original tuple. One that is not there any more is passed over.
    ///
    /// # Errors
    ///
    /// As [`Self::insert`].
    pub fn refresh(&mut self, entries: impl IntoIterator<Item = Entry>) -> anyhow::Result<()> {
        self.in_batches(entries, 0, message::refresh, |_, _| Ok(()))
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
        self.in_batches(entries, 0, request, |_, batch| {
            for (entry, refusal) in batch {
                told(
                    entry,
                    match refusal {
                        None => Outcome::Done,
                        Some(Errno::ENOENT) => Outcome::Unchanged,
                        Some(errno) => Outcome::Refused(*errno),
                    },
                );
            }
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
        mut told: impl FnMut(&mut Self, &[(Entry, Option<Errno>)]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut entries = entries.into_iter();
        loop {
            let mut batch: Vec<_> = entries.by_ref().take(BATCH).map(|it| (it, None)).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let requests = batch.iter().map(|(entry, _)| request(entry)).collect();
            self.converse(flags, requests, |index, answer| {
                if let (Answer::Refused(errno), Some((_, refusal))) = (answer, batch.get_mut(index))
                {
                    *refusal = Some(errno);
                }
            })?;
            told(self, &batch)?;
        }
    }

    /// The entries whose original tuples, in either direction, these have; none where there is none.
    fn find_all(&mut self, entries: &[Entry]) -> anyhow::Result<Vec<Option<Entry>>> {
        let mut all = Vec::with_capacity(entries.len());
        for batch in entries.chunks(BATCH_OF_ENTRIES) {
            let first = all.len();
            all.resize(first + batch.len(), None);
            let requests = batch
                .iter()
                .map(|entry| message::get(entry.protocol, entry.original))
                .collect();
            self.converse(0, requests, |index, answer| {
                if let (Answer::Is(entry), Some(found)) = (answer, all.get_mut(first + index)) {
                    *found = Some(entry);
                }
            })?;
        }
        Ok(all)
    }

    /// Sends requests in one piece and tells of their answers, by the requests' places. One that is granted, and
    /// asks for nothing, has none.
    fn converse(
        &mut self,
        flags: u16,
        requests: Vec<Message>,
        mut told: impl FnMut(usize, Answer),
    ) -> anyhow::Result<()> {
        let count = requests.len();
        if count == 0 {
            return Ok(());
        }
        // That the last request is acknowledged in any case tells that the others, which the kernel takes one after
        // another, have been.
        let first = self.connection.send(flags, requests)?;
        let mut is_last_answered = false;
        while !is_last_answered {
            self.connection.receive(|message| {
                let index = message.header.sequence_number.wrapping_sub(first) as usize;
                match &message.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        if let Some(entry) = attributes(&inner.inner).and_then(message::entry) {
                            told(index, Answer::Is(entry));
                        }
                    }
                    NetlinkPayload::Error(error) => {
                        if let Some(errno) = errno(error.raw_code()) {
                            told(index, Answer::Refused(errno));
                        }
                        is_last_answered |= index + 1 == count;
                    }
                    _ => {}
                }
            })?;
        }
        Ok(())
    }

    /// Asks for one entry; none if it is of another zone.
    fn ask(
        &mut self,
        protocol: IpProtocol,
        tuple: Tuple,
    ) -> anyhow::Result<Result<Option<Entry>, Errno>> {
        let mut found = Ok(None);
        let requests = vec![message::get(protocol, tuple)];
        self.converse(0, requests, |_, answer| {
            found = match answer {
                Answer::Is(entry) => Ok(Some(entry)),
                Answer::Refused(errno) => Err(errno),
            };
        })?;
        Ok(found)
    }
}

/// What the kernel says to a request.
enum Answer {
    /// This is what was asked for.
    Is(Entry),
    /// It refuses.
    Refused(Errno),
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
