//! Fragments of accelerated flows.
//!
//! Only a datagram's first fragment has ports. What becomes of it is noted under what all of its fragments
//! share (addresses, protocol, identification), and the rest follows. Where flows are admitted without the
//! kernel's knowledge, nobody else could see to that: its rules would translate the rest, if at all, as
//! another conversation, and never find it whole.
//!
//! A fragment that comes before the first one is copied, and passed on: if the datagram turns out to be the
//! kernel's, it has got all of it; if it is ours, the copy is sent after the first fragment, and what the
//! kernel has been given in vain is forgotten there without a word, since no ICMP error is sent for a
//! datagram whose first fragment is missing (RFC 792, RFC 8200 4.5).

use core::{hint::black_box, ops::DerefMut};

use crate::{
    family::{Family, Network},
    flow::FlowKey,
    forward::{Forward, published},
    headers::{Be16, IpProtocol, Ports},
    packet::Packet,
    parse::{Parsed, transport},
    reason::Reason,
    reply::Reply,
    tables::{TableFull, Tables},
};

/// Seconds for which the rest of a datagram is waited for: as long as the kernel waits for it
/// (`IP_FRAG_TIME` in include/net/ip.h; IPv6 has twice that).
pub const LIFETIME: u32 = 30;

/// How many fragments of a datagram are held until its first one comes. A datagram of the greatest length
/// has 45 where links have Ethernet's MTU.
pub const MAX_HELD_PIECES: u32 = 48;

/// A fragment, as its IP header describes it.
#[derive(Clone, Copy, Debug)]
pub struct Piece<A> {
    /// What the IP header says; the protocol is the one of the datagram.
    pub network: Network<A>,
    /// The datagram's identification.
    pub id: u32,
    /// Where in the datagram its payload belongs, in bytes.
    pub offset: u32,
    /// Its payload, in bytes.
    pub payload: u32,
    /// Whether there is none behind it.
    pub is_last: bool,
    /// The interface it came in by, the lower half of its index.
    pub interface: u16,
}

impl<A: Copy> Piece<A> {
    /// Refuses what no fragment can be: without payload, or beyond a datagram's greatest length.
    #[inline(always)]
    pub(crate) fn checked(self) -> Result<Self, Reason> {
        if self.payload == 0 || self.offset + self.payload > u16::MAX.into() {
            return Err(Reason::Malformed);
        }
        Ok(self)
    }

    /// Whether it is a datagram's first fragment, which has the ports.
    #[inline(always)]
    pub fn is_first(&self) -> bool {
        self.offset == 0
    }

    /// What it shares with the datagram's other fragments.
    #[inline(always)]
    pub fn key(&self) -> FragmentKey<A> {
        FragmentKey {
            source: self.network.source,
            destination: self.network.destination,
            id: self.id,
            protocol: self.network.protocol,
            is_whole: u8::from(self.is_first() && self.is_last),
            interface: self.interface,
        }
    }
}

/// What all fragments of a datagram share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct FragmentKey<A> {
    /// Who has sent it.
    pub source: A,
    /// To whom.
    pub destination: A,
    /// Identification, in host byte order.
    pub id: u32,
    /// TCP or UDP.
    pub protocol: IpProtocol,
    /// 1 for an IPv6 datagram that has a fragment header and yet is whole, which has nothing to do with
    /// fragments of the same identification (RFC 6946).
    pub is_whole: u8,
    /// The interface they come in by, the lower half of its index: nobody else can add to a datagram.
    pub interface: u16,
}

/// The copy of a fragment that came before its datagram's first one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct HeldKey<A> {
    /// The datagram.
    pub datagram: FragmentKey<A>,
    /// Below [`MAX_HELD_PIECES`].
    pub index: u32,
}

/// Room for a copied frame, in bytes: one less of them fits.
pub const HELD_BYTES: usize = 2048;

/// A frame.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
pub struct Held {
    /// Its length, in bytes.
    pub length: u32,
    /// Its bytes.
    pub bytes: [u8; HELD_BYTES],
}

/// What becomes of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Way {
    /// It is left to the kernel.
    Slow = 0,
    /// Its first fragment has not come, and copies of all that have are held.
    Waiting = 1,
    /// It belongs to a flow of ours.
    Ours = 2,
    /// Its first fragment has not come, and will have to be left to the kernel as well, which alone has got
    /// all of the others.
    GivenUp = 3,
}

/// Bytes of a datagram's payload that have come, without a gap between them. Zero throughout if none have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Span {
    /// Where the first one belongs, in bytes.
    pub start: u16,
    /// Where the next one would.
    pub end: u16,
}

impl Span {
    /// A fragment's payload.
    #[inline(always)]
    fn of<A>(piece: &Piece<A>) -> Self {
        Self {
            start: piece.offset as u16,
            end: (piece.offset + piece.payload) as u16,
        }
    }

    /// All bits set if there is no gap between them, else none. An empty one touches what begins with the
    /// datagram, to which it adds nothing.
    #[inline(always)]
    fn touches(self, other: Self) -> i64 {
        let gap_before = i64::from(other.end) - i64::from(self.start);
        let gap_behind = i64::from(self.end) - i64::from(other.start);
        !signs(gap_before | gap_behind)
    }

    /// Grown by another one, if `mask` has all bits set; unchanged if it has none.
    #[inline(always)]
    fn grown(self, other: Self, mask: i64) -> Self {
        let before = i64::from(other.start) - i64::from(self.start);
        let behind = i64::from(self.end) - i64::from(other.end);
        Self {
            start: (i64::from(self.start) + (before & signs(before) & mask)) as u16,
            end: (i64::from(self.end) - (behind & signs(behind) & mask)) as u16,
        }
    }

    /// Its bounds where `mask` has bits set.
    #[inline(always)]
    fn masked(self, mask: i64) -> Self {
        Self {
            start: self.start & mask as u16,
            end: self.end & mask as u16,
        }
    }
}

/// All bits set for a negative number, none for others: a condition without a branch, which the verifier would
/// follow both ways. The compiler must not see through it.
#[inline(always)]
fn signs(number: i64) -> i64 {
    black_box(number >> 63)
}

/// How many spans of a datagram may have come with gaps between them.
pub const MAX_SPANS: usize = 8;

/// A datagram that comes in fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Datagram {
    /// What of it has come: the complement of the holes in RFC 815. No two touch. A fragment for which there is
    /// no room does not count; then the entry outlives its datagram, which does no harm unless the
    /// identification comes again within [`LIFETIME`], and out of order.
    pub spans: [Span; MAX_SPANS],
    /// Payload bytes in all; zero until the last fragment has told.
    pub total: u32,
    /// When the entry was made, in seconds of the monotonic clock.
    pub noted_at: u32,
    /// The backend's number; only for packets from outside.
    pub backend: u32,
    /// The flow's ports as the container sees them.
    pub container_port: Be16,
    /// The same.
    pub client_port: Be16,
    /// Length of the longest fragment that is held, from its IP header on.
    pub longest_held: u16,
    /// How many are held.
    pub held: u8,
    /// A [`Way`] as its number.
    pub way: u8,
}

impl Datagram {
    /// Nothing but which way it goes.
    #[inline(always)]
    fn new(way: Way, now: u32) -> Self {
        Self {
            spans: bytemuck::Zeroable::zeroed(),
            total: 0,
            noted_at: now,
            backend: 0,
            container_port: Be16::new(0),
            client_port: Be16::new(0),
            longest_held: 0,
            held: 0,
            way: way as u8,
        }
    }

    /// Whether it goes this way, and can still be under way.
    #[inline(always)]
    fn goes(&self, way: Way, now: u32) -> bool {
        self.way == way as u8 && self.is_fresh(now)
    }

    #[inline(always)]
    fn is_fresh(&self, now: u32) -> bool {
        // Signed: another CPU may have stamped the next second meanwhile.
        now.wrapping_sub(self.noted_at) as i32 <= LIFETIME as i32
    }

    /// Takes note of a fragment; whether the datagram is complete.
    #[inline(always)]
    fn account<A>(&mut self, piece: &Piece<A>) -> bool {
        let span = Span::of(piece);
        if piece.is_last {
            self.total = span.end.into();
        }
        self.cover(span)
    }

    /// Adds a span; whether the datagram is complete. A function of its own in the programs, too: they need it
    /// in many places.
    #[inline(never)]
    fn cover(&mut self, mut come: Span) -> bool {
        for span in &mut self.spans {
            let touches = span.touches(come);
            come = come.grown(*span, touches);
            *span = span.masked(!touches);
        }
        let mut to_put = -1;
        // Loaded anew, not kept on the stack until here.
        for span in black_box(&mut self.spans) {
            let here = signs(i64::from(span.end) - 1) & to_put;
            let Span { start, end } = come.masked(here);
            span.start |= start;
            span.end |= end;
            to_put &= !here;
        }
        self.total != 0 && come.start == 0 && u32::from(come.end) >= self.total
    }
}

const _: () = assert!(size_of::<FragmentKey<crate::headers::Be32>>() == 16);
const _: () = assert!(size_of::<FragmentKey<crate::headers::Ip6>>() == 40);
const _: () = assert!(size_of::<HeldKey<crate::headers::Be32>>() == 20);
const _: () = assert!(size_of::<HeldKey<crate::headers::Ip6>>() == 44);
const _: () = assert!(size_of::<Datagram>() == 52);
const _: () = assert!(size_of::<Held>() == 4 + HELD_BYTES);

/// What is to be done with a fragment that is not its datagram's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// To be left to the kernel.
    Pass,
    /// To be left to the kernel as well as copied, as the datagram's copy of this index.
    Hold(u32),
    /// To be translated.
    Send,
}

/// Reads the headers of a fragment of family `F`, but for those of the transport. Fragments of what is
/// neither TCP nor UDP, and all where the kernel knows of flows, are refused.
#[inline(always)]
pub fn piece<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    ingress: u32,
) -> Result<Piece<F::Address>, Reason> {
    let settings = tables.settings().ok_or(Reason::Admission)?;
    if !settings.is_direct() || packet.vlan_id() != 0 {
        return Err(Reason::Fragment);
    }
    let mut piece = F::parse_fragment(packet, P::L3)?;
    piece.interface = ingress as u16;
    match piece.network.protocol {
        IpProtocol::TCP | IpProtocol::UDP => Ok(piece),
        _ => Err(Reason::Fragment),
    }
}

/// Where the transport header of a datagram's first fragment begins.
#[inline(always)]
pub const fn first_l4<F: Family, P: Packet>() -> usize {
    P::L3 + F::HEADER_LEN + F::FRAGMENT_HEADER_LEN
}

/// Reads the transport header of a datagram's first fragment.
#[inline(always)]
pub fn parse_first<F: Family, P: Packet>(
    packet: &P,
    piece: &Piece<F::Address>,
) -> Result<Parsed<F>, Reason> {
    transport(packet, piece.network, first_l4::<F, P>(), !piece.is_last)
}

/// Notes that a datagram from outside belongs to a flow, which its first fragment has joined as a whole packet
/// does. `client_port` is the client's as the container sees it.
#[inline(always)]
pub fn begin_forward<F: Family, T: Tables<F>>(
    tables: &T,
    piece: &Piece<F::Address>,
    parsed: &Parsed<F>,
    client_port: Be16,
) -> Result<(), Reason> {
    let network = &piece.network;
    let (slot, backend) = published::<F, T>(
        tables,
        network.protocol,
        &network.destination,
        parsed.ports.destination,
    )
    .ok_or(Reason::NotPublished)?;
    let ports = Ports {
        source: slot.port(),
        destination: client_port,
    };
    begin(tables, piece, slot.backend(), ports, backend.mtu)
}

/// The same for one from a container, which leaves by a link with this MTU.
#[inline(always)]
pub fn begin_reply<F: Family, T: Tables<F>>(
    tables: &T,
    piece: &Piece<F::Address>,
    parsed: &Parsed<F>,
    mtu: u32,
) -> Result<(), Reason> {
    begin(tables, piece, 0, parsed.ports, mtu)
}

/// Notes it, unless a fragment of the datagram has been left to the kernel for good, or one that is held does
/// not fit through the link. `ports` are the container's, and the client's as it sees it.
#[inline(always)]
fn begin<F: Family, T: Tables<F>>(
    tables: &T,
    piece: &Piece<F::Address>,
    backend: u32,
    ports: Ports,
    mtu: u32,
) -> Result<(), Reason> {
    let now = tables.now();
    let key = piece.key();
    let mut datagram = Datagram::new(Way::Ours, now);
    datagram.backend = backend;
    datagram.container_port = ports.source;
    datagram.client_port = ports.destination;
    if let Some(before) = tables.datagram(&key) {
        if before.goes(Way::GivenUp, now) {
            return Err(Reason::Fragment);
        }
        if before.goes(Way::Waiting, now) {
            if u32::from(before.longest_held) > mtu {
                return Err(Reason::Mtu);
            }
            datagram.held = before.held;
        }
    }
    tables
        .note_datagram(&key, &datagram)
        .map_err(|TableFull| Reason::TableFull)
}

/// Notes that a datagram is the kernel's, where this fragment of it, its first one, has been left to it.
#[inline(always)]
pub fn leave<F: Family, T: Tables<F>>(tables: &T, piece: &Piece<F::Address>) {
    let key = piece.key();
    let now = tables.now();
    if let Some(mut datagram) = without_first::<F, T>(tables, &key, now) {
        datagram.way = Way::Slow as u8;
        account(tables, &key, datagram, piece);
        return;
    }
    let mut datagram = Datagram::new(Way::Slow, now);
    if !datagram.account(piece) {
        // Not noted, the rest is held in vain.
        let _ = tables.note_datagram(&key, &datagram);
    }
}

/// Notes that the first fragment of a datagram, which has not come, must be left to the kernel, since this one
/// is and no copy of it is held.
#[inline(always)]
pub fn give_up<F: Family, T: Tables<F>>(tables: &T, piece: &Piece<F::Address>) {
    let key = piece.key();
    let now = tables.now();
    if let Some(mut datagram) = without_first::<F, T>(tables, &key, now) {
        datagram.way = Way::GivenUp as u8;
        datagram.account(piece);
        return;
    }
    let mut datagram = Datagram::new(Way::GivenUp, now);
    datagram.account(piece);
    // Not noted, the datagram is lost if it was ours: memory is short.
    let _ = tables.note_datagram(&key, &datagram);
}

/// A datagram of which only other fragments than the first have come. The kernel has got all of them.
#[inline(always)]
fn without_first<F: Family, T: Tables<F>>(
    tables: &T,
    key: &FragmentKey<F::Address>,
    now: u32,
) -> Option<impl DerefMut<Target = Datagram>> {
    tables
        .datagram(key)
        .filter(|found| found.goes(Way::Waiting, now) || found.goes(Way::GivenUp, now))
}

/// What to do with a fragment that is not the first. `is_ours_to_hold` says whether a copy of it may be held:
/// of a packet from outside that is for an address of the host, or of a packet of a container.
#[inline(always)]
pub fn follow<F: Family, T: Tables<F>>(
    tables: &T,
    piece: &Piece<F::Address>,
    is_ours_to_hold: impl FnOnce() -> bool,
) -> Step {
    let key = piece.key();
    let now = tables.now();
    let Some(mut datagram) = tables.datagram(&key).filter(|found| found.is_fresh(now)) else {
        if !is_ours_to_hold() {
            return Step::Pass;
        }
        if piece.network.ttl > 1 {
            return Step::Hold(0);
        }
        give_up(tables, piece);
        return Step::Pass;
    };
    if datagram.way == Way::Ours as u8 {
        return Step::Send;
    }
    if datagram.way == Way::Waiting as u8 {
        if u32::from(datagram.held) < MAX_HELD_PIECES && piece.network.ttl > 1 {
            return Step::Hold(datagram.held.into());
        }
        datagram.way = Way::GivenUp as u8;
    }
    account(tables, &key, datagram, piece);
    Step::Pass
}

/// Takes note that a fragment has been copied, as the datagram's copy of this index.
#[inline(always)]
pub fn hold<F: Family, T: Tables<F>>(tables: &T, piece: &Piece<F::Address>, index: u32) {
    let key = piece.key();
    let length = piece.network.length as u16;
    if index != 0 {
        if let Some(mut datagram) = tables.datagram(&key)
            && datagram.way == Way::Waiting as u8
        {
            datagram.account(piece);
            datagram.held = index as u8 + 1;
            datagram.longest_held = datagram.longest_held.max(length);
        }
        return;
    }
    let mut datagram = Datagram::new(Way::Waiting, tables.now());
    datagram.account(piece);
    datagram.held = 1;
    datagram.longest_held = length;
    // Not noted, the copy is never asked for, and the datagram is lost if it was ours: memory is short.
    let _ = tables.note_datagram(&key, &datagram);
}

/// How many copies of its other fragments are to be sent after a datagram's first one, which has just been
/// noted.
#[inline(always)]
pub fn held<F: Family, T: Tables<F>>(tables: &T, key: &FragmentKey<F::Address>) -> u32 {
    tables
        .datagram(key)
        .map_or(0, |datagram| datagram.held.into())
}

/// Where a fragment from outside goes whose datagram is ours. Takes note of it.
#[inline(always)]
pub fn to_container<F: Family, T: Tables<F>>(
    tables: &T,
    piece: &Piece<F::Address>,
) -> Result<Forward<F>, Reason> {
    let network = &piece.network;
    let key = piece.key();
    let datagram = ours::<F, T>(tables, &key)?;
    let number = datagram.backend;
    let backend = tables.backend(number).ok_or(Reason::Fragment)?;
    let flow_key = FlowKey {
        container: F::from_words(&backend.address),
        client: network.source,
        container_port: datagram.container_port,
        client_port: datagram.client_port,
        protocol: network.protocol,
        padding8: 0,
        padding16: 0,
    };
    let mut flow = tables.flow(&flow_key).ok_or(Reason::Fragment)?;
    if backend.generation == 0 || flow.generation != backend.generation {
        return Err(Reason::Fragment);
    }
    check(network, backend.mtu)?;
    if !piece.is_first() {
        flow.traffic.count_in(network.length);
        tables.with_traffic(number, |traffic| traffic.count_in(network.length));
    }
    let is_alone = flow.traffic.packets_in == 1;
    account(tables, &key, datagram, piece);
    Ok(Forward {
        address: flow_key.container,
        ports: Ports {
            source: flow_key.client_port,
            destination: flow_key.container_port,
        },
        mac: backend.mac,
        source_mac: backend.source_mac,
        ifindex: backend.ifindex,
        // Counted when it joined its flow.
        is_first: piece.is_first() && is_alone,
    })
}

/// Where a fragment from a container goes whose datagram is ours. Takes note of it.
#[inline(always)]
pub fn to_client<F: Family, T: Tables<F>>(
    tables: &T,
    piece: &Piece<F::Address>,
) -> Result<Reply<F>, Reason> {
    let network = &piece.network;
    let key = piece.key();
    let datagram = ours::<F, T>(tables, &key)?;
    let flow_key = FlowKey {
        container: network.source,
        client: network.destination,
        container_port: datagram.container_port,
        client_port: datagram.client_port,
        protocol: network.protocol,
        padding8: 0,
        padding16: 0,
    };
    let mut flow = tables.flow(&flow_key).ok_or(Reason::Fragment)?;
    let backend = tables.backend(flow.backend).ok_or(Reason::Fragment)?;
    if flow.generation != backend.generation {
        return Err(Reason::Fragment);
    }
    let mtu = u32::from(flow.external_mtu);
    check(network, mtu)?;
    if !piece.is_first() {
        flow.traffic.count_out(network.length);
        tables.with_traffic(flow.backend, |traffic| traffic.count_out(network.length));
    }
    account(tables, &key, datagram, piece);
    Ok(Reply {
        address: flow.host_address,
        ports: Ports {
            source: flow.host_port,
            destination: flow.client_port,
        },
        ifindex: flow.external_ifindex,
        next_hop: flow.next_hop,
        mtu,
    })
}

/// Takes note of a fragment of a datagram, and forgets that when it is complete.
#[inline(always)]
fn account<F: Family, T: Tables<F>>(
    tables: &T,
    key: &FragmentKey<F::Address>,
    mut datagram: impl DerefMut<Target = Datagram>,
    piece: &Piece<F::Address>,
) {
    let is_complete = datagram.account(piece);
    drop(datagram);
    if is_complete {
        tables.forget_datagram(key);
    }
}

#[inline(always)]
fn ours<F: Family, T: Tables<F>>(
    tables: &T,
    key: &FragmentKey<F::Address>,
) -> Result<impl DerefMut<Target = Datagram>, Reason> {
    let now = tables.now();
    tables
        .datagram(key)
        .filter(|found| found.goes(Way::Ours, now))
        .ok_or(Reason::Fragment)
}

/// Whether a fragment can go on.
#[inline(always)]
fn check<A>(network: &Network<A>, mtu: u32) -> Result<(), Reason> {
    if network.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    if network.length > mtu {
        return Err(Reason::Mtu);
    }
    Ok(())
}
