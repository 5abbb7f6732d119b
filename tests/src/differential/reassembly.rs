//! Putting fragments together as their receiver would (RFC 791 3.2, RFC 8200 4.5).
//!
//! Netfilter puts a packet together before it translates it, and sends it on whole or cut anew; portway sends
//! on each piece as it comes. What counts is the packet that the receiver makes of them.

use std::collections::HashMap;

use super::{
    packet::{self, Packet},
    tap::Arrival,
    wire::{self, ETHERNET_LEN},
};

/// Source, destination and what numbers the pieces of one packet, as bytes.
type Key = Vec<u8>;

/// A piece: its first byte's place, its bytes, whether more follow.
#[derive(Debug, Clone)]
struct Piece {
    start: usize,
    bytes: Vec<u8>,
    is_last: bool,
}

/// The pieces that a party has received, of packets that are not whole yet.
#[derive(Debug, Clone, Default)]
pub struct Reassembly(HashMap<Key, (Option<Arrival>, Vec<Piece>)>);

impl Reassembly {
    /// Takes an arrival in. Returns it if it is no fragment, and a whole packet with its last piece.
    pub fn take(&mut self, arrival: Arrival) -> Option<Arrival> {
        let Some(packet) = arrival.bytes.get(ETHERNET_LEN..).and_then(packet::read) else {
            return Some(arrival);
        };
        if !packet.is_fragment {
            return Some(arrival);
        }
        let (key, piece) = cut(&arrival.bytes[ETHERNET_LEN..], &packet)?;
        let (first, pieces) = self.0.entry(key.clone()).or_default();
        if piece.start == 0 {
            *first = Some(arrival);
        }
        pieces.push(piece);
        let body = whole(pieces)?;
        let (first, _) = self.0.remove(&key)?;
        Some(join(first?, &body))
    }
}

/// What a fragment says of itself.
fn cut(bytes: &[u8], packet: &Packet) -> Option<(Key, Piece)> {
    let mut key = wire::octets(packet.source);
    key.extend(wire::octets(packet.destination));
    key.push(packet.protocol);
    let (field, number) = match packet.source.is_ipv4() {
        true => (bytes.get(6..8)?, bytes.get(4..6)?),
        false => (bytes.get(42..44)?, bytes.get(44..48)?),
    };
    key.extend(number);
    let field = u16::from_be_bytes([field[0], field[1]]);
    let (start, has_more) = match packet.source.is_ipv4() {
        true => ((field & 0x1fff) * 8, field & 0x2000 != 0),
        false => (field & 0xfff8, field & 1 != 0),
    };
    let piece = Piece {
        start: start.into(),
        bytes: bytes.get(packet.header_len..packet.len)?.to_vec(),
        is_last: !has_more,
    };
    Some((key, piece))
}

/// The whole body, if every piece is there.
fn whole(pieces: &mut [Piece]) -> Option<Vec<u8>> {
    pieces.sort_by_key(|piece| piece.start);
    let mut body = Vec::new();
    for piece in pieces.iter() {
        if piece.start != body.len() {
            return None;
        }
        body.extend(&piece.bytes);
    }
    pieces.last()?.is_last.then_some(body)
}

/// The first piece's frame with the whole body, and without anything of a fragment.
fn join(first: Arrival, body: &[u8]) -> Arrival {
    let mut bytes = first.bytes;
    let ip = ETHERNET_LEN;
    if bytes[ip] >> 4 == 4 {
        let header_len = usize::from(bytes[ip] & 0xf) * 4;
        bytes.truncate(ip + header_len);
        let length = (header_len + body.len()) as u16;
        bytes[ip + 2..ip + 4].copy_from_slice(&length.to_be_bytes());
        bytes[ip + 6..ip + 8].fill(0);
        bytes[ip + 10..ip + 12].fill(0);
        let checksum = !(wire::add(0, &bytes[ip..]) as u16);
        bytes[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        bytes[ip + 6] = bytes[ip + 40];
        bytes.truncate(ip + 40);
        bytes[ip + 4..ip + 6].copy_from_slice(&(body.len() as u16).to_be_bytes());
    }
    bytes.extend(body);
    Arrival { bytes, ..first }
}
