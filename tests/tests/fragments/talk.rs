//! What is sent, in which orders, and what has to come of it.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use portway_tests::conversation::ANSWER_LIMIT;

/// Payload of a fragment on Ethernet, in either IP version.
pub const FULL: usize = 1448;

/// Bytes that no other seed has.
pub fn content(seed: usize, length: usize) -> Vec<u8> {
    let bytes = (0..length).map(|index| (index * 31 + seed * 7919 + (index >> 8) * 13) as u8);
    bytes.collect()
}

/// A socket that waits for an answer as long as others do. With a `peer` it hears nobody else.
pub fn socket(own: SocketAddr, peer: Option<SocketAddr>) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(own).with_context(|| format!("cannot bind {own}"))?;
    if let Some(peer) = peer {
        socket.connect(peer)?;
    }
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(socket)
}

/// Demands that `content` comes, and tells from whom.
pub fn expect(socket: &UdpSocket, content: &[u8]) -> Result<SocketAddr> {
    let mut datagram = vec![0; 1 << 16];
    let (length, from) = socket.recv_from(&mut datagram).context("nothing came")?;
    ensure!(
        datagram[..length] == *content,
        "{length} bytes came that are not the {} sent",
        content.len()
    );
    Ok(from)
}

/// Lengths of datagrams and their fragments: barely two, some, many, tiny ones, and the greatest there are.
pub const CUTS: [(usize, usize); 6] = [
    (1473, FULL),
    (4000, FULL),
    (4000, 1000),
    (8192, FULL),
    (2000, 128),
    (60_000, FULL),
];

/// How many fragments a datagram of `length` bytes makes, cut by `size`.
pub fn count(length: usize, size: usize) -> usize {
    (length + 8).div_ceil(size)
}

/// Orders worth trying of `count` fragments, and some with one that comes twice.
pub fn orders(count: usize) -> Vec<Vec<usize>> {
    let in_order: Vec<_> = (0..count).collect();
    let mut last_first = in_order.clone();
    last_first.rotate_right(1);
    let mut second_first = in_order.clone();
    second_first.swap(0, 1);
    let shuffled = |stride: usize| {
        let mut order = in_order.clone();
        order.sort_by_key(|index| (index * stride + 1) % (count + 1));
        order
    };
    vec![
        in_order.clone(),
        in_order.iter().rev().copied().collect(),
        last_first,
        second_first,
        shuffled(3),
        shuffled(7),
        in_order.iter().chain([&1]).copied().collect(),
        [1].into_iter().chain(in_order).collect(),
    ]
}

/// Fragments in an order.
pub fn pick<'a>(fragments: &'a [Vec<u8>], order: &[usize]) -> Vec<&'a Vec<u8>> {
    order.iter().map(|index| &fragments[*index]).collect()
}
